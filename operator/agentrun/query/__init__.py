"""The read model: a run, its timeline, what a person can do now and how two runs differ, as data.

It stands below the command line and knows no terminal: whoever shows runs reads them here. ``run_view`` is a run as an
AgentRun object, wherever it is kept; ``stored_run`` makes one of a journal in a store. ``next_steps`` and ``timeline``
say in words what a person can do, and what happened.
"""
