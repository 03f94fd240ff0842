"""The command line. ``main`` imports click alone; each verb imports what it needs when it is called.

A verb is a module of ``verbs``, written once over ``backend.Backend``. ``on_store`` and ``on_cluster`` implement that
protocol, and ``options`` decides which of them a command works on. What is shown of a run is read in
``agentrun.query``; ``terminal`` has objects, tables and the live view, ``what_next`` what a person can do.
"""
