"""Time that a correction of the machine's clock cannot bend.

The wall clock says when something happened. It also jumps: NTP sets it right after a boot, an administrator or a
hypervisor moves it. How long something took is measured by a clock that only runs forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds since some fixed moment. It never jumps, and goes on while the machine sleeps (clock_gettime(2))."""
    return time.clock_gettime(_ID)


def steady_clock() -> Callable[[], float]:
    """A clock in seconds since the epoch that is right now and does not follow later jumps of the wall clock.

    For processes that live as long as an attempt: their instants are ordered, and their intervals are true.
    """
    ahead = time.time() - elapsed()
    return lambda: ahead + elapsed()
