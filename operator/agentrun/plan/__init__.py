"""The pure planner: a snapshot in, effects and a status out. No I/O, no clock, no randomness.

In reading order: ``snapshot`` (what is known, and the effects), ``planner`` (``plan``: the phases of a run), ``steps``
(which step is looked at), ``attempts`` (how one step stands), ``people`` (approvals and waits), ``fan_out``,
``starting`` (what begins, within the budget), ``status``. ``events`` indexes the run's events and counts decisions;
``work`` bounds what all of it may cost. ``commands`` says which event a person's verb becomes, and ``attempt_tracker``
keeps how attempts ended. The same planner drives a laptop (``local``) and a cluster (``control``).
"""
