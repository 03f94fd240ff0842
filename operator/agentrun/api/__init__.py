"""The resource types that people write, and the small values that all other packages use.

``workflow`` (with ``tools``), ``run``, ``approval``, ``command`` and ``status`` are the resources; ``crd`` writes their
schemas.
``decoding`` bounds what an API server sends, and ``bounds`` says how much a value may hold. ``facts`` has what the
planner reads of a step. How a user's file becomes a resource is in ``documents``.
"""
