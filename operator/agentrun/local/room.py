"""When to try to start a process again after the machine had no room for one, and what a person can do about that."""

from __future__ import annotations

import errno
from dataclasses import dataclass

PAUSE_FIRST, PAUSE_MAX = 0.25, 5.0
"""Seconds until the next try after a refusal: the first pause, doubling up to the longest. A child's end ends a pause.
"""

TRIES = 6
"""Tries in a row after which the driver gives up if no child is at work: no end of its own children will make room."""


@dataclass(slots=True)
class Room:
    """How often in a row the machine refused a process, and when to try again. ``now``: seconds that never jump."""

    _refusals: int = 0
    _until: float | None = None

    @property
    def tried_enough(self) -> bool:
        """Whether ``TRIES`` in a row were refused."""
        return self._refusals >= TRIES

    def refused(self, now: float) -> bool:
        """Note that the machine refused a process. Return whether this is the first refusal in a row."""
        new = not self._refusals
        self._until = now + min(PAUSE_FIRST * 2.0**self._refusals, PAUSE_MAX)
        self._refusals = min(self._refusals + 1, TRIES)
        return new

    def given(self) -> None:
        """Note that a process was started."""
        self._refusals, self._until = 0, None

    def child_ended(self) -> None:
        """Note that a child ended: there may be room now."""
        self._until = None

    def pause(self, now: float) -> float | None:
        """Seconds until the next try; None: no refusal since a process was started or a child ended."""
        return None if self._until is None else max(0.0, self._until - now)


def why(error: OSError) -> str:
    """Why no process can be started, and what a person can do about it."""
    return f"{error.strerror or error}{_REMEDIES.get(error.errno, '')}"


_REMEDIES: dict[int | None, str] = {
    errno.EMFILE: ": raise the limit of open files (ulimit -n) or lower forEach.maxParallel",
    errno.ENFILE: ": this machine has no open files left; end the processes that hold them",
    errno.EAGAIN: ": the limit of processes is reached (ulimit -u); raise it or end some",
    errno.ENOMEM: ": free some memory, or lower forEach.maxParallel",
}
