"""A run of one step on a real node, from ``kubectl apply`` to Succeeded, beside the same pod made by hand.

Real kubelet, containers, store and image; the model answers at once. What the operator takes is what passes between
the run and its pod, and between the end of the pod and the run's, as watches tell it. By hand, a pod is applied that
does the same work for a run which nobody drives.

The runner's start is read from its pod: the time when its program begins, until its request is in the model's ledger;
beside it the smallest script that lists a prefix, puts an object and asks the model, in the same image.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import yaml

from agentrun.adapters.pods import PodSettings, build_pod
from agentrun.api.labels import RUN_LABEL
from agentrun.control.views import RunRef, RunView
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Start
from agentrun.store.open import open_store
from tests.bench.parts import MODEL, ModelServer, Parts, start_run
from tests.bench.startup import BAR, SCRIPTS
from tests.bench.table import Row, Series, ratios
from tests.cluster import cluster as clusters
from tests.cluster import operator as operators
from tests.cluster import scenes
from tests.cluster.operator import STORE_SECRET, Operator
from tests.cluster.watching import Watched
from tests.servers.versitygw import REGION

ROUNDS = 7
STEP = {"name": "ask", "agent": {"prompt": "hello"}}
Object = dict[str, Any]


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for the whole of a run, for the operator's share, and for the runner's start.

    Raises MissingError, FailedError where this machine has no cluster.
    """
    with clusters.running(parts.new_folder()) as cluster, operators.installed(cluster) as operator:
        environment = cluster.store.environment(parts.folder / "nothing")
        with mock.patch.dict(os.environ, environment), parts.model([{"text": "hello"}], cluster.host) as model:
            yield from _rounds(operator, model)


def _rounds(operator: Operator, model: ModelServer) -> Iterator[Row]:
    bench = _Bench(operator, model)
    runs: list[tuple[float, float, float]] = []
    by_hand: list[float] = []
    runners: list[float] = []
    scripts: list[float] = []
    for number in range(ROUNDS + 1):
        took = bench.run(), bench.pod_of_a_step(), bench.pod_of_the_script()
        if number:  # the first one brought image and bytecode into the disk's cache
            runs.append(took[0])
            by_hand.append(took[1][0])
            runners.append(took[1][1])
            scripts.append(took[2])
    whole, before, after = ([run[part] for run in runs] for part in range(3))
    what = "one-step run on a node, kubectl apply to Succeeded"
    yield Row(what, Series(whole, "s"), Series(by_hand, "s"), "the same pod by hand", ratios(whole, by_hand))
    own = [a + b for a, b in zip(before, after, strict=True)]
    parts = f"run to pod {Series(before, 'ms')}, end of the pod to end of the run {Series(after, 'ms')}"
    yield Row("  of it the operator", Series(own, "ms"), against=parts)
    what = "runner in a pod, start to first model request"
    ratio = ratios(runners, scripts)
    yield Row(what, Series(runners, "s"), Series(scripts, "s"), "smallest script in a pod", ratio, BAR)


class _Bench:
    """One namespace, in which runs and pods follow each other."""

    def __init__(self, operator: Operator, model: ModelServer) -> None:
        self._operator, self._model = operator, model
        self._cluster = operator.cluster
        self._space = operator.namespace()
        self._numbers = itertools.count()
        self._store = open_store(f"s3://{self._cluster.bucket}/by-hand")
        self._models = [{"name": "main", "model": MODEL, "endpoint": model.url}]
        self._models[0] |= {"credentials": {"secretRef": {"name": "model", "key": "key"}}}  # type: ignore[dict-item]

    def run(self) -> tuple[float, float, float]:
        """Seconds of a whole run, from it to its pod, and from the pod's end to its own."""
        name = f"run-{next(self._numbers)}"
        runs, pods = self._operator.runs, self._operator.pods

        def run_is(phase: str) -> bool:
            found = runs.get(self._space, name)
            return found is not None and phase in ("", (found.get("status") or {}).get("phase"))

        def pod_is(phase: str) -> bool:
            mine = [p for p in pods.all(self._space) if p["metadata"].get("labels", {}).get(RUN_LABEL) == name]
            return bool(mine) and (phase == "" or _exit_code(mine[0]) is not None)

        def times(watched: Watched, test: Callable[[str], bool]) -> tuple[float, float]:
            watched.wait(f"a {watched.kind} of {name}", 90, lambda: test(""))
            there = time.monotonic()
            watched.wait(f"the end of the {watched.kind} of {name}", 90, lambda: test("Succeeded"))
            return there, time.monotonic()

        with ThreadPoolExecutor(2) as threads:
            of_run, of_pod = threads.submit(times, runs, run_is), threads.submit(times, pods, pod_is)
            began = time.monotonic()
            self._operator.apply(self._space, scenes.run(name, STEP, models=self._models))
            (run, done), (pod, ended) = of_run.result(), of_pod.result()
        self._operator.kubectl("delete", "agentrun", name, "-n", self._space)
        return done - began, pod - run, max(0.0, done - ended)

    def pod_of_a_step(self) -> tuple[float, float]:
        """Seconds from ``kubectl apply`` of a step's pod to its end, and of its runner to the first model request."""
        path = start_run(self._store, [STEP], models=self._models)
        return self._by_hand(self._step(path))

    def pod_of_the_script(self) -> float:
        """Seconds of the smallest script to its model request."""
        pod = self._step(start_run(self._store, [STEP], models=self._models))
        container = pod["spec"]["containers"][0]
        script = (SCRIPTS / "ask_with_s3.py").read_text()
        prefix = f"scripts/{next(self._numbers)}"
        container["command"] = ["python", "-c", script, self._cluster.bucket, prefix]
        container["env"] += [
            {"name": "OPENAI_BASE_URL", "value": self._model.url},
            {"name": "OPENAI_API_KEY", "value": "none"},
        ]
        return self._by_hand(pod)[1]

    def _step(self, path: RunPath) -> Object:
        pinned = PinnedRun.read(self._store, path)
        planned = plan(pinned.snapshot(time.time(), {}, []))
        start = next(effect for effect in planned.effects if isinstance(effect, Start))
        view = RunView(RunRef(self._space, path.name), path.uid, 0, 1, 0.0, None)
        settings = PodSettings(
            self._store.url,
            self._cluster.image,
            "Never" if self._cluster.node else "IfNotPresent",
            env_secret=STORE_SECRET,
            env={"AWS_REGION": REGION, "AWS_ENDPOINT_URL_S3": self._cluster.store.endpoint},
        )
        pod = build_pod(settings, view, pinned, start)
        pod["metadata"] = {"name": f"by-hand-{next(self._numbers)}", "namespace": self._space}
        return pod

    def _by_hand(self, pod: Object) -> tuple[float, float]:
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]
        command = container["command"]
        # Says when it begins, and becomes the program.
        container["command"] = ["sh", "-c", 'date +%s.%N; exec "$@"', "sh", *command]
        asked = len(self._model.arrivals())
        began = time.monotonic()
        self._operator.kubectl("apply", "-f", "-", input=yaml.safe_dump(pod))

        def over(found: list[Object]) -> Object | None:
            mine = [p for p in found if p["metadata"]["name"] == name]
            return mine[0] if mine and _exit_code(mine[0]) is not None else None

        ended = self._operator.wait_pods(self._space, over, f"the end of pod {name}")
        took = time.monotonic() - began
        said = self._operator.kubectl("logs", name, "-n", self._space).stdout
        if _exit_code(ended) != 0:
            raise RuntimeError(f"pod {name} failed: {json.dumps(ended['status'])} {said}")
        self._operator.kubectl("delete", "pod", name, "-n", self._space, "--grace-period=0", "--force")
        return took, self._model.arrivals()[asked] - float(said.split()[0])


def _exit_code(pod: Object) -> int | None:
    """Of its container, as soon as the kubelet says that it has ended: the phase of the pod follows a second later."""
    for status in pod["status"].get("containerStatuses") or ():
        if "terminated" in status["state"]:
            return int(status["state"]["terminated"]["exitCode"])
    return None
