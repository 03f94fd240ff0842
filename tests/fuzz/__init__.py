"""Random input for whatever reads what tenants write: the decoder, the validator and the planner.

Each target is a strategy and a check (``target.Target``). ``make fuzz`` tries them for as long as one likes,
``make test`` for one minute, and the unit tests (``tests/unit/test_fuzz.py``) for a few examples each.
"""
