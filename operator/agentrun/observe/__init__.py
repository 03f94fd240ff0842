"""The operator's ``metrics``, ``logs`` and ``health`` for people and dashboards. ``server`` serves all but the logs."""
