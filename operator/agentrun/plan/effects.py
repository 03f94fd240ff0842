"""A call that was carried out and whose answer cannot be used: what becomes of its step (docs/contract.md).

The status line says that it happened; its body is too large, is encoded in a way that nobody asked for, breaks off,
or the tool's ``output`` has no value over it. Trying again would do it twice, and to fail as if nothing had happened
would forget it.
"""

from __future__ import annotations

from agentrun.api.run import StepState
from agentrun.api.workflow import Effect
from agentrun.plan.attempts import Standing
from agentrun.workflow.program import CompiledStep


def asks_people(step: CompiledStep, effect: Effect) -> bool:
    """Whether a person says what the call of ``step`` came to; else the step fails, and is compensated.

    - What only reads has no effect: the step fails.
    - A compensation that needs nothing of the step's own output undoes it without anybody's help: the step fails.
    - One that does cannot be made without it, so a person is asked: with a result the step succeeds.
    - Without a compensation a ``Once`` call is a person's matter, as whenever its result is missing. An ``Idempotent``
      one is made once more by whoever wants its result, so the step fails, and says that it happened.
    """
    if effect is Effect.READ_ONLY:
        return False
    if step.compensation is not None:
        return step.name in step.needs_to_undo
    return effect is Effect.ONCE


def took_effect(step: CompiledStep, standing: Standing) -> bool:
    """Whether the call of a ``step`` that did not succeed was carried out nevertheless. An agent may have made many
    calls: of those its compensation is promised nothing.
    """
    over = standing.state in (StepState.FAILED, StepState.CANCELLED)
    return over and step.kind.one_call and standing.fact.happened
