"""Exit codes of a step's process; docs/reference/ lists them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit code that a step's process returns to its starter. The termination message has the details."""

    CLOSED = 0
    FAILED = 1
    USAGE = 2
    WAITING = 3
    STORE = 4
    FENCED = 5
