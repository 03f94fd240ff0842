"""The outputs of a run's steps have one bound together, because the driver of the run has all of them in memory.

A run whose outputs are larger fails, and says so. Outputs beyond the bound are not kept in memory; they stay in the
journals of the steps, where attempts read them.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentrun.api.facts import FailureInfo, StepFact
from agentrun.api.workflow import FailureClass

OUTPUTS_MAX = 64 * 1024 * 1024
"""Bytes of memory. Text takes about its own size; numbers and small objects take ten times their size as JSON."""


def too_much(facts: Iterable[StepFact]) -> FailureInfo | None:
    """Why a run with the outputs of ``facts`` fails; None: it does not. The result is the same at any time."""
    total = sum([fact.size for fact in facts])
    if total <= OUTPUTS_MAX:
        return None
    message = (
        f"the outputs of its steps take {total / 2**20:,.0f} MiB of memory together, more than"
        f" {OUTPUTS_MAX // 2**20} MiB: make each smaller (output and maxBytes of its tool, what"
        " its prompt asks for), and keep data where the tools are"
    )
    return FailureInfo(FailureClass.INVALID, message)


def is_left_out(fact: StepFact) -> bool:
    """Whether the output is not kept in memory."""
    return fact.output is None and fact.size > 0
