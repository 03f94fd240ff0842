"""What becomes of a step whose call was carried out, but whose answer cannot be used (docs/contract.md).

The status line says that the call happened. But the body is too large, has an encoding that nobody asked for, or breaks
off, or the tool's ``output`` has no value for it. Trying again would do the effect twice; failing as if nothing had
happened would forget it.
"""

from __future__ import annotations

from agentrun.api.run import StepState
from agentrun.api.tools import Effect
from agentrun.plan.attempts import Standing
from agentrun.workflow.program import CompiledStep


def asks_people(step: CompiledStep, effect: Effect) -> bool:
    """Whether a person is asked what the call of ``step`` came to. Otherwise the step fails, and is compensated.

    - A ``ReadOnly`` call has no effect: the step fails.
    - A compensation that needs nothing of the step's own output undoes the call without a person: the step fails.
    - A compensation that needs that output cannot be made without it, so a person is asked. With a result the step
      succeeds.
    - Without a compensation, a person is asked about a ``Once`` call, as whenever its result is missing. An
      ``Idempotent`` call can be made once more for its result, so the step fails and says that the call happened.
    """
    if effect is Effect.READ_ONLY:
        return False
    if step.compensation is not None:
        return step.name in step.needs_to_undo
    return effect is Effect.ONCE


def took_effect(step: CompiledStep, standing: Standing) -> bool:
    """Whether the call of a ``step`` that did not succeed was carried out nevertheless. False for an agent: it may have
    made many calls, and its compensation promises nothing about them.
    """
    over = standing.state in (StepState.FAILED, StepState.CANCELLED)
    return over and step.kind.one_call and standing.fact.happened
