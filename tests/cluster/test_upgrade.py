"""The operator is upgraded, removed and put back in the middle of runs: nothing is lost, no step's pod is restarted."""

from __future__ import annotations

import threading

from tests.cluster import scenes
from tests.cluster.cluster import Cluster
from tests.cluster.operator import SPACE, Operator
from tests.cluster.scenes import ask, call, tool
from tests.e2e.toolhost import ToolHost, held, reply

ENDED = ("Succeeded", "Failed", "Cancelled")


def images(operator: Operator) -> set[str]:
    """The images of the replicas."""
    pods = operator.cluster.get("pods", "-n", SPACE, "-l", "app.kubernetes.io/name=agentrun")["items"]
    return {pod["spec"]["containers"][0]["image"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}


def test_an_upgrade_in_the_middle_of_runs(
    operator: Operator, cluster: Cluster, namespace: str, tools: ToolHost
) -> None:
    release = threading.Event()
    for name in ("slow", "each"):
        tools.on(f"/{name}", held(release, reply({"from": name})))
    tools.on("/after", reply({"from": "after"}))
    made = [tool("after", f"{tools.url}/after"), tool("slow", f"{tools.url}/slow", effect="Once")]
    each = tool("each", f"{tools.url}/each")
    after = call("after", "after", dependsOn=["first"])
    operator.apply(
        namespace,
        scenes.run("long", call("first", "slow"), after, tools=made),
        scenes.run("asks", ask("first"), after, tools=made[:1]),
        scenes.run("wide", call("each", "each", forEach={"items": list(range(5)), "maxParallel": 2}), tools=[each]),
    )
    operator.wait_for(namespace, "asks", "AwaitingApproval")
    operator.pods.wait("three calls", 60, lambda: len(tools.asked()) >= 3)
    running = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in operator.pods.all(namespace)}
    assert len(running) == 3
    before = operator.holder()

    other = _another_tag(operator, cluster)
    operator.upgrade(
        "--set", f"image.tag={other}", "--set", "logLevel=debug", "--set", "steps.resources.limits.memory=300Mi"
    )
    assert {image.rpartition(":")[2] for image in images(operator)} == {other}
    operator.pods.wait("another leader", 60, lambda: operator.holder() not in ("", before))
    operator.approve(namespace, "asks")
    operator.wait_for(namespace, "asks", "Succeeded")
    assert {
        pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in operator.pods.all(namespace)
    }.items() >= running.items()
    release.set()
    for run in ("long", "wide"):
        ended = operator.wait_for(namespace, run, *ENDED)
        assert ended["status"]["phase"] == "Succeeded"
        assert all(step.get("attempt", 1) == 1 for step in ended["status"]["steps"])
    assert (len(tools.asked("/slow")), len(tools.asked("/each")), len(tools.asked("/after"))) == (1, 5, 2)
    [late] = operator.pods_of(namespace, "long", "after")
    assert late["spec"]["containers"][0]["resources"]["limits"]["memory"] == "300Mi"
    operator.upgrade()


def test_runs_outlive_the_release(operator: Operator, namespace: str, tools: ToolHost) -> None:
    tools.on("/after", reply({}))
    made = [tool("after", f"{tools.url}/after")]
    operator.apply(namespace, scenes.run("r", ask("first"), call("after", "after", dependsOn=["first"]), tools=made))
    operator.wait_for(namespace, "r", "AwaitingApproval")
    operator.cluster.helm("uninstall", "agentrun", "-n", SPACE, "--wait")
    operator.cluster.helm("uninstall", "agentrun-crds")
    assert operator.run(namespace, "r")["status"]["phase"] == "Waiting"
    operator.deploy()
    operator.approve(namespace, "r")
    operator.wait_for(namespace, "r", "Succeeded")


def _another_tag(operator: Operator, cluster: Cluster) -> str:
    """The tag of an image of the same content; the same one where we cannot name images."""
    repository, _, tag = cluster.image.rpartition(":")
    if cluster.node is None:
        return tag
    cluster.node.tag(cluster.image, f"{repository}:{tag}-next")
    return f"{tag}-next"
