"""Which step pods may be created now, given one bound for each namespace and one for all namespaces.

Namespaces take turns, so one that wants 5,000 pods gets as many of the free places as one that wants a few. A pod that
ends a run (it settles a call, or compensates) goes first in its namespace, and there are places for it beyond the
bounds: a namespace full of pods that never get to work must not keep a payment from being undone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many step pods may exist at once, in all and in one namespace; None: as many as are wanted."""

    whole: int | None = None
    namespace: int | None = None


UNBOUNDED = Bounds()


class Pods(NamedTuple):
    """How many pods exist, or are wanted."""

    endings: int = 0
    """Pods of runs that are ending."""
    others: int = 0

    def plus(self, count: int, *, ending: bool) -> Pods:
        """The counts with ``count`` more pods of one kind."""
        return Pods(self.endings + count, self.others) if ending else Pods(self.endings, self.others + count)


def grants(bounds: Bounds, used: Mapping[str, Pods], wanted: Mapping[str, Pods]) -> dict[str, int]:
    """How many of the pods that each namespace wants may be created now, endings first.

    ``used``: the pods that exist. ``wanted``: the namespaces in the order of their turns.
    """
    given: Counter[str] = Counter()
    there = {space: used.get(space, Pods()) for space in wanted}
    total = Pods(sum(pods.endings for pods in used.values()), sum(pods.others for pods in used.values()))
    turns = deque(wanted)
    while turns:
        space = turns.popleft()
        want = wanted[space]
        if given[space] >= sum(want):
            continue
        ending = given[space] < want.endings
        if _fits(bounds.whole, total, ending) and _fits(bounds.namespace, there[space], ending):
            given[space] += 1
            there[space] = there[space].plus(1, ending=ending)
            total = total.plus(1, ending=ending)
            turns.append(space)
    return dict(given)


def reserve(bound: int) -> int:
    """How many pods of ending runs may exist regardless of all other pods: a tenth of the bound, at least one."""
    return max(1, bound // 10)


def _fits(bound: int | None, there: Pods, ending: bool) -> bool:
    return bound is None or sum(there) < bound or (ending and there.endings < reserve(bound))
