"""The append-only journal in object storage: checkpoint, audit trail and lock in one.

In reading order: ``records`` (the form of a record), ``log`` (append by create-only writes: the fence), ``fold`` (a
step's records become its state), ``run`` and ``pinned`` (a run as a whole), ``fork``, ``difference``, ``audit``.
``runner`` writes the records of steps; ``local`` and ``control`` write the events of runs.
"""
