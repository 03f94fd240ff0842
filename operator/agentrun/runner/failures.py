"""Why a call to a model or a tool came to nothing, in the terms that decide what happens next."""

from __future__ import annotations

from typing import Literal

from agentrun.api.workflow import FailureClass

MESSAGE_MAX = 500

Happened = Literal["no", "unknown"]


def plain(text: str, limit: int = MESSAGE_MAX) -> str:
    """``text`` from outside, fit for a terminal, a log and a status field.

    At most ``limit`` characters and a mark of the cut; whatever does not print (control characters, bidirectional
    overrides, lone surrogates) is escaped.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:limit].strip())
    return shown[:limit] + "…" if len(shown) > limit or len(text) > limit else shown


class Failure(Exception):
    """A call failed.

    ``failure_class`` decides how a step's ``retry.classes`` treats it, and ``retryable`` whether another try could end
    differently at all. ``retry_after`` is in seconds, where the other side asked for a pause. ``happened`` matters
    for calls that have an effect: "no" means that the call was surely not carried out (never connected, or refused
    by 429), "unknown" that it may have been. ``message`` is for a person: bounded, printable, without secrets.
    """

    def __init__(
        self,
        failure_class: FailureClass,
        message: str,
        *,
        retryable: bool,
        retry_after: float | None = None,
        happened: Happened = "unknown",
    ) -> None:
        self.failure_class = failure_class
        self.message = plain(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.happened: Happened = happened
        super().__init__(self.message)


class ContextOverflow(Failure):
    """The history is longer than the model takes: the same request can only fail again; compact it first."""
