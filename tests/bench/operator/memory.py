"""What the operator keeps in memory of runs, and what it costs to look at all of them again."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Self

from agentrun.observe.health import LAG_INTERVAL
from tests.bench.operator import load
from tests.bench.operator.rig import Operator, Rig, Samples, difference, settled
from tests.bench.table import Row, Series
from tests.cluster.component import until

FINISHED_BAR, LIVE_BAR = 20e3, 60e3
LAG_BAR = 0.050
QUIET = 3.0
"""Seconds without work after which memory is read: what served the burst is free by then."""

PATIENCE = 300.0
RESYNC = 20.0
"""Seconds between two lists of everything, so that one comes while it is waited for."""


def measure(rig: Rig, count: int) -> Iterator[Row]:
    """Rows for ``count`` finished runs, as many live ones, and for looking at all of them again.

    Each kind comes to a process that was just started: what a burst has freed would hide what the next one keeps.
    """
    with rig.operator() as operator:
        asyncio.run(load.submit(rig.name("warm"), list(load.runs(count // 50, load.ONE))))
        empty = _memory(operator)
        asyncio.run(load.submit(rig.name("done"), list(load.runs(count, load.ONE)), patience=PATIENCE))
        until("the removal of all pods", lambda: rig.pods() == 0, PATIENCE)
        finished = _memory(operator)
    yield Row("memory of the operator without runs", Series([empty], "MB"))
    per_run = Series([(finished - empty) / count], "KB")
    yield Row(f"  of a finished run, from {count}", per_run, against=f"{finished / 1e6:.0f} MB", bar=FINISHED_BAR)
    with rig.operator() as operator:
        before = _memory(operator)
        held = list(load.runs(count, load.HELD))
        asyncio.run(load.submit(rig.name("held"), held, phase="Waiting", patience=PATIENCE))
        live = _memory(operator)
    per_run = Series([(live - before) / count], "KB")
    yield Row(f"  of a live run, from {count}", per_run, against=f"{live / 1e6:.0f} MB", bar=LIVE_BAR)
    yield from _looking_again(rig, count, empty)
    rig.clean()


def _looking_again(rig: Rig, count: int, empty: float) -> Iterator[Row]:
    written = rig.written()
    with rig.operator(resync=RESYNC) as operator:
        until("a visit to every live run", lambda: _visits(operator.samples()) >= count, PATIENCE)
        settled("the end of all visits", lambda: _visits(operator.samples()), QUIET, PATIENCE)
        at_start, writes = operator.samples(), _without_lease(difference(rig.written(), written))
        what = f"start with {count} finished and {count} live runs: writes"
        yield Row(what, Series([sum(writes.values())], ""), against=_words(writes), bar=0.0)
        yield Row("  longest wait of the loop, at most", Series([_longest(at_start)], "ms"))
        memory = _memory(operator)
        per_pair = f"{(memory - empty) / count / 1e3:.0f} KB for one of each"
        yield Row("  memory then", Series([memory], "MB"), against=per_pair)
        written, before = rig.written(), operator.samples()
        with _Sleeper() as sleeper:
            until("the next list", lambda: _listed(operator.samples()) > _listed(before), PATIENCE)
            settled("the end of the list", lambda: _listed(operator.samples()), QUIET, PATIENCE)
        after, writes = operator.samples(), _without_lease(difference(rig.written(), written))
    yield Row("resync of the same: writes", Series([sum(writes.values())], ""), against=_words(writes), bar=0.0)
    lag = _longest(difference(after, before))
    idle = Series([sleeper.longest], "ms")
    yield Row("  longest wait of the loop, at most", Series([lag], "ms"), idle, "who only sleeps", bar=LAG_BAR)


class _Sleeper(threading.Thread):
    """Sleeps and wakes as the operator's own measurement does, without any work: what this machine's load adds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self._stop_now = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join()

    def run(self) -> None:
        began = time.monotonic()
        while not self._stop_now.wait(LAG_INTERVAL):
            now = time.monotonic()
            self.longest = max(self.longest, now - began - LAG_INTERVAL)
            began = now


def _memory(operator: Operator) -> float:
    """Resident bytes, once the operator has nothing to do."""
    settled("the end of all visits", lambda: _visits(operator.samples()), QUIET, PATIENCE)
    return float(operator.process.memory_info().rss)


def _visits(samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == "controller_runtime_reconcile_total")


def _listed(samples: Samples) -> float:
    """How many pages of AgentRuns were listed."""
    return sum(
        value
        for (name, labels), value in samples.items()
        if name == "agentrun_api_requests_total" and {("verb", "list"), ("resource", "agentruns")} <= set(labels)
    )


def _longest(samples: Samples) -> float:
    """The bound of the highest bucket that a delay of the loop fell into, in seconds."""
    buckets = sorted(
        (math.inf if dict(labels)["le"] == "+Inf" else float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name == "agentrun_event_loop_lag_seconds_bucket"
    )
    total = buckets[-1][1]
    return next(bound for bound, value in buckets if value == total)


def _without_lease(writes: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """A Lease is renewed whatever else there is to do."""
    return {key: value for key, value in writes.items() if key[1] != "leases"}


def _words(writes: Mapping[tuple[str, str], float]) -> str:
    return ", ".join(f"{verb} {what} {n:.0f}" for (verb, what), n in writes.items())
