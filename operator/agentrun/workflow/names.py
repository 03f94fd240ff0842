"""Names in a workflow: a set of steps that takes one bit per step, and the message for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Set

from agentrun.api.texts import quoted


class Names(Set[str]):
    """A set of some of the names in ``places``, which maps each name to its bit. Immutable.

    A thousand steps in a chain have half a million ancestors together. As sets of texts they took 30 MB.
    """

    __slots__ = ("_places", "bits")

    def __init__(self, places: Mapping[str, int], bits: int = 0) -> None:
        self._places, self.bits = places, bits

    def __contains__(self, name: object) -> bool:
        place = self._places.get(name) if isinstance(name, str) else None
        return place is not None and bool(self.bits >> place & 1)

    def __iter__(self) -> Iterator[str]:
        return (name for name, place in self._places.items() if self.bits >> place & 1)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def with_all(self, others: Iterable[tuple[str, Names]]) -> Names:
        """These names, and for each of ``others`` its name and the names in its set."""
        bits = self.bits
        for name, more in others:
            bits |= more.bits | 1 << self._places[name]
        return Names(self._places, bits)

    @classmethod
    def _from_iterable(cls, names: Iterable[str]) -> frozenset[str]:  # type: ignore[override]
        return frozenset(names)  # what ``|`` and ``&`` give


def no_such(what: str, name: str, names: Iterable[str]) -> str:
    """The message that there is no ``what`` of that name, with the nearest name, or else all names."""
    known = list(names)
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"there is no {what} {quoted(name)}: did you mean {near[0]}?"
    there = f"there are {', '.join(sorted(known)[:10])}" if known else "none is declared"
    return f"there is no {what} {quoted(name)}; {there}"
