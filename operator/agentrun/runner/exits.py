"""Exit codes of a step's process (listed in docs/spec.md), and the exceptions that end an attempt on purpose."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from agentrun.api.facts import FailureInfo
from agentrun.api.run import StepState


class Exit(IntEnum):
    """What the process says to whoever started it; the termination message says the rest."""

    CLOSED = 0
    FAILED = 1
    USAGE = 2
    WAITING = 3
    STORE = 4
    FENCED = 5


class Parked(Exception):
    """The attempt can go no further for now: commit ``waiting`` with this body and release the process."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        super().__init__(str(body))


class Closed(Exception):
    """The step is over in a way that is decided already: commit ``closed`` with this body."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        super().__init__(str(body.get("outcome")))


def failed(info: FailureInfo) -> Closed:
    """The end of a step that failed for good."""
    return Closed({"outcome": str(StepState.FAILED), "failure": info.to_json()})
