"""The read model: a run, its timeline, what a person can do next, and how two runs differ, as data.

The package is below the command line and does not use a terminal; everything that shows runs reads them here.
``run_view`` has a run as an AgentRun object, from a store or a cluster; ``stored_run`` makes one from a journal in a
store. ``next_steps`` says in words what a person can do, and ``timeline`` what happened.
"""
