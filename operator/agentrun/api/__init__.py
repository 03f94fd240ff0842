"""The resource types: what a person writes, and the small values that everything else speaks of.

``workflow``, ``run``, ``approval``, ``command`` and ``status`` are the resources; ``crd`` writes their schemas;
``document``, ``reader`` and ``problems`` read a person's files; ``decoding`` bounds what an API server sends.
"""
