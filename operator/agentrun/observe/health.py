"""The answers to the operator's liveness and readiness probes.

A slow operator is alive: an event loop that is busy for seconds does work, and a restart would only add to that. So the
liveness probe fails only when the loop has not come round for longer than any load explains. Another thread answers the
probes (``agentrun.observe.server``). The state here is lost with the process, and a new process starts without it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from agentrun.api.texts import shown

HEARTBEAT_MAX = 60.0
"""Seconds without a heartbeat after which the loop counts as dead: the reason is a deadlock then, not load."""

LAG_INTERVAL = 0.1
"""Seconds between two measurements of the loop's lag, and between two heartbeats."""


class Health:
    """The state that the event loop writes and the probes read. Every method may be called from any thread."""

    def __init__(self, watches: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        """``watches``: the resources (plurals) that must have been listed once before the operator is ready."""
        self._clock = clock
        self._beat = clock()
        self._lock = threading.Lock()
        self._unready = {f"watch of {resource}": "not synced yet" for resource in watches}
        self._unready["store"] = "not probed yet"

    def beat(self) -> None:
        """Record a heartbeat: the loop has come round."""
        self._beat = self._clock()

    def watch(self, resource: str, synced: bool) -> None:
        """Record whether the cache of ``resource`` is in sync with the API server."""
        self._say(f"watch of {resource}", None if synced else "not synced")

    def store(self, problem: str | None) -> None:
        """Record the result of the store's probe: None, or the problem, without secrets: anyone may read the page."""
        self._say("store", problem)

    def stop(self) -> None:
        """Record that the operator is shutting down, and so not ready any more."""
        self._say("operator", "shutting down")

    def _say(self, what: str, problem: str | None) -> None:
        with self._lock:
            if problem is None:
                self._unready.pop(what, None)
            else:
                self._unready[what] = problem

    def live(self) -> str | None:
        """None if the process is alive, else why it is to be restarted."""
        age = self._clock() - self._beat
        if age <= HEARTBEAT_MAX:
            return None
        return f"the event loop has not run for {age:.0f} s (at most {HEARTBEAT_MAX:.0f} s)"

    def ready(self) -> str | None:
        """None if the operator is ready, else what it waits for, one item a line. A standby is ready too."""
        with self._lock:
            problems = sorted(self._unready.items())
        return "\n".join(f"{what}: {shown(problem, 300)}" for what, problem in problems) or None


class Lag(Protocol):
    """Receives the measured lag. ``Metrics`` is one."""

    def loop_lagged(self, seconds: float) -> None:
        """Record that the event loop woke a task this many seconds late."""


async def measure_lag(metrics: Lag, health: Health) -> None:
    """Give ``health`` its heartbeats, and measure how late the loop wakes this task, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        health.beat()
        due = loop.time() + LAG_INTERVAL
        await asyncio.sleep(LAG_INTERVAL)
        metrics.loop_lagged(max(0.0, loop.time() - due))
