"""The command line. ``main`` imports click alone; each verb imports what it needs when it is called.

A verb is a module: for a store here, for a cluster of the same name in ``on_cluster``. ``options`` has the dispatch,
``view`` and ``timeline`` what is shown of a run, ``output`` tables and colours, ``printable`` the door to the terminal.
"""
