"""The command line. ``main`` imports only click; the module of a verb is imported when the verb is called.

A verb is a module of ``verbs``, written once over the protocol ``backend.Backend``. ``on_store`` and ``on_cluster``
implement the protocol, and ``options`` chooses one of them for each command. ``agentrun.query`` reads runs;
``terminal`` prints objects, tables and the live view; ``what_next`` prints what a person can do.
"""
