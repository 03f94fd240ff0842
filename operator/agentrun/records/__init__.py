"""What the runtime writes: the kinds of records and the form of their bodies, ``run.json``, and what steps wait for.

In reading order: ``manifest`` (``run.json``), ``step_records`` (the records of one step), ``run_events`` (the records
of the run as a whole), ``waits`` (``waitingFor`` in a status). ``plan`` asks for events of these kinds and writes the
waits, ``runner`` writes the records of steps, and ``journal`` stores and reads both.
"""
