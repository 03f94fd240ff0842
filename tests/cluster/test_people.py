"""What people decide, tell and change, on a real cluster: while no operator runs, and under another name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.access import Done
from tests.cluster.operator import SPACE, Operator
from tests.cluster.watching import Object

SIGNAL = {"name": "w", "wait": {"signal": "go"}}


def run(name: str, *steps: Object, **more: Any) -> Object:
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": name},
        "spec": {"workflow": {"steps": list(steps)}, **more},
    }


def question(seconds: int, **approvers: list[str]) -> Object:
    return {"name": "a", "approval": {"subject": "Go on?", "approvers": approvers, "timeout": f"{seconds}s"}}


@pytest.fixture
def away(operator: Operator) -> Iterator[Operator]:
    """The operator, which a test may take away."""
    yield operator
    scaled(operator, 2)


def scaled(operator: Operator, replicas: int) -> None:
    words = ("-n", SPACE, "scale", "deployment", "agentrun", f"--replicas={replicas}")
    operator.kubectl(*words)
    if replicas:
        operator.rolled_out()
    else:
        operator.kubectl(
            "-n", SPACE, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=agentrun", "--timeout=60s"
        )


def decided(operator: Operator, namespace: str, name: str, user: str, *words: str) -> Done:
    """A decision added to those that are there, by hand."""
    found = operator.cluster.get("approval", name, "-n", namespace)
    mine = {"by": user, "decision": "Rejected", "digest": found["spec"]["digest"]}
    decisions = [*found.get("status", {}).get("decisions", ()), mine]
    patch = json.dumps({"status": {"decisions": decisions}})
    place = ("patch", "approval", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    return operator.kubectl(*place, *words, user=user, check=False)


@pytest.mark.timeout(300)
def test_what_is_decided_in_time_while_no_operator_runs_counts(away: Operator, namespace: str) -> None:
    """Another decision after the end made it late, and the run failed because nobody had decided."""
    away.apply(namespace, run("r", question(30, groups=["finance"])), run("none", question(30, groups=["finance"])))
    for name in ("r", "none"):
        away.wait_for(namespace, name, "AwaitingApproval")
    scaled(away, 0)
    away.approve(namespace, "r")
    # the last to come is one who is late
    away.runs.wait(
        "the end of the time",
        60,
        lambda: "comes too late" in decided(away, namespace, "r-a", "carl", "--dry-run=server").stderr or None,
    )
    said = decided(away, namespace, "r-a", "carl").stderr
    assert "carl comes too late: this expired at" in said
    scaled(away, 2)
    away.wait_for(namespace, "r", "Succeeded")
    failed = away.wait_for(namespace, "none", "Failed")
    assert "nobody decided within 30s" in failed["status"]["message"]
    told = away.agentrun(namespace, "show", "r", store=True).stdout
    assert "Approved by ben" in told and "carl" not in told


def test_what_is_left_of_a_run_that_is_gone_goes(operator: Operator, namespace: str) -> None:
    """Nobody could delete such an Approval, not even an administrator of the cluster."""
    operator.apply(namespace, run("r", question(600, groups=["finance"])))
    operator.wait_for(namespace, "r", "AwaitingApproval")
    refused = operator.kubectl("delete", "approval", "r-a", "-n", namespace, check=False)
    assert "may not delete an approval" in refused.stderr
    operator.kubectl("delete", "agentrun", "r", "-n", namespace, "--cascade=orphan", user="ana")
    words = ("wait", "--for=delete", "approval/r-a", "-n", namespace, "--timeout=120s")
    operator.kubectl(*words)


def test_a_command_for_a_run_that_is_not_there_is_taken_by_none(operator: Operator, namespace: str) -> None:
    planted: Object = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentCommand",
        "metadata": {"name": "planted"},
        "spec": {"run": {"name": "later"}, "signal": {"name": "go", "payload": "planted"}},
    }
    alone = planted | {"metadata": {"name": "alone"}, "spec": planted["spec"] | {"run": {"name": "never"}}}
    operator.apply(namespace, planted, alone)
    operator.apply(namespace, run("later", SIGNAL))
    operator.wait_for(namespace, "later", "AwaitingSignal")
    names = ("agentcommand/alone", "agentcommand/planted")
    # Both forms stand in docs/reference/approvals.md.
    for answered in ("condition=Accepted=false", "jsonpath={.status.conditions}"):
        operator.kubectl("wait", f"--for={answered}", *names, "-n", namespace, "--timeout=120s")
    assert operator.run(namespace, "later")["status"]["phase"] == "Waiting"
    events = operator.cluster.get("events", "-n", namespace)["items"]
    said = {
        event["message"].partition(":")[0]: event["message"] for event in events if event["reason"] == "CommandRefused"
    }
    assert "it may be older than the run" in said["planted"]
    assert "there is no AgentRun never" in said["alone"]
    for name in ("planted", "alone"):
        (condition,) = operator.cluster.get("agentcommand", name, "-n", namespace)["status"]["conditions"]
        assert said[name] == f"{name}: {condition['message']}"
    operator.agentrun(namespace, "signal", "later", "go", "mine")
    done = operator.wait_for(namespace, "later", "Succeeded")
    commands = operator.cluster.get("agentcommands", "-n", namespace)["items"]
    (mine,) = [obj for obj in commands if obj["metadata"]["name"] not in ("planted", "alone")]
    assert mine["status"]["conditions"][0]["reason"] == "Recorded"
    assert done["status"]["steps"][0]["output"] == "mine"


def test_who_suspends_resumes_and_cancels_is_in_the_journal(operator: Operator, namespace: str) -> None:
    operator.apply(namespace, run("r", SIGNAL))
    operator.wait_for(namespace, "r", "AwaitingSignal")
    patch = ("patch", "agentrun", "r", "-n", namespace, "--type=merge", "-p")
    operator.kubectl(*patch, '{"spec":{"suspend":true,"ttlSecondsAfterFinished":3600}}', user="admin")
    operator.wait_for(namespace, "r", "Suspended")
    operator.kubectl(*patch, '{"spec":{"suspend":false}}', user="ana")
    operator.wait_for(namespace, "r", "AwaitingSignal")
    operator.agentrun(namespace, "cancel", "r")
    operator.wait_for(namespace, "r", "Cancelled")
    told = operator.agentrun(namespace, "show", "r", store=True).stdout
    for line in ("suspended by admin", "unsuspended by ana", "cancelled by ana", "set to 3600 s by admin"):
        assert line in told, told
    assert "unverified" not in told and "unknown" not in told


def test_an_editor_does_not_approve_what_they_made_as_a_service_account(operator: Operator, namespace: str) -> None:
    robot = f"system:serviceaccount:{namespace}:robot"
    operator.kubectl("create", "serviceaccount", "robot", "-n", namespace, user="ana")
    for name, words in {
        "robot": ("--clusterrole=agentrun-editor", f"--serviceaccount={namespace}:robot"),
        "ana": ("--clusterrole=agentrun-approver", "--user=ana"),
    }.items():
        operator.kubectl("create", "rolebinding", f"{name}-may", "-n", namespace, *words)
    asked = json.dumps(run("r", question(600, users=["ana"], groups=["finance"])))
    operator.kubectl("create", "-n", namespace, "-f", "-", f"--as={robot}", user="ana", input=asked)
    made = operator.wait_for(namespace, "r", "AwaitingApproval")
    assert made["metadata"]["annotations"]["agentrun.dev/requested-by"] == robot
    refused = operator.agentrun(namespace, "approve", "r", user="ana", check=False)
    # ana may make pods there as well: which of the policies speaks first is the API server's choice
    assert "ana may " in refused.stderr
    assert f"{robot}, who made the run r, and whoever may act as" in refused.stderr
    operator.approve(namespace, "r")
    operator.wait_for(namespace, "r", "Succeeded")
