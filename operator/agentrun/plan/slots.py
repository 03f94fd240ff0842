"""Which pods of steps may be made now, where a bound is set for each namespace and one for all of them.

Namespaces take turns, so one that wants 5,000 pods gets as many of the free places as one that wants a few. What ends
a run (a call that is to be settled, a compensation) goes first in its namespace, and has places beyond the bounds: a
namespace that is full of pods which never come to work must not keep a payment from being undone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many pods of steps there may be at once; None: as many as are wanted."""

    whole: int | None = None
    namespace: int | None = None


UNBOUNDED = Bounds()


class Wanted(NamedTuple):
    """How many pods a namespace wants."""

    endings: int
    """Of runs that end."""
    others: int


def grants(bounds: Bounds, used: Mapping[str, int], wanted: Mapping[str, Wanted]) -> dict[str, int]:
    """How many of the pods that each namespace wants may be made now, endings first.

    ``used``: the pods that are there. ``wanted``: the namespaces in the order of their turns.
    """
    given: Counter[str] = Counter()
    total = sum(used.values())
    turns = deque(wanted)
    while turns:
        space = turns.popleft()
        want = wanted[space]
        if given[space] >= want.endings + want.others:
            continue
        ending = given[space] < want.endings
        if _fits(bounds.whole, total, ending) and _fits(bounds.namespace, used.get(space, 0) + given[space], ending):
            given[space] += 1
            total += 1
            turns.append(space)
    return {space: count for space, count in given.items() if count}


def reserve(bound: int) -> int:
    """The places beyond a bound that are for the ends of runs: a tenth of it, at least one."""
    return max(1, bound // 10)


def _fits(bound: int | None, count: int, ending: bool) -> bool:
    return bound is None or count < bound + (reserve(bound) if ending else 0)
