"""The exceptions that end an attempt on purpose, and the end of a step that failed."""

from __future__ import annotations

from agentrun.api.facts import FailureInfo
from agentrun.api.run import StepState
from agentrun.records.step_records import ClosedBody, WaitingBody

INTERRUPTED: WaitingBody = {"interrupted": True}
"""Somebody asked the attempt to leave."""


class Parked(Exception):
    """The attempt can go no further for now: commit ``waiting`` with this body and release the process."""

    def __init__(self, body: WaitingBody) -> None:
        self.body = body
        super().__init__(str(body))


class Closed(Exception):
    """The step is over in a way that is decided already: commit ``closed`` with this body."""

    def __init__(self, body: ClosedBody) -> None:
        self.body = body
        super().__init__(str(body.get("outcome")))


def failed(info: FailureInfo) -> Closed:
    """The end of a step that failed for good."""
    return Closed({"outcome": str(StepState.FAILED), "failure": info.to_json()})
