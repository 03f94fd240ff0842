"""Many reads of a remote store at the same time, with a bound on the threads of the whole process.

Reads nest: the steps of a run, and the records of each step. One pool for each read would multiply the threads, and the
operator reads many runs at once when it begins to lead. So all reads share one allowance of threads. A caller that
finds no thread left reads in its own, so nobody waits for a thread, and there is no deadlock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

READERS: Final = 16
"""The most threads of one call."""

ALLOWANCE: Final = 64
"""The most threads of all calls together."""

FEW: Final = 3
"""With fewer things to read, threads cost more than they save."""

_allowance = threading.BoundedSemaphore(ALLOWANCE)


def each(do: Callable[[T], R], things: Sequence[T], *, remote: bool) -> list[R]:
    """``do(thing)`` for each thing, in order; in several threads if the store is ``remote``. Raises the first error of
    ``do``, in the order of ``things``.
    """
    if not remote or len(things) < FEW:
        return [do(thing) for thing in things]
    threads = 0
    while threads < min(READERS, len(things)) and _allowance.acquire(blocking=False):
        threads += 1
    try:
        if threads < 2:
            return [do(thing) for thing in things]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(do, things))
    finally:
        if threads:
            _allowance.release(threads)
