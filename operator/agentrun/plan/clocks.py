"""Instants that another clock has set: a node's, or this machine's before it was corrected."""

from __future__ import annotations

from dataclasses import replace

from agentrun.api.facts import StepFact


def in_our_time(fact: StepFact, now: float) -> StepFact:
    """``fact`` as our own clock would have told it, as far as that can be known.

    The clock that stamped it may be ahead of ours, and nothing of it has happened in the future. Without this, a pause
    or a person's answer would wait until our clock has come there. (A runner's clock that is behind is set right by the
    runner: ``AttemptSpec.at``.)
    """
    ahead = fact.at - now
    if ahead <= 0:
        return fact
    intervals = tuple((start - ahead, end - ahead) for start, end in fact.intervals)
    return replace(fact, at=now, started=fact.started - ahead, intervals=intervals)
