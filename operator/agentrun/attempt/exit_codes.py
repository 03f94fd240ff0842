"""Exit codes of a step's process; docs/reference/ lists them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the process says to whoever started it; the termination message says the rest."""

    CLOSED = 0
    FAILED = 1
    USAGE = 2
    WAITING = 3
    STORE = 4
    FENCED = 5
