"""The wall clock beside a clock that never jumps: by how much somebody set the wall clock."""

from __future__ import annotations

from collections.abc import Callable

JUMP = 1.0
"""Seconds by which the advance of both clocks may differ between two looks. More is a jump of the wall clock."""


class Clocks:
    """Both clocks, and what they showed at the last look."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._seen = wall(), steady()

    def look(self) -> tuple[float, float]:
        """The wall clock's instant, and the seconds by which that clock jumped since the last look; 0.0: it did not."""
        now, steady = self._wall(), self._steady()
        jump = (now - self._seen[0]) - (steady - self._seen[1])
        self._seen = now, steady
        return now, jump if abs(jump) > JUMP else 0.0
