"""The exceptions that end an attempt on purpose."""

from __future__ import annotations

from agentrun.api.facts import FailureInfo
from agentrun.api.run import StepState
from agentrun.records.step_records import ClosedBody, WaitingBody

INTERRUPTED: WaitingBody = {"interrupted": True}
"""The attempt was asked to stop."""


class Parked(Exception):
    """The attempt cannot continue for now: commit ``waiting`` with this body and end the process."""

    def __init__(self, body: WaitingBody) -> None:
        self.body = body
        super().__init__(str(body))


class Closed(Exception):
    """The step is over: commit ``closed`` with this body, which holds the outcome."""

    def __init__(self, body: ClosedBody) -> None:
        self.body = body
        super().__init__(str(body.get("outcome")))


def failed(info: FailureInfo) -> Closed:
    """The exception that ends a step as Failed, without another attempt."""
    return Closed({"outcome": str(StepState.FAILED), "failure": info.to_json()})
