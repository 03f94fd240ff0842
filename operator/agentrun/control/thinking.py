"""Long computations of the operator: one at a time in a thread, beside the event loop, and the namespaces take turns.

Python's threads share one interpreter, and an expression or a schema that is evaluated does not give it up meanwhile.
So each computation is followed by a pause as long as it took: whatever tenants compute, the event loop has half of
the time for itself, for everybody's timers and for the Lease.
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
from agentrun.plan.work import GLANCE, SLICE, Work

T = TypeVar("T")

PAUSE_MAX = 2.0
"""Seconds of the longest pause."""

SHORT = 0.02
"""Seconds of a computation that is followed by no pause."""

TOO_LONG = 3.0
"""Seconds of one slice of a plan, which should take a tenth of one, from which on the run computes nothing more."""

_log = logging.getLogger("agentrun.control")


class Thinking:
    """For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        """``clock``: seconds that the calling thread has computed. On a busy machine more of them pass for others."""
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thinking")
        self._turns = Turns()
        """Each lasts until the pause after it is over."""

    async def run(self, namespace: str, compute: Callable[[], T]) -> tuple[T, float]:
        """What ``compute`` gives, and the seconds that it took; once it is the turn of ``namespace``.

        Cancellation does not end a computation that has begun: what it gives is lost.

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
        """The plan of ``snapshot``: at once where a glance is enough, else in slices, each in its turn."""
        planned = None
        if work.used <= GLANCE:  # else the last plan of this run was no matter of a glance
            planned = plan_slice(snapshot, work, GLANCE, strict=True)
        while planned is None:
            planned, took = await self.run(namespace, partial(plan_slice, snapshot, work, SLICE))
            if took > TOO_LONG:
                work.exhaust()
                name = snapshot.run.get("name")
                _log.warning("%s/%s: a slice of its plan took %.1f s: it computes nothing more", namespace, name, took)
        return planned

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)
