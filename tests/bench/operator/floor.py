"""The smallest operator on kopf that makes the writes of a real one: the floor to measure against.

    KUBECONFIG=… python -m tests.bench.operator.floor

It knows no journal, no plan, no Lease and no failure. Of a run it reads how many pods it has and how many at a time,
creates them, and patches the status once, when all have ended. It removes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf

from agentrun.adapters.kopf_handlers import connection, settings_for
from agentrun.api.canonical import timestamp
from agentrun.api.labels import ATTEMPT, RUN_LABEL
from agentrun.kube.credentials import find_login
from tests.bench.operator.api import MERGE_PATCH, PODS, RUNS, Json, call, session

WORKERS = 32


@dataclass(slots=True)
class Run:
    """What it knows of a run."""

    uid: str
    count: int
    parallel: int
    made: int = 0
    over: set[str] = field(default_factory=set)
    """The pods that have ended."""
    shown: bool = False


def read(obj: Json) -> Run:
    """How many pods a run has, and how many at a time."""
    steps = obj["spec"]["workflow"]["steps"]
    fan_out = steps[0].get("forEach")
    if fan_out is None:
        return Run(obj["metadata"]["uid"], len(steps), 1)
    return Run(obj["metadata"]["uid"], len(obj["spec"]["inputs"]["parts"]), fan_out["maxParallel"])


def pod_of(name: str, run: Run, number: int) -> Json:
    """A pod: as small as one of a step could be."""
    owner = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "name": name, "uid": run.uid}
    return {
        "metadata": {
            "name": f"{name}-{number}",
            "labels": {RUN_LABEL: name},
            "annotations": {ATTEMPT: "1"},
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": [
                {"name": "step", "image": "x", "env": [{"name": f"E{i}", "value": "v" * 20} for i in range(10)]}
            ],
        },
    }


def status_of(run: Run, now: str) -> Json:
    """The status of a run that succeeded, about as large as a real one."""
    conditions = [
        {"type": kind, "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": now}
        for kind in ("Succeeded", "Ready", "Reconciling", "Stalled")
    ]
    steps = [{"name": f"s{n}", "state": "Succeeded", "attempt": 1} for n in range(min(run.count, 20))]
    return {"phase": "Succeeded", "completionTime": now, "steps": steps, "conditions": conditions}


class Floor:
    """The operator."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._runs: dict[str, Run] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._working: set[str] = set()

    def add(self, name: str) -> None:
        """Have a run worked on."""
        if name not in self._queued:
            self._queued.add(name)
            if name not in self._working:
                self._queue.put_nowait(name)

    async def run_seen(self, event: Mapping[str, Any], name: str, **_: Any) -> None:
        """kopf's handler of AgentRuns."""
        if event["type"] == "DELETED":
            self._runs.pop(name, None)
        elif name not in self._runs and event["object"].get("status", {}).get("phase") != "Succeeded":
            self._runs[name] = read(event["object"])
            self.add(name)

    async def pod_seen(self, event: Mapping[str, Any], name: str, labels: Mapping[str, str], **_: Any) -> None:
        """kopf's handler of pods."""
        run = self._runs.get(labels[RUN_LABEL])
        if run is not None and event["object"].get("status", {}).get("phase") == "Succeeded":
            run.over.add(name)
            self.add(labels[RUN_LABEL])

    async def work(self) -> None:
        """One of the workers."""
        while True:
            name = await self._queue.get()
            self._queued.discard(name)
            self._working.add(name)
            if (run := self._runs.get(name)) is not None:
                await self._visit(name, run)
            self._working.discard(name)
            if name in self._queued:
                self._queue.put_nowait(name)

    async def _visit(self, name: str, run: Run) -> None:
        number = min(run.count, len(run.over) + run.parallel)
        pods = [pod_of(name, run, n) for n in range(run.made, number)]
        run.made = max(run.made, number)
        await asyncio.gather(*(call(self._http, "POST", PODS, pod) for pod in pods))
        if len(run.over) == run.count and not run.shown:
            run.shown = True
            status = status_of(run, timestamp(int(time.time())))
            await call(self._http, "PATCH", f"{RUNS}/{name}/status", {"status": status}, **MERGE_PATCH)


async def main() -> None:
    """Operate until SIGTERM."""
    login = find_login()
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return connection(await asyncio.to_thread(login.read))

    async with session() as http:
        floor = Floor(http)
        kopf.on.event("agentrun.dev", "v1alpha1", "agentruns", registry=registry, id="runs")(floor.run_seen)
        kopf.on.event("v1", "pods", registry=registry, id="pods", labels={RUN_LABEL: kopf.PRESENT})(floor.pod_seen)
        workers = [asyncio.ensure_future(floor.work()) for _ in range(WORKERS)]
        try:
            await kopf.operator(registry=registry, settings=settings_for(), standalone=True, clusterwide=True)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
