"""The pure planner: a snapshot in, a plan (effects and a status) out. No I/O, no clock, no randomness.

In reading order: ``snapshot`` (the planner's input and output), ``planner`` (``plan``: the phases of a run),
``graph_state`` (one graph of steps), ``attempts`` (the standing of one step), ``retry`` (whether and when another
attempt follows; the runner asks it too), ``waits`` (approvals and waits), ``fan_out``, ``dispatch`` (which attempts
begin, within the budget), ``status``. ``context`` holds the state that these share, ``events`` indexes the run's events
and counts decisions, ``work_budget`` bounds the cost of expressions. ``commands`` maps a person's verb to an event, and
``attempt_tracker`` remembers how attempts ended. The same planner drives a laptop (``local``) and a cluster
(``control``).
"""
