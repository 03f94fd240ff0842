"""What the steps of a run give is bounded together: whoever drives the run has all of it in memory.

A run whose steps give more fails, and says so. What goes beyond the bound is not kept in memory; it stays in the
journals of its steps, where attempts read it.
"""

from __future__ import annotations

from collections.abc import Iterable

from agentrun.api.facts import FailureInfo, StepFact
from agentrun.api.workflow import FailureClass

OUTPUTS_MAX = 64 * 1024 * 1024
"""Bytes of memory: of text about as many bytes, of numbers and small objects ten times what they take as JSON."""


def too_much(facts: Iterable[StepFact]) -> FailureInfo | None:
    """Why a run fails whose steps gave what ``facts`` say; None: it does not. The same whenever one looks."""
    total = sum([fact.size for fact in facts])
    if total <= OUTPUTS_MAX:
        return None
    message = (
        f"the outputs of its steps take {total / 2**20:,.0f} MiB of memory together, more than"
        f" {OUTPUTS_MAX // 2**20} MiB: let each give less (output and maxBytes of its tool, what"
        " its prompt asks for), and keep data where the tools are"
    )
    return FailureInfo(FailureClass.INVALID, message)


def is_left_out(fact: StepFact) -> bool:
    """Whether the output was not kept."""
    return fact.output is None and fact.size > 0
