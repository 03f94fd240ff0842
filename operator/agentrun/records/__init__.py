"""What the runtime writes: ``run.json``, the kinds of records, the form of their bodies, and what steps wait for.

In reading order: ``manifest`` (``run.json``), ``step_records`` (the records of one step), ``run_events`` (the records
of the run as a whole), ``event_forms`` (the check of their bodies), ``waits`` (``waitingFor`` in a status). ``plan``
asks for events of these kinds and writes the waits, ``runner`` writes the records of steps, and ``journal`` stores and
reads both.
"""
