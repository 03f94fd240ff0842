"""Failed calls to a model or a tool, classified by what decides how to continue."""

from __future__ import annotations

from typing import Literal

from agentrun.api.facts import FailureInfo
from agentrun.api.printable import printable
from agentrun.api.values import JSON
from agentrun.api.workflow import FailureClass

MESSAGE_MAX = 500

Happened = Literal["no", "unknown", "yes"]


def plain(text: str, limit: int = MESSAGE_MAX) -> str:
    """Make ``text`` from outside safe for a terminal, a log and a status field.

    The result is ``printable``, without surrounding blanks, on one line of at most ``limit`` characters.
    """
    return printable(text.strip(), limit)


class Failure(Exception):
    """A call failed.

    - ``failure_class``: what the step's ``retry.classes`` compares.
    - ``retryable``: whether another try could end differently.
    - ``retry_after``: the pause that the other side asked for, in seconds.
    - ``happened``: matters for calls that have an effect. "no": the call was surely not carried out (never connected,
      or refused by 429). "unknown": it may have been. "yes": it surely was, but its answer did not arrive whole.
    - ``kept``: what arrived of that answer, in the form of a record.
    - ``message``: for a person; bounded, printable, without secrets.
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
        """The failure in the form of records."""
        happened = self.happened == "yes"
        return FailureInfo(self.failure_class, self.message, self.retry_after, self.retryable, happened)


class ContextOverflow(Failure):
    """The history is longer than the model accepts. The same request would fail again: compact the history first."""
