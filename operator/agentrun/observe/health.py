"""Whether the operator lives and is ready, as its probes ask.

Alive is not fast: a loop that is busy for seconds is at work, and a restart would only add to its work. So the probe
fails only when the loop has not come round for longer than any load explains, and it is answered by another thread
(``agentrun.observe.server``). The state here is lost with the process, whose probes start anew with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from agentrun.api.reader import shown

HEARTBEAT_MAX = 60.0
"""Seconds after which a loop that does not come round counts as dead: a deadlock, not a load."""

LAG_INTERVAL = 0.1
"""Seconds between two measurements of the loop's lag, and between two heartbeats."""


class Health:
    """What the event loop says of itself and the probes read. Every method may be called from any thread."""

    def __init__(self, watches: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        """``watches``: the resources (plurals) whose first list must be in before the operator is ready."""
        self._clock = clock
        self._beat = clock()
        self._lock = threading.Lock()
        self._unready = {f"watch of {resource}": "not synced yet" for resource in watches}
        self._unready["store"] = "not probed yet"

    def beat(self) -> None:
        """The loop has come round."""
        self._beat = self._clock()

    def watch(self, resource: str, synced: bool) -> None:
        """The cache of ``resource`` holds what the API server has; or no longer."""
        self._say(f"watch of {resource}", None if synced else "not synced")

    def store(self, problem: str | None) -> None:
        """The store's probe passed (None), or why not, in words without secrets: anyone may read the page."""
        self._say("store", problem)

    def stop(self) -> None:
        """The operator is on its way out: not ready any more."""
        self._say("operator", "shutting down")

    def _say(self, what: str, problem: str | None) -> None:
        with self._lock:
            if problem is None:
                self._unready.pop(what, None)
            else:
                self._unready[what] = problem

    def live(self) -> str | None:
        """None, or why the process is to be restarted."""
        age = self._clock() - self._beat
        if age <= HEARTBEAT_MAX:
            return None
        return f"the event loop has not come round for {age:.0f} s (at most {HEARTBEAT_MAX:.0f} s)"

    def ready(self) -> str | None:
        """None, or what the operator still waits for, one line each. Leading is no condition: a standby is ready."""
        with self._lock:
            problems = sorted(self._unready.items())
        return "\n".join(f"{what}: {shown(problem, 300)}" for what, problem in problems) or None


class Lag(Protocol):
    """Where the measured lag goes: ``Metrics``."""

    def loop_lagged(self, seconds: float) -> None:
        """The event loop woke a task that late."""


async def measure_lag(metrics: Lag, health: Health) -> None:
    """Beat for ``health`` and measure how late the loop wakes this task, until cancelled; then nothing is left."""
    loop = asyncio.get_running_loop()
    while True:
        health.beat()
        due = loop.time() + LAG_INTERVAL
        await asyncio.sleep(LAG_INTERVAL)
        metrics.loop_lagged(max(0.0, loop.time() - due))
