"""The operator on the test cluster. The real helm installs it; the real kubectl and its plugin use it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.cluster.access import Done
from tests.cluster.cluster import MODEL_KEY, TOKEN, Cluster
from tests.cluster.component import until
from tests.cluster.places import FailedError
from tests.cluster.watching import Object, Watched
from tests.servers.versitygw import REGION

T = TypeVar("T")

RELEASE = "agentrun"
SPACE = "agentrun"
"""The operator's own namespace."""
SELECTOR = "app.kubernetes.io/name=agentrun,app.kubernetes.io/instance=agentrun"
STORE_SECRET = "agentrun-store"
CHARTS = Path(__file__).parents[2] / "charts"
PATIENCE = 90.0
"""Seconds to wait for something that needs a pod or two on a busy machine."""


class Operator:
    """The release ``agentrun``. The journals are in the cluster's bucket under ``runs/``.

    ``runs``, ``pods`` and ``approvals`` are watches of the whole cluster's objects.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self.store_url = f"s3://{cluster.bucket}/runs"
        self._spaces: list[str] = []
        self._watches: list[Watched] = []

    # -- the release -----------------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, Any]:
        """The chart's values in the tests."""
        repository, _, tag = self.cluster.image.rpartition(":")
        return {
            "image": {
                "repository": repository,
                "tag": tag,
                "pullPolicy": "Never" if self.cluster.node else "IfNotPresent",
            },
            "replicas": 2,
            "store": {
                "url": self.store_url,
                "region": REGION,
                "endpoint": self.cluster.store.endpoint,
                "credentialsSecret": STORE_SECRET,
            },
            "steps": {"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        }

    def install(self) -> None:
        """Install both charts, wait until every replica is ready, then watch. Raises FailedError."""
        self.deploy()
        self._watches = [Watched(self.cluster.access, kind) for kind in ("agentruns", "pods", "approvals")]
        self.runs, self.pods, self.approvals = self._watches

    def deploy(self) -> None:
        """Install both charts and wait until every replica is ready. Raises FailedError."""
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": _RESTRICTED}},
            self._secret(SPACE, STORE_SECRET, self._store_keys()),
        )
        self.cluster.helm("upgrade", "--install", f"{RELEASE}-crds", CHARTS / "agentrun-crds")
        self.upgrade()
        # For some seconds the API server knows the new types but its admission policies do not. It rejects runs then.
        run = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": {"name": "probe"}}
        probe = yaml.safe_dump(run | {"spec": {"workflowRef": {"name": "none"}}})
        words = ("create", "-n", SPACE, "--dry-run=server", "-f", "-")
        until("runs that are taken", lambda: not self.kubectl(*words, input=probe, check=False).returncode, 60)

    def upgrade(self, *words: str, wait: bool = True) -> None:
        """``helm upgrade`` with the tests' values and ``words`` (``--set logLevel=debug``). Raises FailedError."""
        values = self.cluster.access.folder / "operator-values.yaml"
        values.write_text(yaml.safe_dump(self.values))
        where = ("--install", RELEASE, CHARTS / "agentrun", "-n", SPACE, "-f", values)
        self.cluster.helm("upgrade", *where, *words)
        if wait:
            self.rolled_out()

    def rolled_out(self) -> None:
        """Wait until every replica has the newest revision and is ready. Raises FailedError with their logs."""
        done = self.kubectl(*("-n", SPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s"), check=False)
        if done.returncode != 0:
            raise FailedError(f"the operator is not ready: {done.stdout}{done.stderr}\n{self.logs()}")

    def restart(self) -> None:
        """Restart the rollout, which replaces the pods one by one, and wait for it. Raises FailedError."""
        self.kubectl("-n", SPACE, "rollout", "restart", f"deployment/{RELEASE}")
        self.rolled_out()

    def close(self) -> None:
        """End the watches. On the person's own cluster, also delete the namespaces of the tests."""
        for watch in self._watches:
            watch.close()
        if self.cluster.node is None and self._spaces:
            self.kubectl("delete", "namespace", *self._spaces, "--wait=false")

    # -- its replicas ----------------------------------------------------------------------------------------------

    def replicas(self) -> list[str]:
        """The names of its pods that are not being deleted."""
        pods = self.cluster.get("pods", "-n", SPACE, "-l", SELECTOR)["items"]
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def holder(self) -> str:
        """The holder of the Lease: the pod, an underscore, and a part that changes with each start; "" without one."""
        words = ("get", "lease", "agentrun", "-n", SPACE, "-o", "jsonpath={.spec.holderIdentity}")
        return self.kubectl(*words, check=False).stdout

    def leader(self) -> str:
        """Wait until a pod leads, and return its name. Raises FailedError."""
        return until("a leader", self.holder).rpartition("_")[0]

    def kill_leader(self) -> str:
        """SIGKILL the leader's process, and return the holder of the Lease that was killed."""
        holder = until("a leader", self.holder)
        self.send(holder.rpartition("_")[0], signal.SIGKILL)
        return holder

    def send(self, pod: str, number: signal.Signals) -> None:
        """Send a signal to the process of a replica from outside its pod. Only on a cluster of the tests.

        From outside, SIGKILL and SIGSTOP work even on process 1 of the pod.

        Raises:
            FailedError: the pod runs no process.

        """
        assert self.cluster.node is not None, "no way to send signals on this cluster"
        uid = self.cluster.get("pod", pod, "-n", SPACE)["metadata"]["uid"]
        for process in processes(uid, "agentrun.adapters.operator"):
            os.kill(process, number)

    def logs(self, since: str = "10m") -> str:
        """The logs of all replicas, also from before their last restart."""
        words = ("-n", SPACE, "logs", "-l", SELECTOR, "--prefix", "--tail=-1", f"--since={since}")
        now = self.kubectl(*words, check=False)
        before = self.kubectl(*words, "--previous", check=False)
        return before.stdout + now.stdout + now.stderr

    def metrics(self, pod: str | None = None) -> str:
        """The text of ``/metrics`` of one replica; of the leader by default. Raises FailedError."""
        path = f"/api/v1/namespaces/{SPACE}/pods/{pod or self.leader()}:8080/proxy/metrics"
        return self.kubectl("get", "--raw", path).stdout

    # -- what a test makes -----------------------------------------------------------------------------------------

    def namespace(self, name: str = "", **labels: str) -> str:
        """Create a namespace that enforces `restricted`, in which ana may edit and finance decide. Returns its name.

        It has Secrets with the store's credentials, for payments (``payments``) and for the model (``model``).
        """
        name = name or f"test-{uuid.uuid4().hex[:8]}"
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED | labels}},
            self._secret(name, STORE_SECRET, self._store_keys()),
            self._secret(name, "payments", {"token": TOKEN}),
            self._secret(name, "model", {"key": MODEL_KEY}),
            _binding(name, "edit", "User", "ana"),
            _binding(name, f"{RELEASE}-approver", "Group", "finance"),
        )
        self._spaces.append(name)
        return name

    def apply(self, namespace: str, *documents: Object | Path, user: str = "ana", check: bool = True) -> Done:
        """``kubectl apply`` of documents and files, in order."""
        # JSON, because PyYAML writes a key `n` without quotes, which kubectl reads as false
        texts = [d.read_text() if isinstance(d, Path) else json.dumps(d) for d in documents]
        words = ("apply", "-n", namespace, "-f", "-")
        return self.kubectl(*words, user=user, input="\n---\n".join(texts), check=check)

    def agentrun(
        self, namespace: str, verb: str, *words: str, user: str = "ana", store: bool = False, check: bool = True
    ) -> Done:
        """Run ``kubectl agentrun VERB WORDS`` as ``user``; with ``store``, the user has the store's credentials.

        Raises FailedError if ``check`` and it fails.
        """
        environment = self.cluster.store.environment(self.cluster.access.folder / "nothing") if store else None
        plugin = Path(sys.executable).parent / "kubectl-agentrun"
        return self.cluster.access.run(
            plugin, *verb.split(), "-n", namespace, *words, user=user, env=environment, check=check
        )

    def approve(self, namespace: str, run: str, *words: str, user: str = "ben") -> Done:
        """``kubectl agentrun approve RUN WORDS``. The words are a step and options. Raises FailedError."""
        return self.agentrun(namespace, "approve", run, *words, user=user)

    # -- what became of it -----------------------------------------------------------------------------------------

    def run(self, namespace: str, name: str) -> Object:
        """The AgentRun as it is now. Raises FailedError."""
        found: Object = self.cluster.get("agentruns", name, "-n", namespace)
        return found

    def wait_for(
        self, namespace: str, run: str, *wanted: str, seconds: float = PATIENCE, step: str | None = None
    ) -> Object:
        """Wait until the run's phase, or the reason of one of its conditions, is one of ``wanted``.

        With ``step``, wait for the step's state. Returns the AgentRun. Raises FailedError with everything that may
        explain why (``explain``).
        """

        def there(found: Object) -> bool:
            return bool({*wanted} & (step_says(found, step) if step else says(found)))

        what = f"{' or '.join(wanted)} of {run}{f' step {step}' if step else ''}"
        return self.wait_until(namespace, run, there, what, seconds)

    def wait_until(
        self, namespace: str, run: str, test: Callable[[Object], object], what: str, seconds: float = PATIENCE
    ) -> Object:
        """Wait until ``test`` of the AgentRun is true; returns the AgentRun. Raises FailedError like ``wait_for``."""

        def there() -> Object | None:
            found = self.runs.get(namespace, run)
            return found if found is not None and test(found) else None

        try:
            return self.runs.wait(what, seconds, there)
        except FailedError as error:
            raise FailedError(f"{error}\n{self.explain(namespace, run)}") from None

    def wait_gone(self, kind: Watched, namespace: str, name: str, seconds: float = PATIENCE) -> None:
        """Wait until an object is gone. Raises FailedError."""
        words = ("get", kind.kind, name, "-n", namespace, "--ignore-not-found", "-o", "name")
        kind.wait(
            f"the end of {kind.kind} {name}",
            seconds,
            # A watch that starts again has no objects either, so ask the API server too.
            lambda: kind.get(namespace, name) is None and not self.kubectl(*words).stdout,
        )

    def wait_pods(
        self, namespace: str, test: Callable[[list[Object]], T | None], what: str, seconds: float = PATIENCE
    ) -> T:
        """Call ``test`` with a namespace's pods after every change until its result is true; return the result.

        Raises FailedError.
        """
        return self.pods.wait(what, seconds, lambda: test(self.pods.all(namespace)))

    def pods_of(self, namespace: str, run: str, step: str | None = None) -> list[Object]:
        """The pods of a run, or of one of its steps, as they are now."""
        labels = f"agentrun.dev/run={run}" + (f",agentrun.dev/step={step}" if step else "")
        found: list[Object] = self.cluster.get("pods", "-n", namespace, "-l", labels)["items"]
        return found

    def events(self, namespace: str, run: str) -> list[Object]:
        """The Events about a run, oldest first."""
        about = f"involvedObject.kind=AgentRun,involvedObject.name={run}"
        found: list[Object] = self.cluster.get("events", "-n", namespace, "--field-selector", about)["items"]
        return found

    def journal(self, namespace: str, run: str) -> list[str]:
        """The keys in the store of all runs that have had this name."""
        prefix = f"runs/{namespace}/{run}-"
        pages = self.cluster.store.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.cluster.bucket, Prefix=prefix
        )
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def explain(self, namespace: str, run: str) -> str:
        """Everything that may explain why a run does not proceed."""
        about = [
            self.kubectl("get", "agentruns", run, "-n", namespace, "-o", "yaml", check=False).stdout,
            self.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False).stdout,
            self.kubectl("get", "events", "-n", namespace, check=False).stdout[-3000:],
            self.logs("2m")[-6000:],
        ]
        return "\n".join(about)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _store_keys(self) -> dict[str, str]:
        store = self.cluster.store
        return {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}

    def _secret(self, namespace: str, name: str, data: dict[str, str]) -> Object:
        metadata = {"name": name, "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@contextmanager
def installed(cluster: Cluster) -> Iterator[Operator]:
    """The operator, installed and watched until the block ends. Raises FailedError."""
    operator = Operator(cluster)
    try:
        operator.install()
        yield operator
    finally:
        operator.close()


def says(run: Object) -> set[str]:
    """The phase of an AgentRun and the reasons of its conditions."""
    status = run.get("status") or {}
    return {status.get("phase", ""), *(c["reason"] for c in status.get("conditions", []))}


def step_says(run: Object, name: str) -> set[str]:
    """The state of a step; empty if the status does not have the step."""
    return {step["state"] for step in (run.get("status") or {}).get("steps", []) if step["name"] == name}


def condition(run: Object, kind: str) -> Object:
    """The condition of that type. Raises KeyError if there is none."""
    found: dict[str, Object] = {c["type"]: c for c in (run.get("status") or {}).get("conditions", [])}
    return found[kind]


def processes(pod_uid: str, module: str) -> list[int]:
    """Wait for processes on this machine that run a Python module in a pod of a test cluster. Raises FailedError."""

    def found() -> list[int]:
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _runs(path, pod_uid, module)]

    return until(f"a process of {module} in pod {pod_uid}", found)


def _runs(process: Path, pod_uid: str, module: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        groups = (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return module in words and re.search(f"pod{pod_uid}", groups) is not None


def _binding(namespace: str, role: str, kind: str, name: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{name}-{role}", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}],
    }
