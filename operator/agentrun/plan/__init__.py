"""The pure planner: a snapshot in, effects and a status out. No I/O, no clock, no randomness."""
