"""The operator's control loop: cache, work queue, expectations, reconciler, leader election.

In reading order: ``views`` (the watched kinds, and what is kept of each object), ``controller`` (watch events fill the
``cache`` and the ``queue``; ``lists`` fill the cache too), ``reconciler`` (one visit to one run), ``run_loader`` (pin
or load a run), ``run_state`` (the state of a run in memory), ``approvals`` and ``inbox`` (decisions and commands become
events), ``answers`` (the status of commands), ``thinking`` (long computations outside the event loop), ``pod_queue``
(the places for pods), ``status_writer`` and ``run_status`` (the status of the run), ``leader``.

An evicted pod: in it, SIGTERM sets ``asked_to_leave`` (``runner.process``), and the attempt commits ``waiting`` between
two calls (``Attempt.check_stop``) and leaves its fact as its last word. ``adapters.pod_status._end`` says why the pod
ended. ``controller.pod_seen`` queues its run, or ``pod_gone`` if the pod is deleted. ``reconciler._take_ends`` takes
the last word, or without one what ``async_journal.fact`` reads from the store, and counts a loss in the metric; the
count that decides is that of the journal and the tracker (``plan.attempts.stand``). ``run_state.take`` keeps the end in
``plan.attempt_tracker``. The next plan (``run_state.snapshot``) begins another attempt at once, later or never:
``plan.attempts._held_back``, by ``plan.retry.loss_delay``. A pod that had time to commit left a last word, so no loss
is counted.
"""
