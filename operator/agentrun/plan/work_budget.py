"""The cost and the values of a run's expressions: counted, bounded, and kept from one plan to the next.

Everything that an expression may name is final before the expression is evaluated. So its value never changes, and it
is evaluated once instead of in each plan. Work is counted in the units of ``agentrun.expressions.cost``, which depend
on the expressions and the values alone, not on the machine. A plan can be made in slices: a plan that has used up its
slice raises ``MoreWork``, and the next slice finds what was evaluated. All expressions of a run together have a bound.
An expression that would exceed it is not evaluated, and its step waits for a person instead.

All of this may be lost: a new driver begins to count at zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.values import JSON
from agentrun.expressions.cost import weigh
from agentrun.expressions.scope import ExpressionError

RUN_MAX = 1024 * 1024 * 1024
"""Units that the expressions of a run may take: about two seconds of work."""

SLICE = 16 * 1024 * 1024
"""Units of evaluations after which a plan gives way: some 40 ms. One is never divided; it may take three times that."""

GLANCE = 4 * 1024 * 1024
"""Units of a plan that is short enough to be made without a turn: at most 20 ms."""

KEPT_MAX = 1024 * 1024
"""Bytes of values that are kept for a run. A value that is a part of the run's data takes no space of its own."""

_ERROR_MAX = 1000
"""Characters that are kept of an error's message."""


class MoreWork(Exception):
    """The slice is used up; the next one finds what was evaluated in this one."""


class TooMuchWork(Exception):
    """The run's expressions would take more than a run may. The message is for its status."""


@dataclass(slots=True)
class _Outcome:
    """The result of an evaluation: a value, as it is or as JSON; or why there is none."""

    basis: Sequence[object]
    """The objects that it was computed from. They are compared by identity."""
    value: JSON = None
    written: str | None = None
    error: tuple[str, str] | None = None
    refused: str | None = None
    size: int = 0
    turn: int = 0

    def give(self) -> JSON:
        if self.refused is not None:
            raise TooMuchWork(self.refused)
        if self.error is not None:
            error = ExpressionError(self.error[0])
            error.reason = self.error[1]
            raise error
        return self.value if self.written is None else json.loads(self.written)


@dataclass(slots=True)
class Work:
    """The work of one run. Only one plan at a time may use it."""

    limit: int = RUN_MAX
    keep: int = KEPT_MAX
    spent: int = 0
    """Units that the run's expressions have taken."""
    size: int = 0
    """Bytes of the values that are kept."""
    evaluated: int = 0
    """How many evaluations there were."""
    _outcomes: dict[object, _Outcome] = field(default_factory=dict)
    _weights: dict[str, tuple[JSON, int]] = field(default_factory=dict)
    _slice: float = float("inf")
    _used: int = 0
    _looked: int = 0
    """The planner's own part of ``_used``. Each slice repeats it; if it counted, a slice might get no further."""
    _strict: bool = False
    _owed: bool = False
    _stopped: str | None = None
    """Why the run may spend nothing more, although units may be left; None: it may."""
    _turn: int = 0

    @property
    def used(self) -> int:
        """Units that the last slice took."""
        return self._used

    def begin(self, units: float, *, strict: bool) -> None:
        """Begin a plan that gives way after ``units``. ``strict``: even before its first evaluation."""
        self._slice, self._strict = units, strict
        self._used = self._looked = 0
        self._turn += 1

    def end(self) -> None:
        """End a complete plan: drop the values that it did not ask for."""
        stale = [key for key, outcome in self._outcomes.items() if outcome.turn != self._turn]
        for key in stale:
            self.size -= self._outcomes.pop(key).size

    def stop(self, why: str) -> None:
        """Let the run spend nothing more. For a run whose work takes far longer than its units say; ``why`` says so."""
        self._stopped = why

    def tick(self, units: int) -> None:
        """Count work of the planner itself, which each plan repeats. Raises MoreWork, if the plan is strict."""
        self._used += units
        self._looked += units
        if self._strict and self._used > self._slice:
            raise MoreWork

    def pay(self, units: int) -> None:
        """Count the units of an evaluation before they are spent. Raises MoreWork, TooMuchWork."""
        if self._stopped is not None and not self._owed:
            raise TooMuchWork(self._stopped)
        if self._strict and self._used + units > self._slice:
            raise MoreWork
        if self.spent + units > self.limit and not self._owed:
            left = max(0, self.limit - self.spent)
            raise TooMuchWork(
                f"takes {units / 1e6:,.1f} million units of work, and the run has {left / 1e6:,.1f} of "
                f"{RUN_MAX / 1e6:,.0f} million left: shorten its lists, or use them in fewer steps"
            )
        self.spent += units
        self._used += units

    def weight(self, name: str, value: JSON) -> int:
        """Units of giving ``value`` to the runtime. They are measured again only if ``name`` is another object's."""
        known = self._weights.get(name)
        if known is None or known[0] is not value:
            known = self._weights[name] = value, weigh(value)
            self.tick(known[1] // 8)
        return known[1]

    def once(
        self,
        key: object,
        basis: Sequence[object],
        evaluate: Callable[[], JSON],
        *,
        shared: bool = False,
        owed: bool = False,
    ) -> Any:
        """The value of ``evaluate``, which is called only once while ``key`` and ``basis`` stay the same.

        Two values with the same basis need different keys.

        ``shared``: the value is a part of the basis, or of data that never changes. ``owed``: evaluate it whatever the
        run has spent, because something that has begun depends on it.

        Raises:
            ExpressionError: there is no value.
            TooMuchWork: the run has spent its units, or the value does not fit with the others that are kept.
            MoreWork: this slice is used up.
        """
        found = self._outcomes.get(key)
        if found is not None and (not owed or found.refused is None) and _same(found.basis, basis):
            found.turn = self._turn
            return found.give()
        if self._used - self._looked > self._slice:
            raise MoreWork
        before, self._owed = self.spent, owed
        outcome = _Outcome(basis, turn=self._turn)
        self.evaluated += 1
        try:
            outcome.value = evaluate()
        except MoreWork:
            self.spent = before
            raise
        except ExpressionError as error:
            outcome.error = str(error)[:_ERROR_MAX], error.reason[:_ERROR_MAX]
            outcome.size = len(outcome.error[0]) + len(outcome.error[1])
        except TooMuchWork as error:
            self.spent = before
            outcome.refused = str(error)
        finally:
            self._owed = False
        self._keep(key, outcome, shared)
        return outcome.give()

    def _keep(self, key: object, outcome: _Outcome, shared: bool) -> None:
        value = outcome.value
        if not shared and value is not None and not isinstance(value, (bool, int, float)):
            outcome.written = json.dumps(value)
            outcome.value, outcome.size = None, len(outcome.written)
        before = self._outcomes.pop(key, None)
        self.size -= before.size if before is not None else 0
        self.size += outcome.size
        self._outcomes[key] = outcome
        if self.size > self.keep and not self._may_drop():
            self.size -= outcome.size
            self._outcomes[key] = refusal = _Outcome(outcome.basis, turn=self._turn)
            refusal.refused = (
                f"makes more than {self.keep // 1024} KiB together with the other expressions that the run needs now: "
                "let "
                "them make less, or refer to values by their path"
            )
            refusal.give()

    def _may_drop(self) -> bool:
        """Make room by dropping the values that this plan has not asked for. Return whether that was enough."""
        for key in [key for key, outcome in self._outcomes.items() if outcome.turn != self._turn]:
            self.size -= self._outcomes.pop(key).size
        return self.size <= self.keep


def _same(one: Sequence[object], other: Sequence[object]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
