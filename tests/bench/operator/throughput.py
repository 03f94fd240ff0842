"""How many steps a second, beside the floor; what they cost in writes and in CPU; and how soon the next pod follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tests.bench.operator import load
from tests.bench.operator.rig import Operator, Rig, difference
from tests.bench.table import Row, Series
from tests.cluster.component import until

PARALLEL = 50
WARM_UP = 20
"""Runs before the ones that are measured: then connections, caches and bytecode are there."""

REMOVAL = 120.0
"""Seconds in which pods that have ended are gone."""

WRITES_BAR = 2.2
MIDDLE_BAR, LATE_BAR = 0.020, 0.100
CHAINS_A_SECOND = 5.0
"""Of four steps each."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is submitted. ``bar``: steps a second, at the least."""

    what: str
    specs: Sequence[Mapping[str, Any]]
    steps: int
    bar: float


@dataclass(slots=True)
class Found:
    """What a load took: steps a second, and of CPU seconds a step by process."""

    rate: float
    cpu: dict[str, float]


def loads(count: int) -> list[Load]:
    """The three loads of ``count`` steps."""
    return [
        Load(f"{count} runs of one step", list(load.runs(count, load.ONE)), count, 120),
        Load(f"{count // 4} chains of 4", list(load.runs(count // 4, load.CHAIN)), count, 110),
        Load(f"fan-out of {count}, {PARALLEL} at a time", load.fan_out(count, PARALLEL), count, 100),
    ]


def measure(rig: Rig, count: int) -> Iterator[Row]:
    """Rows for each load: steps a second, the ratio to the floor in the same minute, CPU and writes a step."""
    for one in loads(count):
        before = _once(rig, one, rig.floor())
        with rig.operator() as operator:
            asyncio.run(_warm_up(rig))
            written = rig.written()
            ours = _loaded(rig, one, operator)
            until("the removal of all pods", lambda: rig.pods() == 0, REMOVAL)
            writes = difference(rig.written(), written)
        rig.clean()
        floors = [before, _once(rig, one, rig.floor())]
        reference = Series([found.rate for found in floors], "/s")
        rate = Series([ours.rate], "/s")
        yield Row(f"{one.what}: steps", rate, reference, "floor: the smallest operator", bar=one.bar, least=True)
        yield Row("  of the floor", Series([ours.rate / reference.median], "×"))
        yield Row("  CPU a step", Series([sum(ours.cpu.values())], "ms"), against=_listed(ours.cpu))
        yield Row("  the floor's", Series([sum(before.cpu.values())], "ms"), against=_listed(before.cpu))
        yield _writes(writes, one.steps)


def latency(rig: Rig, chains: int) -> Iterator[Row]:
    """Rows for the time between the end of a pod and the next pod of its run, at 20 steps a second."""
    with rig.operator() as operator:
        asyncio.run(_warm_up(rig))
        name, began = rig.name("follow"), rig.cpu(operator)
        specs = list(load.runs(chains, load.CHAIN))
        asyncio.run(load.submit(name, specs, every=1 / CHAINS_A_SECOND))
        cpu = _per_step(difference(rig.cpu(operator), began), chains * 4)
    gaps = sorted(_gaps(rig, name))
    rig.clean()
    if len(gaps) != chains * 3:
        raise RuntimeError(f"{chains} chains of 4 have {len(gaps)} pods that follow another")
    what = f"pod ended to next pod seen, {CHAINS_A_SECOND * 4:g} steps/s"
    yield Row(f"{what}: p50", Series([gaps[len(gaps) // 2]], "ms"), against=f"n={len(gaps)}", bar=MIDDLE_BAR)
    yield Row(
        "  p99", Series([gaps[len(gaps) * 99 // 100]], "ms"), against=f"max {gaps[-1] * 1e3:.0f} ms", bar=LATE_BAR
    )
    yield Row("  CPU a step", Series([sum(cpu.values())], "ms"), against=_listed(cpu))


def _once(rig: Rig, one: Load, starting: AbstractContextManager[Operator]) -> Found:
    with starting as operator:
        asyncio.run(_warm_up(rig))
        found = _loaded(rig, one, operator)
    rig.clean()
    return found


async def _warm_up(rig: Rig) -> None:
    await load.submit(rig.name("warm"), list(load.runs(WARM_UP, load.ONE)))


def _loaded(rig: Rig, one: Load, operator: Operator) -> Found:
    cpu = rig.cpu(operator)
    times = asyncio.run(load.submit(rig.name("load"), one.specs))
    return Found(one.steps / times.seconds, _per_step(difference(rig.cpu(operator), cpu), one.steps))


def _gaps(rig: Rig, name: str) -> Iterator[float]:
    """Seconds from the accepted end of a pod until the stand-in saw the next one of its run."""
    ended: dict[str, float] = {}
    pods = [json.loads(line) for line in rig.log_of_pods.read_text().splitlines()]
    for pod in sorted((p for p in pods if p["run"].startswith(f"{name}-")), key=lambda p: p["seen"]):
        if pod["run"] in ended:
            yield max(0.0, pod["seen"] - ended[pod["run"]])
        ended[pod["run"]] = pod["ended"]


def _writes(writes: Mapping[tuple[str, str], float], steps: int) -> Row:
    total = sum(writes.values())
    shown = ", ".join(f"{verb} {what} {n:.0f}" for (verb, what), n in sorted(writes.items(), key=lambda w: -w[1]))
    return Row("  writes a step, removal included", Series([total / steps], ""), against=shown, bar=WRITES_BAR)


def _per_step(cpu: Mapping[str, float], steps: int) -> dict[str, float]:
    return {name: seconds / steps for name, seconds in cpu.items()}


def _listed(cpu: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in sorted(cpu.items(), key=lambda c: -c[1]))
