"""What the operator runs against here: etcd, the API server, the store, and a stand-in for nodes; and who runs in it.

There is no scheduler, no controller manager and no kubelet, so what is measured is the operator, the API server and
nothing that waits for either.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import yaml

from tests.bench.operator.api import PODS, RUNS
from tests.bench.parts import ROOT, Parts
from tests.cluster import control_plane
from tests.cluster.component import Component, until
from tests.cluster.control_plane import ControlPlane

ACCOUNT = "agentrun"
"""The ServiceAccount that operators act as."""

WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
KINDS = frozenset({"pods", "agentruns", "agentworkflows", "approvals", "agentcommands", "events", "leases"})
OTHERS = frozenset({("POST", "agentruns"), ("PATCH", "pods/status"), ("PUT", "leases")})
"""What is written while an operator works, but not by it: the load, the stand-in, the API server's own Lease."""

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


@dataclass(slots=True)
class Operator:
    """An operator that runs: the one that is measured, or the floor. ``listen``: where its metrics are, if any."""

    component: Component
    listen: str = ""

    @property
    def process(self) -> psutil.Process:
        """For its CPU and memory. Raises FailedError where it has ended."""
        return psutil.Process(self.component.pid)

    def samples(self) -> Samples:
        """Its own metrics now."""
        self.component.check()
        with urllib.request.urlopen(f"http://{self.listen}/metrics", timeout=30) as answer:
            return _samples(answer.read().decode())


@dataclass(slots=True)
class Rig:
    """See the module. ``profile``: where to leave what the operator's CPU went to, a file for each of its starts."""

    plane: ControlPlane
    environment: dict[str, str]
    """With which an operator finds the API server and the store."""
    folder: Path
    stand_in: Component
    store: psutil.Process
    profile: Path | None
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def name(self, what: str) -> str:
        """A name for a load that no other has."""
        return f"{what}{next(self._numbers)}"

    @property
    def log_of_pods(self) -> Path:
        """What the stand-in wrote of each pod."""
        return self.folder / "pods.jsonl"

    @contextmanager
    def operator(self, **settings: float) -> Iterator[Operator]:
        """Run the operator until the block ends; ``settings`` as ``launch`` has them. Raises FailedError."""
        listen = f"127.0.0.1:{_free_port()}"
        options = [f"--{name}={value}" for name, value in settings.items()]
        if self.profile is not None:
            options.append(f"--profile={self.profile / self.name('operator')}.pstats")
        environment = self.environment | {"AGENTRUN_LISTEN": listen}
        operator = Operator(self._component("operator", "launch", options, environment), listen)
        with _running(operator.component):

            def leads() -> bool:
                try:
                    return operator.samples().get(("agentrun_leader", ())) == 1
                except OSError:
                    return False

            operator.component.ready("lead", leads)
            yield operator

    @contextmanager
    def floor(self) -> Iterator[Operator]:
        """Run the floor until the block ends. Raises FailedError."""
        operator = Operator(self._component("floor", "floor", [], self.environment))
        with _running(operator.component):
            yield operator

    def clean(self) -> None:
        """Remove all runs and pods. No operator runs meanwhile, so nothing answers to it."""
        for path in (RUNS, PODS):
            self.plane.kubectl("delete", "--raw", path)

    def pods(self) -> int:
        """How many pods there are."""
        found = json.loads(self.plane.kubectl("get", "--raw", f"{PODS}?limit=1").stdout)
        return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))

    def written(self) -> dict[tuple[str, str], float]:
        """The operator's writes by verb and resource since the API server started, as that has counted them."""
        found: dict[tuple[str, str], float] = {}
        for (name, labels), value in self._server().items():
            if name == "apiserver_request_total":
                of = dict(labels)
                what = of["resource"] + (f"/{of['subresource']}" if of.get("subresource") else "")
                if of["verb"] in WRITES and of["resource"] in KINDS and (of["verb"], what) not in OTHERS:
                    found[of["verb"], what] = found.get((of["verb"], what), 0.0) + value
        return found

    def cpu(self, operator: Operator) -> dict[str, float]:
        """Seconds of CPU that each process has used."""
        parts = {
            "operator": operator.process,
            "API server": psutil.Process(self.plane.api_server.pid),
            "etcd": psutil.Process(self.plane.etcd.pid),
            "store": self.store,
            "stand-in": psutil.Process(self.stand_in.pid),
            "load": psutil.Process(),
        }
        return {name: sum(process.cpu_times()[:2]) for name, process in parts.items()}

    def _server(self) -> Samples:
        return _samples(self.plane.kubectl("get", "--raw", "/metrics").stdout)

    def _component(self, name: str, module: str, options: list[str], environment: Mapping[str, str]) -> Component:
        command = [sys.executable, "-m", f"tests.bench.operator.{module}", *options]
        return Component(name, command, self.folder / f"{self.name(name)}.log", env=dict(environment))


def difference(after: Mapping[Any, float], before: Mapping[Any, float]) -> dict[Any, float]:
    """What was added to each counter, but for those to which nothing was."""
    return {key: value - before.get(key, 0.0) for key, value in after.items() if value != before.get(key, 0.0)}


@contextmanager
def running(parts: Parts, profile: Path | None) -> Iterator[Rig]:
    """A rig until the block ends. Raises MissingError, FailedError."""
    folder = parts.new_folder()
    (folder / "plane").mkdir()
    with control_plane.running(folder / "plane") as plane:
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            plane.kubectl("apply", "--server-side", "-f", crd)
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        # Established is said before the watch caches are filled; until then lists are refused (429).
        group = RUNS.partition("/namespaces/")[0]
        for plural in ("agentruns", "agentworkflows", "approvals", "agentcommands"):
            until(f"a list of {plural}", partial(_listable, plane, f"{group}/{plural}"))
        for account in ("default", ACCOUNT):
            plane.kubectl("create", "serviceaccount", account)
        plane.kubectl(
            "create",
            "clusterrolebinding",
            ACCOUNT,
            "--clusterrole=cluster-admin",
            f"--serviceaccount=default:{ACCOUNT}",
        )
        token = plane.kubectl("create", "token", ACCOUNT, "--duration=8h").stdout.strip()
        document = plane.document("admin")
        document["users"][0]["user"] = {"token": token}
        kubeconfig = folder / "operator.kubeconfig"
        kubeconfig.touch(0o600)
        kubeconfig.write_text(yaml.safe_dump(document))
        os.environ["KUBECONFIG"] = str(plane.kubeconfig())
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "AGENTRUN_STORE": f"s3://{parts.s3.new_bucket()}/bench",
            "AGENTRUN_STEP_IMAGE": "x",
            "AGENTRUN_LEASE_NAMESPACE": "default",
            "AGENTRUN_ADMISSION": "false",
        }
        log = folder / "stand-in.log"
        command: list[str | Path] = [sys.executable, "-m", "tests.bench.operator.kubelet", folder / "pods.jsonl"]
        stand_in = Component("stand-in", command, log)
        with _running(stand_in):
            stand_in.ready("watching", lambda: "watching" in stand_in.said())
            yield Rig(plane, environment, folder, stand_in, _store(parts.s3.kind), profile)


@contextmanager
def _running(component: Component) -> Iterator[None]:
    component.start()
    try:
        yield
    finally:
        component.stop()


def _store(kind: str) -> psutil.Process:
    """The store's process: a child of this one, or this one itself."""
    return next((child for child in psutil.Process().children() if child.name() == kind), psutil.Process())


def _samples(text: str) -> Samples:
    return {
        (match[1], tuple(sorted(_LABEL.findall(match[2] or "")))): float(match[3]) for match in _SAMPLE.finditer(text)
    }


def _listable(plane: ControlPlane, path: str) -> bool:
    return plane.kubectl("get", "--raw", path, check=False).returncode == 0


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def settled(what: str, value: Any, quiet: float, patience: float) -> Any:
    """Ask ``value`` until it has given the same for ``quiet`` seconds; what it gave. Raises FailedError."""
    last: list[Any] = [None, time.monotonic()]

    def test() -> bool:
        now = value()
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return bool(time.monotonic() - last[1] >= quiet)

    until(what, test, patience)
    return last[0]
