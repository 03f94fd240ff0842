"""Runs to submit, and how long they take: from before the first creation until the last is seen Succeeded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.bench.operator.api import RUNS, call, follow, session

LOAD_LABEL = "bench"
IN_FLIGHT = 50
PATIENCE = 120.0
"""Seconds after which a load is given up."""

Step = Mapping[str, Any]
_AGENT = {"agent": {"prompt": "Judge this part. " * 30}}

ONE: Sequence[Step] = [{"name": "s1", **_AGENT}]
CHAIN: Sequence[Step] = [
    {"name": f"s{n}", **_AGENT} | ({"dependsOn": [f"s{n - 1}"]} if n > 1 else {}) for n in range(1, 5)
]
HELD: Sequence[Step] = [{"name": "hold", "wait": {"signal": "go"}}]


def fan_out(count: int, parallel: int) -> Sequence[Mapping[str, Any]]:
    """One run of ``count`` items."""
    each = {"items": "${inputs.parts}", "maxParallel": parallel}
    step = {"name": "part", "forEach": each, "agent": {"prompt": "Judge part ${item}. " * 20}}
    return list(runs(1, [step], {"parts": list(range(count))}))


def runs(count: int, steps: Sequence[Step], inputs: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """The specs of ``count`` runs of ``steps``."""
    spec: dict[str, Any] = {"workflow": {"models": [{"name": "main", "model": "gpt-5.5"}], "steps": list(steps)}}
    if inputs is not None:
        spec["inputs"] = inputs
    for _ in range(count):
        yield spec


@dataclass(slots=True)
class Times:
    """What was seen of a load, in seconds on the monotonic clock."""

    name: str
    began: float = 0.0
    created: float = 0.0
    """When the last creation was answered."""
    ends: dict[str, float] = field(default_factory=dict)
    """When each run was seen in the phase that was waited for."""

    @property
    def seconds(self) -> float:
        """From the first creation to the last end."""
        return max(self.ends.values()) - self.began


async def submit(
    name: str,
    specs: Sequence[Mapping[str, Any]],
    *,
    phase: str = "Succeeded",
    every: float = 0.0,
    patience: float = PATIENCE,
) -> Times:
    """Create the runs and wait until all are in ``phase``; ``every``: seconds between two creations, 0: at once.

    Raises:
        RuntimeError: they did not come there within ``patience`` seconds, or one ended otherwise.
    """
    times = Times(name)
    async with session() as http:
        watching = asyncio.Event()
        watch = asyncio.create_task(_watch(http, times, len(specs), phase, watching))
        try:
            async with asyncio.timeout(patience):
                await asyncio.wait([watch, asyncio.ensure_future(watching.wait())], return_when="FIRST_COMPLETED")
                times.began = time.monotonic()
                await asyncio.gather(_create(http, times, specs, every), watch)
        except TimeoutError:
            missing = next((f"{name}-{n}" for n in range(len(specs)) if f"{name}-{n}" not in times.ends), "none")
            shown = await call(http, "GET", f"{RUNS}/{missing}")
            raise RuntimeError(
                f"load {name}: {len(times.ends)} of {len(specs)} runs were {phase} after {patience:g} s; "
                f"{missing} stands at {shown.get('status')}"
            ) from None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
    return times


async def _create(http: aiohttp.ClientSession, times: Times, specs: Sequence[Mapping[str, Any]], every: float) -> None:
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int, spec: Mapping[str, Any]) -> None:
        await asyncio.sleep(max(0.0, times.began + number * every - time.monotonic()))
        async with room:
            metadata = {"name": f"{times.name}-{number}", "labels": {LOAD_LABEL: times.name}}
            run = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": metadata, "spec": spec}
            await call(http, "POST", RUNS, run)

    await asyncio.gather(*(one(number, spec) for number, spec in enumerate(specs)))
    times.created = time.monotonic()


async def _watch(http: aiohttp.ClientSession, times: Times, count: int, phase: str, watching: asyncio.Event) -> None:
    async for kind, run in follow(http, RUNS, f"{LOAD_LABEL}={times.name}"):
        if not kind:
            watching.set()
            continue
        now = run.get("status", {}).get("phase")
        if now == phase:
            times.ends.setdefault(run["metadata"]["name"], time.monotonic())
            if len(times.ends) == count:
                return
        elif now in {"Failed", "Stalled", "Cancelled"}:
            raise RuntimeError(f"run {run['metadata']['name']} is {now}: {run['status']}")
