"""Clocks that do not follow corrections of the machine's clock.

The wall clock says when something happened, but it jumps: NTP corrects it after a boot, an administrator or a
hypervisor moves it. Durations are measured by a clock that only runs forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds since a fixed moment. The clock never jumps, and runs while the machine sleeps (clock_gettime(2))."""
    return time.clock_gettime(_ID)


def steady_clock() -> Callable[[], float]:
    """A clock in seconds since the epoch. It equals the wall clock now, and does not follow its later jumps.

    It is meant for processes that live as long as an attempt: their instants are ordered, their durations correct.
    """
    ahead = time.time() - elapsed()
    return lambda: ahead + elapsed()
