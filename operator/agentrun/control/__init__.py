"""The operator's control loop: cache, work queue, expectations, reconciler, leader election.

In reading order: ``views`` (the watched kinds, and what is kept of each object), ``controller`` (watch events fill the
``cache`` and the ``queue``; ``lists`` fill the cache too), ``reconciler`` (one visit to one run), ``opening`` (pin or
load a run), ``live`` (the state of a run in memory), ``people`` and ``hearing`` (decisions and commands become events),
``thinking`` (long computations outside the event loop), ``slots`` (the places for pods), ``statuses`` and ``showing``
(the status), ``leader``. An evicted pod goes this way: ``adapters.pod_status`` → ``controller.pod_seen`` →
``reconciler._take_ends`` → ``journal.fact`` → ``live.take`` → ``plan.attempt_tracker`` → ``plan.attempts`` →
``plan.retry.loss_delay``.
"""
