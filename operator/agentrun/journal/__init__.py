"""The append-only journal in object storage: checkpoint, audit trail and lock in one.

In reading order: ``paths`` (the keys of a run's objects), ``records`` (the form of a record), ``log`` (append by
create-only writes: the fence), ``fold`` (a step's records become its state), ``runs`` and ``pinned`` (a run as a
whole), ``bounded_outputs`` (their bound in memory), ``fork`` and ``repeats``, ``audit``. ``runner`` writes the records
of steps; ``local`` and ``control`` write the events of runs.
"""
