"""Runs the operator's long computations: one at a time, in a thread beside the event loop. The namespaces take turns.

Python's threads share one interpreter, and the evaluation of an expression or a schema does not release it. So each
computation is followed by a pause as long as it took. Whatever tenants compute, the event loop has half of the time for
itself: for everybody's timers and for the Lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from agentrun.control.turns import Turns
from agentrun.plan.planner import plan_slice
from agentrun.plan.snapshot import Plan, Snapshot
from agentrun.plan.work_budget import GLANCE, SLICE, Work

T = TypeVar("T")

PAUSE_MAX = 2.0
"""The longest pause, in seconds."""

SHORT = 0.02
"""No pause follows a computation of at most this many seconds."""

TOO_LONG = 3.0
"""If one slice of a plan takes more than this many CPU seconds (it should take a tenth of one), the run computes
nothing more. It is well below the time of the Lease. A slice is never ended: between two slices the run is stopped.
"""

_log = logging.getLogger("agentrun.control")


class Thinking:
    """For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """``clock``: the CPU seconds of the calling thread. On a busy machine the wall clock runs faster than that."""
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thinking")
        self._turns = Turns()
        """A turn lasts until the pause after the computation is over."""

    async def run(self, namespace: str, compute: Callable[[], T]) -> tuple[T, float]:
        """Wait for the turn of ``namespace``, then run ``compute``. Return its result and the seconds that it took.

        Cancellation does not end a computation that has begun; its result is lost.

        Raises:
            Whatever ``compute`` raises.
        """
        loop = asyncio.get_running_loop()
        await self._turns.take(namespace)
        took = 0.0

        def timed() -> T:
            nonlocal took
            began = self._clock()
            try:
                return compute()
            finally:
                took = self._clock() - began

        try:
            return await loop.run_in_executor(self._thread, timed), took
        finally:
            loop.call_later(min(took, PAUSE_MAX) if took > SHORT else 0.0, self._turns.give)

    async def plan(self, namespace: str, snapshot: Snapshot, work: Work) -> Plan:
        """The plan of ``snapshot``: computed at once if a glance is enough, else in slices, each in its own turn."""
        planned = None
        if work.used <= GLANCE:  # else the last plan of this run took more than a glance
            planned = plan_slice(snapshot, work, GLANCE, strict=True)
        while planned is None:
            planned, took = await self.run(namespace, partial(plan_slice, snapshot, work, SLICE))
            if took > TOO_LONG:
                work.stop(
                    f"is not computed: a part of the run's plan took {took:.1f} s of the operator's time, and may take "
                    f"{TOO_LONG:g} s: shorten its lists, or use them in fewer steps"
                )
                name = snapshot.run.get("name")
                _log.warning(
                    "%s/%s: a slice of its plan took %.1f s: its expressions are not evaluated any more",
                    namespace,
                    name,
                    took,
                )
        return planned

    def close(self) -> None:
        """End the thread without waiting for a computation that still runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)
