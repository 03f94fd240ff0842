"""What a driver remembers of the attempts of a run: how they ended, and how many starts came to nothing.

An attempt is *opened* once its journal says so. One that ends before is *unopened*, and no journal tells of it: what is
remembered of it here is lost with the driver. An attempt is *lost* if it left no last word, opened or not. A lost
attempt whose process was not seen to be gone may still be at work: it is *adrift*.

Attempts of a step are numbered. The planner gives the next one the number after the last opened one and all unopened
ones since, so what is unopened is the difference between the last number that ended and the last one that opened. To
count ends instead is wrong where the driver has not seen each of them once: a new leader meets the third pod alone, two
pods end in any order, and an attempt of a driver before opens after ours came to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentrun.api.facts import StepFact, StepKey
from agentrun.api.run import Reason
from agentrun.plan.clocks import in_our_time


@dataclass(slots=True)
class AttemptTracker:
    """See the module. Instants are seconds since the epoch, by the driver's clock."""

    facts: dict[StepKey, StepFact] = field(default_factory=dict)
    """The last of what each step's journal is known to say."""
    unopened: dict[StepKey, int] = field(default_factory=dict)
    """How many starts in a row came to nothing since the last attempt that opened; no entry where none did."""
    lost_at: dict[StepKey, float] = field(default_factory=dict)
    """When the last of these ended."""
    troubles: dict[StepKey, tuple[Reason, str]] = field(default_factory=dict)
    """Why the last attempt was lost, where that is known."""
    _last: dict[StepKey, int] = field(default_factory=dict)
    """The highest attempt that ended, opened or not."""
    _gone: set[tuple[StepKey, int]] = field(default_factory=set)
    """Attempts that are at work no more: their process was seen to have ended, or never to begin. A new
    driver knows of none but those that it can look for.
    """

    def is_newer(self, key: StepKey, fact: StepFact) -> bool:
        """Whether ``fact`` says more of the step than what is known. A step that is over stays as it ended."""
        known = self.facts.get(key)
        return fact.attempt > 0 and (known is None or (known.outcome is None and fact.seq >= known.seq))

    def record_end(
        self, key: StepKey, number: int, fact: StepFact, now: float, trouble: tuple[Reason, str] | None
    ) -> None:
        """Note that attempt ``number`` ended. ``fact``: its own last word, else what the journal says; ``trouble``: why
        it was lost, should it prove to be, where that is known.
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
        """Note that the process of an attempt is at work no more."""
        self._gone.add((key, number))

    def mark_adrift(self, key: StepKey, number: int) -> None:
        """Note that an attempt is given up, whose process does not leave. Another process may have had the number."""
        self._gone.discard((key, number))

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps whose last attempt left no word, with its number: what a person who resumes has seen."""
        for key in {*self.unopened, *(key for key, fact in self.facts.items() if fact.attempt and fact.end is None)}:
            yield key, self._opened(key) + self.unopened.get(key, 0)

    def adrift(self) -> frozenset[StepKey]:
        """Of those, the ones that may be at work yet: cut off with their node, say, or with a pod removed by force."""
        return frozenset(
            key
            for key, last in self.lost()
            if any((key, n) not in self._gone for n in range(self._unfenced(key), last + 1))
        )

    def as_of(self, now: float) -> None:
        """Set right what a clock that is ahead of ours has stamped."""
        self.facts = {key: in_our_time(fact, now) for key, fact in self.facts.items()}

    def clock_set(self, jump: float) -> None:
        """Our own clock was set by ``jump`` seconds: move what it has stamped, so that no pause gets longer or less."""
        self.lost_at = {key: at + jump for key, at in self.lost_at.items()}

    def _opened(self, key: StepKey) -> int:
        known = self.facts.get(key)
        return known.attempt if known is not None else 0

    def _unfenced(self, key: StepKey) -> int:
        """The first attempt that the journal does not keep from going on: whoever opens it fences those before."""
        known = self.facts.get(key)
        return 1 if known is None or not known.attempt else known.attempt + (known.end is not None)
