"""What a driver remembers of a run's attempts: how they ended, and how many in a row never opened the journal.

An attempt is *opened* once its journal says so. An attempt that ends before that is *unopened*. No journal tells of it,
so what is remembered of it here is lost with the driver. An attempt is *lost* if it left no last word, opened or not. A
lost attempt whose process was not seen to end may still be at work: it is *adrift*.

The attempts of a step are numbered. The planner gives the next one the number after the last opened one and all
unopened ones since. So the number of unopened attempts is the last number that ended, minus the last one that opened.
Counting ends would be wrong, because a driver does not see each end exactly once: a new leader meets the third pod
alone, two pods end in any order, and an attempt of an earlier driver opens after ours came to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.plan.clocks import in_our_time


@dataclass(slots=True)
class AttemptTracker:
    """See the module's docstring. Instants are seconds since the epoch, by the driver's clock."""

    facts: dict[StepKey, StepFact] = field(default_factory=dict)
    """The latest fact that is known of each step."""
    unopened: dict[StepKey, int] = field(default_factory=dict)
    """How many attempts in a row ended unopened since the last opened one. A step without any has no entry."""
    lost_at: dict[StepKey, float] = field(default_factory=dict)
    """When the last of these ended."""
    troubles: dict[StepKey, tuple[Reason, str]] = field(default_factory=dict)
    """Why the last attempt was lost, if that is known."""
    _last: dict[StepKey, int] = field(default_factory=dict)
    """The highest attempt that ended, opened or not."""
    _gone: set[tuple[StepKey, int]] = field(default_factory=set)
    """Attempts whose process is no longer at work: it was seen to end, or never to begin. A new driver knows only of
    those whose process it can look for.
    """

    def is_newer(self, key: StepKey, fact: StepFact) -> bool:
        """Whether ``fact`` is newer than the known fact of the step. A step that is over stays as it ended."""
        known = self.facts.get(key)
        return fact.attempt > 0 and (known is None or (known.outcome is None and fact.seq >= known.seq))

    def record_end(
        self, key: StepKey, number: int, fact: StepFact, now: float, trouble: tuple[Reason, str] | None
    ) -> None:
        """Note that attempt ``number`` ended. ``fact``: its own last word, else what the journal says. ``trouble``: why
        it was lost, if it was lost and that is known.
        """
        if self.is_newer(key, fact):
            self.facts[key] = in_our_time(fact, now)
        opened = self._opened(key)
        last = self._last[key] = max(self._last.get(key, 0), number)
        if opened < number:
            self.lost_at[key] = now
        if opened < last:
            self.unopened[key] = last - opened
        else:
            self.unopened.pop(key, None)
            self.lost_at.pop(key, None)
        if (opened < number or fact.end is None) and trouble is not None:
            self.troubles[key] = trouble
        else:
            self.troubles.pop(key, None)

    def mark_gone(self, key: StepKey, number: int) -> None:
        """Note that the process of an attempt is no longer at work."""
        self._gone.add((key, number))

    def mark_adrift(self, key: StepKey, number: int) -> None:
        """Note that an attempt is given up although its process does not leave. Another process with the same number
        may have been marked as gone.
        """
        self._gone.discard((key, number))

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps whose last attempt was lost, with its number: what a person who resumes has seen."""
        for key in {*self.unopened, *(key for key, fact in self.facts.items() if fact.attempt and fact.end is None)}:
            yield key, self._opened(key) + self.unopened.get(key, 0)

    def adrift(self) -> frozenset[StepKey]:
        """Those of ``lost`` that may still be at work: cut off with their node, say, or their pod removed by force."""
        return frozenset(
            key
            for key, last in self.lost()
            if any((key, n) not in self._gone for n in range(self._unfenced(key), last + 1))
        )

    def as_of(self, now: float) -> None:
        """Correct the instants in facts that come from a clock ahead of ours. ``now``: by our clock."""
        self.facts = {key: in_our_time(fact, now) for key, fact in self.facts.items()}

    def clock_set(self, jump: float) -> None:
        """Our own clock was set by ``jump`` seconds: move the instants it has stamped, so that each pause keeps its
        length.
        """
        self.lost_at = {key: at + jump for key, at in self.lost_at.items()}

    def _opened(self, key: StepKey) -> int:
        known = self.facts.get(key)
        return known.attempt if known is not None else 0

    def _unfenced(self, key: StepKey) -> int:
        """The first attempt that the journal does not stop. An attempt that opens the journal fences all before it."""
        known = self.facts.get(key)
        return 1 if known is None or not known.attempt else known.attempt + (known.end is not None)
