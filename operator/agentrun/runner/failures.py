"""Why a call to a model or a tool came to nothing, in the terms that decide what happens next."""

from __future__ import annotations

from typing import Literal

from agentrun.api.facts import FailureInfo
from agentrun.api.printable import printable
from agentrun.api.values import JSON
from agentrun.api.workflow import FailureClass

MESSAGE_MAX = 500

Happened = Literal["no", "unknown", "yes"]


def plain(text: str, limit: int = MESSAGE_MAX) -> str:
    """``text`` from outside, fit for a terminal, a log and a status field.

    As ``printable`` has it, without the blanks around it: at most ``limit`` characters on one line.
    """
    return printable(text.strip(), limit)


class Failure(Exception):
    """A call failed.

    ``failure_class`` decides how a step's ``retry.classes`` treats it, and ``retryable`` whether another try could end
    differently at all. ``retry_after`` is in seconds, where the other side asked for a pause. ``happened`` matters
    for calls that have an effect: "no" means that the call was surely not carried out (never connected, or refused
    by 429), "unknown" that it may have been, "yes" that it surely was, and that its answer did not come whole: ``kept``
    is what came, as a record holds it. ``message`` is for a person: bounded, printable, without secrets.
    """

    def __init__(
        self,
        failure_class: FailureClass,
        message: str,
        *,
        retryable: bool,
        retry_after: float | None = None,
        happened: Happened = "unknown",
        kept: dict[str, JSON] | None = None,
    ) -> None:
        self.failure_class = failure_class
        self.message = plain(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.happened: Happened = happened
        self.kept = kept
        super().__init__(self.message)

    @property
    def info(self) -> FailureInfo:
        """As records hold it."""
        happened = self.happened == "yes"
        return FailureInfo(self.failure_class, self.message, self.retry_after, self.retryable, happened)


class ContextOverflow(Failure):
    """The history is longer than the model takes: the same request can only fail again; compact it first."""
