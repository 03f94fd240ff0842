"""The client of the Kubernetes API, the cluster's port and the Lease, against a real API server."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agentrun.adapters.cluster_api import KubernetesCluster, KubernetesLease
from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.api.approval import Owner, approval_object
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.labels import ATTEMPT, KEY, RUN_LABEL, RUN_UID
from agentrun.api.tools import Approvers
from agentrun.api.workflow import API_VERSION
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.control.leader import DURATION, PERIOD, Leader, NotLeader, boot_clock
from agentrun.control.views import RunView
from agentrun.journal.pinned import PinnedRun
from agentrun.kube.client import PAGE, Kube
from agentrun.kube.credentials import Access, InCluster, Kubeconfig, NoAccess
from agentrun.kube.errors import AlreadyExists, Conflict, Forbidden, NotFound, Refused, Unauthorized, Unavailable
from agentrun.plan.snapshot import Start
from tests.cluster.control_plane import ControlPlane

PINNED = cast(PinnedRun, None)
START = cast(Start, None)
RUNS = f"/apis/{API_VERSION}/namespaces/{{}}/agentruns"
APPROVALS = f"/apis/{API_VERSION}/namespaces/{{}}/approvals"
PODS = "/api/v1/namespaces/{}/pods"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """With our resources."""
    control_plane.kubectl("apply", "--server-side", "-f", Path(__file__).parents[2] / "crds")
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


@pytest.fixture
def ns(plane: ControlPlane) -> str:
    """A namespace of the test's own; nobody but the test makes its ServiceAccount."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    plane.kubectl("-n", name, "create", "serviceaccount", "default")
    return name


@pytest.fixture
async def kube(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Kubeconfig(str(plane.kubeconfig()))) as client:
        yield client


def pod_of(run: RunView, **spec: Any) -> dict[str, Any]:
    owner = {"apiVersion": API_VERSION, "kind": "AgentRun", "name": run.ref.name, "uid": run.uid, "controller": True}
    uid = run.uid.replace("-", "")
    told = {"run": f"{run.ref.namespace}/{run.ref.name}-{uid}", "step": "letter", "attempt": 1}
    step = {"name": "step", "image": "x", "env": [{"name": STEP_VARIABLE, "value": json.dumps(told)}]}
    return {
        "metadata": {
            "name": "step-1",
            "labels": {RUN_LABEL: run.ref.name},
            "annotations": {RUN_UID: uid, KEY: "letter", ATTEMPT: "1"},
            "ownerReferences": [owner],
        },
        "spec": {"restartPolicy": "Never", "containers": [step], **spec},
    }


def cluster_of(kube: Kube, **spec: Any) -> KubernetesCluster:
    return KubernetesCluster(kube, lambda run, pinned, start: pod_of(run, **spec), instance="test")


async def make_run(kube: Kube, ns: str, name: str = "r") -> RunView:
    body = {"metadata": {"name": name}, "spec": {"workflowRef": {"name": "w"}, "inputs": {"a": 1}}}
    made = await kube.create(RUNS.format(ns), {"apiVersion": API_VERSION, "kind": "AgentRun"} | body)
    return run_view(made)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, for half a minute."""
    async with asyncio.timeout(30):
        while True:
            if await true():
                return
            await asyncio.sleep(0.05)


def status(**more: Any) -> dict[str, Any]:
    return {"phase": "Running", "startTime": "2026-01-01T00:00:00Z", **more}


async def test_a_pod_is_made_once_and_adopted(kube: Kube, ns: str) -> None:
    cluster, run = cluster_of(kube), await make_run(kube, ns)
    made = await cluster.create_pod(run, PINNED, START)
    assert (made.run, made.key, made.attempt, made.phase) == (run.ref, StepKey("letter"), 1, "Pending")
    assert await cluster.create_pod(run, PINNED, START) == made
    assert await cluster.find_pod(run, PINNED, START) == made

    other = await make_run(kube, ns, "other")
    with pytest.raises(Refused) as refused:
        await cluster.create_pod(other, PINNED, START)
    assert all(
        word in str(refused.value) for word in (f"{ns}/step-1", "AgentRun r", run.uid, other.uid, "AgentRun other")
    )

    pod = f"/api/v1/namespaces/{ns}/pods/{made.name}"
    for key in ("pay", "letter"):
        await kube.patch(pod, {"metadata": {"annotations": {KEY: key}}})
        if key == "pay":  # somebody says that it runs another step than it was told
            assert await cluster.find_pod(run, PINNED, START) is None
            with pytest.raises(Refused, match="delete that pod"):
                await cluster.create_pod(run, PINNED, START)

    await cluster.delete_pod(replace(made, uid=other.uid))
    there = await cluster.find_pod(run, PINNED, START)
    assert there is not None and there.uid == made.uid
    await cluster.delete_pod(made)
    assert await cluster.find_pod(run, PINNED, START) is None
    await cluster.delete_pod(made)


async def test_what_the_api_server_says_of_a_pod_is_what_people_read(kube: Kube, plane: ControlPlane, ns: str) -> None:
    run = await make_run(kube, ns)
    with pytest.raises(Refused, match='serviceaccount "ghost" not found'):
        await cluster_of(kube, serviceAccountName="ghost").create_pod(run, PINNED, START)
    with pytest.raises(Refused, match="Unsupported value"):
        await cluster_of(kube, dnsPolicy="Nonsense").create_pod(run, PINNED, START)
    with pytest.raises(Refused, match="cannot be handled as a Pod"):
        await cluster_of(kube, containers="none").create_pod(run, PINNED, START)

    plane.kubectl("label", "namespace", ns, "pod-security.kubernetes.io/enforce=restricted")

    async def violates() -> bool:
        try:  # the admission plugin hears of the label by a watch
            made = await cluster_of(kube).create_pod(run, PINNED, START)
        except Refused as refused:
            return 'violates PodSecurity "restricted' in str(refused)
        await cluster_of(kube).delete_pod(made)
        return False

    await until(violates)
    plane.kubectl("label", "namespace", ns, "pod-security.kubernetes.io/enforce-")

    plane.kubectl("delete", "namespace", ns, "--wait=false")

    async def going() -> bool:
        try:
            await cluster_of(kube, containers=[{"name": "step", "image": "x"}]).create_pod(run, PINNED, START)
        except Refused:
            return False
        except NotFound as gone:
            return "because it is being terminated" in str(gone)
        await kube.delete(PODS.format(ns) + "/step-1", grace=0)
        return False

    await until(going)
    with pytest.raises(NotFound):
        await make_run(kube, "there-is-none")


async def test_only_pods_that_have_ended_are_swept(kube: Kube, ns: str) -> None:
    run = await make_run(kube, ns)
    phases = ("Pending", "Running", "Succeeded", "Failed")
    for phase in phases:
        body = pod_of(run, nodeName="gone")  # assigned, so that only grace 0 removes it
        body["metadata"]["name"] = phase.lower()
        await kube.create(PODS.format(ns), body)
        await kube.patch(f"{PODS.format(ns)}/{phase.lower()}/status", {"status": {"phase": phase}})
    await kube.create(PODS.format(ns), {"metadata": {"name": "mine"}, "spec": body["spec"]})
    await kube.patch(f"{PODS.format(ns)}/mine/status", {"status": {"phase": "Succeeded"}})
    await cluster_of(kube).sweep_pods(ns)
    left = await kube.list_all(PODS.format(ns))
    assert sorted(pod["metadata"]["name"] for pod in left["items"]) == ["mine", "pending", "running"]


async def test_a_status_is_replaced_whole_and_never_over_a_newer_one(kube: Kube, ns: str) -> None:
    cluster, run = cluster_of(kube), await make_run(kube, ns)
    first = await cluster.patch_status(run, run.version, status(message="waits"))
    assert first.version > run.version and first.status == status(message="waits") and first.written == run.written
    output = {"a": None, "b": {"c": [None]}}
    second = await cluster.patch_status(first, first.version, status(output=output))
    assert second.status == status(output=output)
    third = await cluster.patch_status(second, second.version, status(output={"b": 1}))
    assert third.status == status(output={"b": 1})
    with pytest.raises(Conflict):
        await cluster.patch_status(third, second.version, status())
    assert await cluster.get_run(run.ref) == third

    again = replace(run, uid=str(uuid.uuid4()))
    await cluster.delete_run(again)
    assert await cluster.get_run(run.ref) == third
    await cluster.delete_run(run)
    assert await cluster.get_run(run.ref) is None and await cluster.get_workflow(ns, "w") is None
    with pytest.raises(NotFound):
        await cluster.patch_status(third, third.version, status())
    await make_run(kube, ns)
    with pytest.raises(Conflict):  # the name is another run's now
        await cluster.patch_status(third, third.version, status())


async def test_an_ended_run_leaves_little(kube: Kube, ns: str) -> None:
    run = await make_run(kube, ns)
    done = {"type": "Succeeded", "status": "False", "reason": "Failed", "message": ""}
    condition = done | {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    body = status(conditions=[condition], completionTime="2026-01-01T00:00:10Z")
    view = await cluster_of(kube).patch_status(run, run.version, body)
    assert view.finished == 1767225610.0
    assert (view.written, view.status, view.requested_by) == (None, None, None)


def question(run: RunView, digest: str) -> dict[str, Any]:
    request = ApprovalRequest(
        "Refund?", {"sum": 1}, "sha256:" + digest * 64, Approvers(groups=["finance"]), 1, 2e9, call_id=None
    )
    owner = Owner(run.ref.name, run.ref.namespace, run.uid)
    return approval_object(owner, StepKey("sign-off"), 1, request, "ana", now=1.9e9)


async def test_people_are_asked_once_and_a_late_decision_is_seen(kube: Kube, ns: str) -> None:
    cluster, run = cluster_of(kube), await make_run(kube, ns)
    asked = question(run, "a")
    path = f"{APPROVALS.format(ns)}/{asked['metadata']['name']}"
    await cluster.create_approval(asked)
    await cluster.create_approval(asked)
    with pytest.raises(AlreadyExists):
        await cluster.create_approval(question(run, "b"))
    seen = approval_view(await kube.get(path), 2e9)
    assert (seen.run, seen.run_uid, seen.required, seen.settled) == (run.ref, run.uid, 1, False)

    decision = {"by": "ben", "decision": "Approved", "digest": "sha256:" + "a" * 64, "at": "2026-01-01T00:00:00Z"}
    await kube.patch(path + "/status", {"status": {"decisions": [decision]}})
    with pytest.raises(Conflict):
        await cluster.settle_approval(seen, "Expired", "nobody answered", 0.0)
    seen = approval_view(await kube.get(path), 2e9)
    await cluster.settle_approval(seen, "Approved", "by ben", 0.0)
    settled = approval_view(await kube.get(path), 2e9)
    assert settled.settled and settled.decisions == seen.decisions and len(seen.decisions) == 1
    await kube.delete(path)
    await cluster.settle_approval(settled, "Approved", "by ben", 0.0)


async def test_a_command_is_answered_once_and_only_as_it_was_seen(kube: Kube, ns: str) -> None:
    cluster = cluster_of(kube)
    path = f"/apis/{API_VERSION}/namespaces/{ns}/agentcommands"
    spec = {"run": {"name": "r"}, "resume": {}}
    body = {"apiVersion": API_VERSION, "kind": "AgentCommand", "metadata": {"name": "c"}, "spec": spec}
    seen = command_view(await kube.create(path, body))
    assert seen.open
    await kube.patch(f"{path}/c", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(Conflict):
        await cluster.answer_command(seen, "", 5.0)
    now = await cluster.get_command(seen)
    assert now is not None and now.open
    answered = await cluster.answer_command(now, "no \ud800 call: " + "é" * 2000, 5.0)
    assert answered == command_view(await kube.get(f"{path}/c")) and answered is not None
    assert (answered.answered, answered.command) == (5.0, None)
    await cluster.delete_command(replace(answered, uid="another"))
    assert (await kube.get(f"{path}/c"))["status"]["conditions"][0]["reason"] == "Rejected"
    await cluster.delete_command(answered)
    assert await cluster.answer_command(answered, "", 5.0) is None


async def test_an_event_is_told_once(kube: Kube, plane: ControlPlane, ns: str) -> None:
    run = await make_run(kube, ns)
    for _ in range(2):  # the second is the next leader
        cluster = cluster_of(kube)
        for _ in range(3):
            await cluster.record_event(run, "Warning", "PodRefused", "no \ud800 quota: " + "é" * 2000)
    (event,) = plane.get("-n", ns, "events")["items"]
    assert event["reason"] == "PodRefused" and len(event["message"].encode()) <= 1024
    assert "PodRefused" in plane.kubectl("-n", ns, "describe", "agentrun", "r").stdout
    for n in range(40):
        await cluster.record_event(run, "Normal", "Running", f"round {n}")
    assert len(plane.get("-n", ns, "events")["items"]) == 25
    await cluster.record_event(
        replace(run, ref=run.ref._replace(namespace="there-is-none"), uid="x"), "Normal", "R", ""
    )


async def test_nothing_is_written_by_who_does_not_lead(plane: ControlPlane, ns: str) -> None:
    def refuse() -> None:
        raise NotLeader("not we")

    async with Kube(Kubeconfig(str(plane.kubeconfig())), may_write=refuse) as kube:
        with pytest.raises(NotLeader):
            await make_run(kube, ns)
        with pytest.raises(NotLeader):
            await kube.delete_collection(PODS.format(ns))
        assert (await kube.list_all(RUNS.format(ns)))["items"] == []


async def test_a_list_of_many_pages_is_whole_and_calls_are_counted(plane: ControlPlane, ns: str) -> None:
    calls: list[tuple[str, str, int]] = []

    def count(verb: str, resource: str, code: int, seconds: float) -> None:
        assert seconds > 0
        calls.append((verb, resource, code))

    maps = f"/api/v1/namespaces/{ns}/configmaps"
    async with Kube(Kubeconfig(str(plane.kubeconfig())), on_call=count) as kube:
        names = {f"m{n}" for n in range(PAGE + 1)}
        await asyncio.gather(*(kube.create(maps, {"metadata": {"name": name}}) for name in names))
        found = await kube.list_all(maps)
        assert names <= {item["metadata"]["name"] for item in found["items"]} and found["metadata"]["resourceVersion"]
        with pytest.raises(NotFound):
            await kube.get(f"/apis/{API_VERSION}/namespaces/{ns}/agentruns/none/status")
        assert await kube.delete_collection(maps, fields="metadata.name=m1") == 1
    assert calls.count(("create", "configmaps", 201)) == PAGE + 1
    assert calls[-4:] == [
        ("list", "configmaps", 200),
        ("list", "configmaps", 200),
        ("get", "agentruns/status", 404),
        ("deletecollection", "configmaps", 200),
    ]


async def test_what_is_too_large_is_refused_for_good(kube: Kube, ns: str) -> None:
    for size in (1_700_000, 2_500_000, 4_000_000):
        body = {"apiVersion": API_VERSION, "kind": "AgentRun", "metadata": {"name": "big"}}
        inputs = {f"k{n}": "x" * 1000 for n in range(size // 1000)}
        with pytest.raises(Refused, match="large"):
            await kube.create(RUNS.format(ns), body | {"spec": {"workflowRef": {"name": "w"}, "inputs": inputs}})


class Rotating:
    """A login whose first tokens are refused."""

    def __init__(self, good: Access, bad: int) -> None:
        self.reads: list[bool] = []
        self._good, self._bad = good, bad

    def read(self, *, anew: bool = False) -> Access:
        self.reads.append(anew)
        return replace(self._good, token="old") if len(self.reads) <= self._bad else self._good


async def test_a_refused_token_is_read_anew_once(plane: ControlPlane, ns: str) -> None:
    good = Kubeconfig(str(plane.kubeconfig())).read()
    login = Rotating(good, 1)
    async with Kube(login) as kube:
        await asyncio.gather(*(kube.list_all(RUNS.format(ns)) for _ in range(10)))
    assert login.reads == [False, True]
    login = Rotating(good, 9)
    async with Kube(login) as kube:
        with pytest.raises(Unauthorized, match="401"):
            await kube.list_all(RUNS.format(ns))
    assert login.reads == [False, True]


async def test_a_pods_own_account(plane: ControlPlane, ns: str, tmp_path: Path) -> None:
    host, port = plane.url.removeprefix("https://").split(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    (tmp_path / "namespace").write_text(ns)
    (tmp_path / "ca.crt").write_bytes(plane.ca.read_bytes())
    with pytest.raises(NoAccess, match="automountServiceAccountToken"):
        InCluster(tmp_path, environ).read()
    (tmp_path / "token").write_text(plane.kubectl("-n", ns, "create", "token", "default").stdout)
    login = InCluster(tmp_path, environ)
    assert login.read().namespace == ns and "eyJ" not in repr(login.read())
    async with Kube(login) as kube:
        with pytest.raises(Refused, match=f"system:serviceaccount:{ns}:default"):
            await kube.get(f"/api/v1/namespaces/{ns}/pods/x")


async def test_a_kubeconfig_whose_user_is_a_program(plane: ControlPlane, ns: str, tmp_path: Path) -> None:
    """An exec plugin, as EKS has: run once, again when its token was refused, and missed by name when it fails."""
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    answer |= {"status": {"token": plane.token(), "expirationTimestamp": "2099-01-01T00:00:00Z"}}  # type: ignore[dict-item]
    plugin, told = tmp_path / "plugin", tmp_path / "told"
    plugin.write_text(f"#!/bin/sh\necho x >>{told}\ncat <<END\n{json.dumps(answer)}\nEND\n")
    plugin.chmod(0o700)
    document = plane.document("admin")
    program = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": str(plugin)}
    document["users"][0]["user"] = {"exec": program}
    document["contexts"][0]["context"]["namespace"] = ns
    (tmp_path / "config").write_text(json.dumps(document))
    login = Kubeconfig(str(tmp_path / "config"), "admin")
    async with Kube(login) as kube:
        await kube.list_all(RUNS.format(ns))
    assert login.read().namespace == ns and told.read_text() == "x\n"
    login.read(anew=True)
    assert told.read_text() == "x\nx\n"

    plugin.unlink()
    async with Kube(Kubeconfig(str(tmp_path / "config"))) as kube:
        with pytest.raises((Forbidden, Unauthorized), match="did its exec plugin fail"):
            await kube.list_all(RUNS.format(ns))
    for path, context in ((tmp_path / "config", "other"), (tmp_path / "none", None)):
        with pytest.raises(NoAccess, match=re.escape(str(path))):
            Kubeconfig(str(path), context).read()


async def test_a_server_that_is_away_for_a_moment(plane: ControlPlane, ns: str) -> None:
    """A connection that breaks before the answer: once more, and what was made shows as there already."""
    broken = itertools.count()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(broken) < 2:
            writer.transport.abort()
            return
        up = await asyncio.open_connection(*plane.url.removeprefix("https://").split(":"))
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, up[1]))
            group.create_task(_pump(up[0], writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    access = replace(Kubeconfig(str(plane.kubeconfig())).read(), server=address)
    async with Kube(Rotating(access, 0)) as kube:
        run = await make_run(kube, ns)
        assert await cluster_of(kube).get_run(run.ref) == run
    server.close()
    await server.wait_closed()
    async with Kube(Rotating(access, 0)) as kube:
        with pytest.raises(Unavailable, match="no connection"):
            await kube.get(RUNS.format(ns) + "/r")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_lease_on_the_api_server(plane: ControlPlane, kube: Kube, ns: str) -> None:
    ahead = 0.0
    line = KubernetesLease(kube, ns, "agentrun")
    one = Leader(line, "one")
    two = Leader(KubernetesLease(kube, ns, "agentrun"), "two", clock=lambda: boot_clock() + ahead)

    async def work() -> None:
        await asyncio.Event().wait()

    async def leads(leader: Leader) -> None:
        async def true() -> bool:
            return leader.is_leader()

        await until(true)

    def lease() -> Mapping[str, Any]:
        spec: Mapping[str, Any] = plane.get("-n", ns, "lease", "agentrun")["spec"]
        return spec

    first = asyncio.create_task(one.run(work))
    await leads(one)
    assert lease()["holderIdentity"] == "one" and lease()["leaseDurationSeconds"] == DURATION
    second = asyncio.create_task(two.run(work))
    await asyncio.sleep(PERIOD + 0.5)
    assert one.is_leader() and not two.is_leader()
    first.cancel()
    await asyncio.wait([first])
    await leads(two)  # released, so at the next look
    assert lease()["holderIdentity"] == "two" and lease()["leaseTransitions"] == 1 and not one.is_leader()
    first = asyncio.create_task(one.run(work))
    ahead = 20.0  # two was stopped for so long
    with pytest.raises(NotLeader):
        two.check()
    for task in (first, second):
        task.cancel()
    await asyncio.wait([first, second])
    assert not one.is_leader() and not two.is_leader()
