"""What is fuzzed: a strategy of inputs, and what has to hold of each of them."""

from __future__ import annotations

import faulthandler
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS_MAX = 20.0
"""Seconds of processor time that one input may take. What is bounded takes five at most, on a slow machine ten."""

STUCK = 300.0
"""Seconds of one input from which on it counts as one that never ends: the process ends, and says where it was."""

MEMORY_MAX = 384 * 1024 * 1024
"""Bytes by which one input may raise the peak of the process's memory."""


@dataclass(frozen=True)
class Target:
    """``check`` raises for an input that is not dealt with as it has to be; ``inputs`` makes them."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]

    def attempt(self, number: int, examples: int) -> None:
        """Try so many inputs; the same ``number`` gives the same ones.

        Raises:
            Whatever ``check`` raised, for the smallest input that was found to raise it.
        """

        def check(value: Any) -> None:
            with bounded():
                self.check(value)

        configured = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=False,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        seed(number)(configured(given(value=self.inputs)(check)))()


@contextmanager
def bounded() -> Iterator[None]:
    """Raise AssertionError where what is done inside takes more than one input may."""
    began, before = time.process_time(), peak()
    faulthandler.dump_traceback_later(STUCK, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    took, grown = time.process_time() - began, peak() - before
    assert took <= SECONDS_MAX, f"it took {took:.1f} s of processor time"
    assert grown <= MEMORY_MAX, f"it took {grown // 2**20} MiB of memory"


def peak() -> int:
    """Bytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
