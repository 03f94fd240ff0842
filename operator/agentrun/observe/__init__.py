"""What people and dashboards see of the operator: ``metrics``, ``logs``, ``health``, served by ``server``."""
