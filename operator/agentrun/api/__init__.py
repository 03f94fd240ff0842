"""The resource types that people write, and the small values that all other packages use.

``workflow``, ``run``, ``approval``, ``command`` and ``status`` are the resources; ``crd`` writes their schemas.
``document``, ``reader``, ``scalars`` and ``problems`` read a user's files. ``decoding`` bounds what an API server
sends, and ``bounds`` says how much a value may hold. ``facts`` has what the planner reads of a step.
"""
