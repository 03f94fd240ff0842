"""What a cluster does to an operator and its steps: each has a named reason in the status, and an end."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import scenes
from tests.cluster.cluster import Cluster
from tests.cluster.component import until
from tests.cluster.operator import Operator, condition, processes
from tests.cluster.scenes import NOW, call, tool
from tests.e2e.toolhost import ToolHost, held, reply

ONCE_MORE = {"classes": ["Infrastructure", "RateLimited", "Provider", "Tool"], **NOW}


@pytest.fixture(autouse=True)
def ours(cluster: Cluster) -> None:
    """These hurt the cluster."""
    if cluster.node is None:
        pytest.skip("this breaks nodes and processes: only on a cluster of ours, not on one that a kubeconfig names")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets held tools answer, at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def message(operator: Operator, namespace: str, run: str, *wanted: str, seconds: float = 60) -> str:
    """What the run's status says once it has that reason."""
    found = operator.wait_for(namespace, run, *wanted, seconds=seconds)
    return str(condition(found, "Ready")["message"])


def test_pods_that_do_not_come_to_work_say_why(operator: Operator, namespace: str, tools: ToolHost) -> None:
    tools.on("/do", reply({}))
    made = [tool("do", f"{tools.url}/do", effect="Once")]

    def run(name: str, **step: Any) -> None:
        operator.apply(namespace, scenes.run(name, call("one", "do", **step), tools=made), user="admin")

    run("account", identity={"serviceAccountName": "payments"})
    run("image", image="localhost/no-such:1")
    run("room", nodeSelector={"disktype": "of-gold"})
    run("quota", resources={"requests": {"cpu": "10"}})
    assert 'serviceaccount "payments" not found' in message(operator, namespace, "account", "PodRefused")
    assert "localhost/no-such:1" in message(operator, namespace, "image", "ImagePullFailed")
    assert "node affinity/selector" in message(operator, namespace, "room", "Unschedulable")
    assert "Insufficient cpu" in message(operator, namespace, "quota", "Unschedulable")
    # what is mended goes on by itself; what is not, a person ends
    operator.kubectl("create", "serviceaccount", "payments", "-n", namespace)
    operator.wait_for(namespace, "account", "Succeeded", seconds=60)
    for name in ("image", "room", "quota"):
        operator.agentrun(namespace, "cancel", name)
    for name in ("image", "room", "quota"):
        operator.wait_for(namespace, name, "Cancelled", seconds=60)
    assert len(tools.asked("/do")) == 1


def test_a_namespace_without_the_store_s_secret_or_with_a_full_quota(
    operator: Operator, namespace: str, tools: ToolHost
) -> None:
    tools.on("/do", reply({}))
    made = [tool("do", f"{tools.url}/do", effect="Once")]
    hard = json.dumps({"spec": {"hard": {"pods": "0"}}})
    operator.kubectl("create", "quota", "none", "-n", namespace)
    operator.kubectl("patch", "quota", "none", "-n", namespace, "--type=merge", "-p", hard)
    operator.apply(namespace, scenes.run("full", call("one", "do"), tools=made))
    assert "exceeded quota" in message(operator, namespace, "full", "PodRefused")
    operator.kubectl("delete", "quota", "none", "-n", namespace)
    operator.wait_for(namespace, "full", "Succeeded", seconds=60)

    operator.kubectl("delete", "secret", "agentrun-store", "-n", namespace)
    operator.apply(namespace, scenes.run("poor", call("one", "do"), tools=made))
    assert "agentrun-store" in message(operator, namespace, "poor", "ContainerRefused")
    operator.agentrun(namespace, "cancel", "poor")
    operator.wait_for(namespace, "poor", "Cancelled", seconds=60)
    assert len(tools.asked("/do")) == 1


def test_pods_that_are_taken_away_are_followed_by_others(
    operator: Operator, namespace: str, tools: ToolHost, release: threading.Event
) -> None:
    """Deleted, evicted, killed: the journal says how far it came, and a `Once` call that may have been made is asked
    about, never made again.
    """
    tools.on("/read", held(release, reply({})))
    tools.on("/pay", held(release, reply({})))
    made = [tool("read", f"{tools.url}/read", effect="ReadOnly"), tool("pay", f"{tools.url}/pay", effect="Once")]
    for name in ("deleted", "evicted", "killed"):
        operator.apply(namespace, scenes.run(name, call("one", "read", retry=ONCE_MORE), tools=made))
    operator.apply(namespace, scenes.run("paying", call("one", "pay"), tools=made))
    until("the four calls", lambda: len(tools.asked()) == 4)
    [deleted] = operator.pods_of(namespace, "deleted")
    operator.kubectl("delete", "pod", deleted["metadata"]["name"], "-n", namespace, "--grace-period=0", "--force")
    [evicted] = operator.pods_of(namespace, "evicted")
    place = f"/api/v1/namespaces/{namespace}/pods/{evicted['metadata']['name']}/eviction"
    about = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": evicted["metadata"]["name"]}}
    operator.kubectl("create", "--raw", place, "-f", "-", input=json.dumps(about))
    for name in ("killed", "paying"):
        [pod] = operator.pods_of(namespace, name)
        operator_signal(pod["metadata"]["uid"])
    release.set()
    for name in ("deleted", "evicted", "killed"):
        done = operator.wait_for(namespace, name, "Succeeded", seconds=90)
        # who is asked to leave may finish the call in hand; who is killed may not
        assert done["status"]["steps"][0]["attempt"] == 2 or name != "killed"
    assert "resolve" in message(operator, namespace, "paying", "OutcomeUnknown", seconds=90)
    operator.agentrun(namespace, "resolve", "paying", "one", "--happened", "{}")
    operator.wait_for(namespace, "paying", "Succeeded", seconds=60)
    assert len(tools.asked("/pay")) == 1


def operator_signal(pod_uid: str) -> None:
    """SIGKILL the runner in a pod from outside, as the kernel does."""
    for process in processes(pod_uid, "agentrun.runner"):
        os.kill(process, signal.SIGKILL)


def test_a_step_that_takes_too_much_memory_says_so(operator: Operator, namespace: str, tools: ToolHost) -> None:
    tools.on("/do", reply({}))
    small = {"limits": {"memory": "16Mi"}}
    made = [tool("do", f"{tools.url}/do")]
    operator.apply(namespace, scenes.run("r", call("one", "do", resources=small, retry=ONCE_MORE), tools=made))

    def told(run: dict[str, object]) -> bool:
        return "out of memory with a limit of 16Mi" in json.dumps(run.get("status", {}))

    operator.wait_until(namespace, "r", told, "the word memory in the status", seconds=60)
    operator.agentrun(namespace, "cancel", "r")
    operator.wait_for(namespace, "r", "Cancelled", seconds=60)


@pytest.mark.timeout(600)
def test_leaders_come_and_go(operator: Operator, namespace: str, tools: ToolHost, release: threading.Event) -> None:
    """One is killed under load, the next one is paused and wakes up: nothing is lost, and no call is made twice."""
    names = [f"r{n}" for n in range(8)]
    tools.on("/first", reply({}))
    tools.on("/second", reply({}))
    made = [tool(name, f"{tools.url}/{name}", effect="Once") for name in ("first", "second")]
    steps = (call("first", "first"), call("second", "second", dependsOn=["first"]))
    operator.leader()
    operator.apply(namespace, *(scenes.run(name, *steps, tools=made) for name in names))
    until("the load to begin", lambda: len(tools.asked("/first")) > 1, patience=150)
    killed = operator.kill_leader()
    until("another leader", lambda: operator.holder() not in ("", killed), 60)
    for name in names:
        operator.wait_for(namespace, name, "Succeeded", seconds=90)
    assert len(tools.asked("/first")) == len(tools.asked("/second")) == len(names)

    operator.rolled_out()
    paused = until("a leader", operator.holder)
    operator.send(paused.rpartition("_")[0], signal.SIGSTOP)
    try:
        more = [f"s{n}" for n in range(3)]
        operator.apply(namespace, *(scenes.run(name, *steps, tools=made) for name in more))
        until("another leader", lambda: operator.holder() not in ("", paused), 60)
        for name in more:
            operator.wait_for(namespace, name, "Succeeded", seconds=90)
    finally:
        operator.send(paused.rpartition("_")[0], signal.SIGCONT)
    operator.apply(namespace, scenes.run("last", *steps, tools=made))
    operator.wait_for(namespace, "last", "Succeeded", seconds=90)
    count = len(names) + len(more) + 1
    assert len(tools.asked("/first")) == len(tools.asked("/second")) == count
    for name in (*names, *more, "last"):
        assert len(operator.pods_of(namespace, name)) <= 2


@pytest.mark.timeout(300)
def test_the_world_goes_away_for_a_while(
    cluster: Cluster, operator: Operator, namespace: str, tools: ToolHost, release: threading.Event
) -> None:
    """The API server is restarted, the kubelet and the store stop: what runs goes on, what cannot says why."""
    assert cluster.plane is not None and cluster.node is not None and cluster.outside is not None
    tools.on("/slow", held(release, reply({})))
    tools.on("/pay", reply({}))
    made = [tool("slow", f"{tools.url}/slow"), tool("pay", f"{tools.url}/pay", effect="Once")]
    steps = (call("slow", "slow"), call("pay", "pay", dependsOn=["slow"]))
    operator.apply(namespace, scenes.run("r", *steps, tools=made))
    until("the call", lambda: tools.asked("/slow"))
    cluster.node.kubelet.send(signal.SIGSTOP)
    try:
        cluster.plane.restart_api_server()
    finally:
        cluster.node.kubelet.send(signal.SIGCONT)
    cluster.outside.store.send(signal.SIGSTOP)
    try:
        # an API server that has just started knows the types, but for some seconds its admission policies do not
        without = scenes.run("without", call("pay", "pay"), tools=made)
        until("a run that is taken", lambda: not operator.apply(namespace, without, check=False).returncode, 90)
        release.set()
        operator.wait_for(namespace, "without", "StoreUnavailable", seconds=120)
    finally:
        cluster.outside.store.send(signal.SIGCONT)
    for name in ("r", "without"):
        operator.wait_for(namespace, name, "Succeeded", seconds=150)
    assert len(tools.asked("/pay")) == 2


def test_a_node_that_is_silent_for_a_while(
    cluster: Cluster, operator: Operator, namespace: str, tools: ToolHost, release: threading.Event
) -> None:
    """Its kubelet stops: the step is at work, and nobody hears of it. It comes back: nothing is begun again."""
    assert cluster.node is not None
    tools.on("/slow", held(release, reply({})))
    run = scenes.run("r", call("one", "slow"), tools=[tool("slow", f"{tools.url}/slow", effect="Once")])
    operator.apply(namespace, run)
    until("the call", lambda: tools.asked("/slow"))
    operator.wait_for(namespace, "r", "Running", step="one")
    cluster.node.kubelet.send(signal.SIGSTOP)
    try:
        assert "does not report" in message(operator, namespace, "r", "NodeSilent", seconds=80)
    finally:
        cluster.node.kubelet.send(signal.SIGCONT)
    cluster.node.wait()
    release.set()
    done = operator.wait_for(namespace, "r", "Succeeded", seconds=60)
    assert done["status"]["steps"][0]["attempt"] == 1 and len(tools.asked("/slow")) == 1


def test_what_nobody_may_touch(operator: Operator, namespace: str, tools: ToolHost, release: threading.Event) -> None:
    tools.on("/slow", held(release, reply({})))
    made = [tool("slow", f"{tools.url}/slow")]
    operator.apply(namespace, scenes.run("r", call("one", "slow"), tools=made))
    operator.wait_for(namespace, "r", "Running", step="one")
    for user in ("ana", "admin"):
        status = json.dumps({"status": {"phase": "Succeeded"}})
        words = ("patch", "agentrun", "r", "-n", namespace, "--type=merge", "-p")
        done = operator.kubectl(*words, status, "--subresource=status", user=user, check=False)
        assert done.returncode != 0 and "forbidden" in done.stderr.lower()
    done = operator.kubectl(*words, json.dumps({"spec": {"inputs": {"a": 1}}}), user="ana", check=False)
    assert "inputs cannot be changed once the run is created" in done.stderr
    release.set()
    operator.wait_for(namespace, "r", "Succeeded", seconds=60)


def test_a_namespace_that_goes_takes_its_runs_along(
    operator: Operator, namespace: str, tools: ToolHost, release: threading.Event
) -> None:
    tools.on("/slow", held(release, reply({})))
    tools.on("/fast", reply({}))
    made = [tool(name, f"{tools.url}/{name}") for name in ("slow", "fast")]
    other = operator.namespace()
    for name in ("a", "b"):
        operator.apply(other, scenes.run(name, call("one", "slow"), tools=made))
        operator.wait_for(other, name, "Running", step="one")
    operator.kubectl("delete", "namespace", other, "--wait=false")
    operator.apply(namespace, scenes.run("r", call("one", "fast"), tools=made))
    operator.wait_for(namespace, "r", "Succeeded", seconds=60)
    for name in ("a", "b"):
        operator.wait_gone(operator.runs, other, name, seconds=90)
