"""A step as other steps see it, whether it is one thing or a fan-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.plan.attempts import Standing


@dataclass(slots=True)
class Group:
    """A step as other steps see it: ``whole`` is its standing, ``members`` has those of its items, or its own."""

    name: str
    whole: Standing
    members: Mapping[StepKey, Standing]
    fan_out: bool = False

    @classmethod
    def of(cls, name: str, key: StepKey, standing: Standing) -> Group:
        """The group of a step that is one thing."""
        return cls(name, standing, {key: standing})

    @classmethod
    def fan(cls, name: str, members: Mapping[StepKey, Standing], now: float) -> Group:
        """The group of a fan-out, by the standings of its items. It is not final before all of them are."""
        states = Counter(m.state for m in members.values())
        order = (StepState.RUNNING, StepState.OUTCOME_UNKNOWN, StepState.WAITING, StepState.PENDING)
        state = next((s for s in order if states[s]), None)
        failure = None
        if state is None:
            state = StepState.SUCCEEDED
            if states[StepState.CANCELLED]:
                state = StepState.CANCELLED
            if states[StepState.FAILED]:
                state = StepState.FAILED
                failure = next(m.failure for m in members.values() if m.state is StepState.FAILED)
        started = min((m.fact.started for m in members.values() if m.fact.started), default=0.0)
        whole = Standing(state, StepFact(started=started), failure=failure, finished=now if state.final else None)
        return cls(name, whole, members, fan_out=True)

    @property
    def state(self) -> StepState:
        """The step's state."""
        return self.whole.state

    @property
    def final(self) -> bool:
        """Whether the step has ended: it can no longer change."""
        return self.whole.state.final

    @property
    def output(self) -> Any:
        """The value of ``steps.<name>.output``: null for a step that was skipped or failed."""
        return self.whole.output
