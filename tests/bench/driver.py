"""What the driver itself takes of a run: a fan-out of 200 steps, 20 at a time, as processes on this machine.

The driver runs in this process, so its CPU is this process's and the steps' is that of its children, which the
kernel adds up as they end. How busy the cores were is the whole machine's, others' work on it included.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any

from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.local.driver import Driver, End
from agentrun.local.lease import Lease
from agentrun.local.processes import ChildProcesses
from agentrun.store.open import open_store
from agentrun.store.protocol import Store
from tests.bench.parts import Parts, start_run
from tests.bench.table import Row, Series

STEPS = {"agent": 200, "tool": 100}
PARALLEL = 20
BAR = 0.05


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for agent steps and for tool steps, on the folder store."""
    url = parts.stores()["folder"]
    with ExitStack() as open_parts:
        open_parts.enter_context(parts.model([{"text": "done"}]))
        backend = open_parts.enter_context(parts.backend())
        tool = {
            "name": "look_up_order",
            "description": "An order.",
            "effect": "ReadOnly",
            "parameters": {"type": "object"},
            "http": {"method": "GET", "url": f"{backend}/orders/4711"},
        }
        kinds: dict[str, dict[str, Any]] = {
            "agent": {"agent": {"prompt": "Judge part ${item}."}},
            "tool": {"tool": {"name": "look_up_order", "args": {}}},
        }
        for kind, work in kinds.items():
            store = open_store(url)
            fan_out = {"items": list(range(STEPS[kind])), "maxParallel": PARALLEL}
            run = start_run(store, [{"name": "part", "forEach": fan_out, **work}], tools=[tool])
            yield from _driven(kind, store, run)


def _driven(kind: str, store: Store, run: RunPath) -> Iterator[Row]:
    own, children, busy, began = _cpu(RUSAGE_SELF), _cpu(RUSAGE_CHILDREN), _busy(), time.monotonic()
    end = asyncio.run(_drive(store, run))
    seconds = time.monotonic() - began
    if end is not End.SUCCEEDED:
        raise RuntimeError(f"the run of {STEPS[kind]} {kind} steps {end.value}")
    own, children = _cpu(RUSAGE_SELF) - own, _cpu(RUSAGE_CHILDREN) - children
    used, total = (after - before for after, before in zip(_busy(), busy, strict=True))
    what = f"{STEPS[kind]} {kind} steps, {PARALLEL} at a time: driver's part of the run's CPU"
    each = f"s CPU of the driver; {children / STEPS[kind]:.2f} s a step; {STEPS[kind] / seconds:.1f} steps/s"
    yield Row(what, Series([own / (own + children)], "%"), against=f"{own:.2f} {each}", bar=BAR)
    if total:
        cores = os.cpu_count()
        yield Row(
            "  how busy the cores were", Series([used / total], "%"), against=f"of {cores} cores, {seconds:.0f} s"
        )


async def _drive(store: Store, run: RunPath) -> End:
    driver = Driver(store, PinnedRun.read(store, run), ChildProcesses(), Lease(store, run, uuid.uuid4().hex))
    return await driver.drive()


def _cpu(who: int) -> float:
    """Seconds of CPU, of the user's and the system's kind."""
    spent = getrusage(who)
    return spent.ru_utime + spent.ru_stime


def _busy() -> tuple[float, float]:
    """Ticks of all cores that were used, and all of them (proc(5)); zeros where the system does not say."""
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0.0, 0.0
    idle = ticks[3] + ticks[4]
    return float(sum(ticks) - idle), float(sum(ticks))
