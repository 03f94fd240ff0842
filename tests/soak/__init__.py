"""Chaos on a real Kubernetes for as long as one likes, with a ledger outside: ``python -m tests.soak --minutes 10``.

Runs of one tenant pay, ask, wait, fan out and fail. Another tenant's small runs are timed. A third writes the worst
objects there are. Meanwhile operators, runners, pods, the store, the API server and the node are killed and paused.
In the end nothing was done twice, nothing was lost, nothing is stuck, no log holds a traceback, and memory is flat.

``faults`` has what is done to the cluster, ``load`` the tenants, ``verdict`` what has to hold.
"""
