"""The command line. ``main`` imports click alone; each verb imports what it needs when it is called."""
