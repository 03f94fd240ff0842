"""From what is seen of a cluster to what is done on it: cache, queue, expectations, reconciler, leader election.

In reading order: ``views`` (the kinds that are watched, and what is kept of each), ``controller`` (events fill the
``cache`` and the ``queue``; ``lists`` fill the cache too), ``reconciler`` (one visit of one run),
``opening`` (pin or load a run), ``live`` (what is held of it), ``people`` and ``hearing`` (words become events),
``thinking`` (the planner beside the loop), ``slots`` (how many pods), ``statuses`` and ``showing`` (the status),
``leader``. An evicted pod goes this way: ``adapters.pod_status`` → ``controller.pod_seen`` → ``reconciler._take_ends``
→ ``journal.fact`` → ``live.take`` → ``plan.attempt_tracker`` → ``plan.attempts`` → ``plan.retry.loss_delay``.
"""
