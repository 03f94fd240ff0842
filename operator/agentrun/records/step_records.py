"""The records of one step's journal, by kind."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a step's record says."""

    OPENED = "opened"
    TURN = "turn"
    INTENT = "intent"
    RESULT = "result"
    WAITING = "waiting"
    COMPACTED = "compacted"
    FAILED = "failed"
    CLOSED = "closed"
