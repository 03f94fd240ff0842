"""Corrects instants of another clock: a node's clock, or this machine's before it was set right."""

from __future__ import annotations

from dataclasses import replace

from agentrun.api.facts import StepFact


def in_our_time(fact: StepFact, now: float) -> StepFact:
    """``fact`` with its instants moved to our own clock, as far as that is possible.

    The clock that stamped ``fact`` may be ahead of ours, but nothing in it has happened in the future. Without this, a
    pause or a person's answer would wait until our clock gets there. (A runner corrects its own clock if that is
    behind: ``Start.at``.)
    """
    ahead = fact.at - now
    if ahead <= 0:
        return fact
    intervals = tuple((start - ahead, end - ahead) for start, end in fact.intervals)
    return replace(fact, at=now, started=fact.started - ahead, intervals=intervals)
