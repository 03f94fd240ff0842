"""Whether this machine has room for another process, and what a person can do where it has none."""

from __future__ import annotations

import errno
from dataclasses import dataclass

PAUSE_FIRST, PAUSE_MAX = 0.25, 5.0
"""Seconds until another process is asked for where the machine gave none; they double. A child that ends ends them."""

TRIES = 6
"""Tries in a row without a child at work, after which the driver gives up: nothing of its own will make room."""


@dataclass(slots=True)
class Room:
    """How often in a row the machine gave no process, and when it is asked again. ``now``: seconds that never jump."""

    _refusals: int = 0
    _until: float | None = None

    @property
    def tried_enough(self) -> bool:
        """Whether it was asked as often as helps."""
        return self._refusals >= TRIES

    def refused(self, now: float) -> bool:
        """The machine gave no process; whether that is new."""
        new = not self._refusals
        self._until = now + min(PAUSE_FIRST * 2.0**self._refusals, PAUSE_MAX)
        self._refusals = min(self._refusals + 1, TRIES)
        return new

    def given(self) -> None:
        """The machine gave a process."""
        self._refusals, self._until = 0, None

    def child_ended(self) -> None:
        """There may be room now."""
        self._until = None

    def pause(self, now: float) -> float | None:
        """Seconds until another process is asked for; None: the machine has not refused one since it may have room."""
        return None if self._until is None else max(0.0, self._until - now)


def why(error: OSError) -> str:
    """Why no process can be started, and what a person can do about it."""
    return f"{error.strerror or error}{_REMEDIES.get(error.errno, '')}"


_REMEDIES: dict[int | None, str] = {
    errno.EMFILE: ": raise the limit of open files (ulimit -n) or lower forEach.maxParallel",
    errno.ENFILE: ": this machine has no open files left; end what holds them",
    errno.EAGAIN: ": the limit of processes is reached (ulimit -u); raise it or end some",
    errno.ENOMEM: ": free some memory, or lower forEach.maxParallel",
}
