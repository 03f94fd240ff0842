"""What the runtime writes: the kinds of records, and the form of their bodies.

``step_records`` has the records of one step, ``run_events`` the records of the run as a whole. ``plan`` names the
events that it asks for by these kinds, ``runner`` writes the records of steps, ``journal`` stores and reads both.
"""
