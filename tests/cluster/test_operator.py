"""The operator as people use it: helm, kubectl and kubectl agentrun on a real cluster."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest
import yaml

from tests.cluster import scenes
from tests.cluster.access import Done
from tests.cluster.cluster import Cluster
from tests.cluster.operator import SPACE, Operator, condition, says, step_says
from tests.cluster.scenes import ask, call, tool
from tests.cluster.watching import Object
from tests.e2e.toolhost import Handler, ToolHost, held, reply

REFUND = "refund-4711"


@pytest.fixture(scope="module")
def refund(cluster: Cluster, operator: Operator) -> str:
    """A namespace in which the refund example waits for the sign-off."""
    namespace = operator.namespace()
    scenes.example(cluster, operator, namespace)
    operator.wait_for(namespace, REFUND, "AwaitingApproval")
    return namespace


def forged(operator: Operator, namespace: str, approval: str, user: str, *decisions: Object) -> Done:
    """A PATCH of an approval's decisions, as a person would forge one."""
    patch = json.dumps({"status": {"decisions": list(decisions)}})
    words = ("patch", "approval", approval, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    return operator.kubectl(*words, user=user, check=False)


def decision(approval: Object, by: str, **other: Any) -> Object:
    at = approval["metadata"]["creationTimestamp"]
    return {"by": by, "decision": "Approved", "digest": approval["spec"]["digest"], "at": at, **other}


def test_the_cluster_s_file_of_the_example_is_the_other_one_but_for_addresses() -> None:
    ours = (
        (scenes.EXAMPLES / "refund" / "cluster.yaml").read_text().replace("http://shop:8471", "http://127.0.0.1:8471")
    )
    workflow, run = yaml.safe_load_all(ours)
    [model] = workflow["spec"]["models"]
    assert model.pop("endpoint") == "http://model:8470/v1"
    assert model.pop("credentials") == {"secretRef": {"name": "model", "key": "key"}}
    run["metadata"] = {"generateName": "refund-"}
    assert [workflow, run] == list(yaml.safe_load_all((scenes.EXAMPLES / "refund" / "refund.yaml").read_text()))


def test_forged_decisions_on_the_example_are_refused(operator: Operator, refund: str) -> None:
    approval = operator.cluster.get("approval", f"{REFUND}-sign-off", "-n", refund)
    assert approval["spec"]["requestedBy"] == "ana"
    attempts = {
        "in the name of another": forged(operator, refund, f"{REFUND}-sign-off", "carl", decision(approval, "ben")),
        "of another digest": forged(
            operator, refund, f"{REFUND}-sign-off", "ben", decision(approval, "ben", digest=f"sha256:{'0' * 64}")
        ),
        "without the role": forged(operator, refund, f"{REFUND}-sign-off", "ana", decision(approval, "ana")),
        "by a stranger": operator.agentrun(refund, "approve", REFUND, user="eve", check=False),
        "as the operator": operator.kubectl(
            *("patch", "agentrun", REFUND, "-n", refund, "--subresource=status", "--type=merge"),
            *("-p", '{"status":{"phase":"Succeeded"}}'),
            user="ana",
            check=False,
        ),
    }
    for what, done in attempts.items():
        assert done.returncode != 0, what
        assert re.search("(?i)forbidden|may not|denied", done.stderr), (what, done.stderr)
    after = operator.cluster.get("approval", f"{REFUND}-sign-off", "-n", refund)
    assert "decisions" not in after.get("status", {})
    assert scenes.payments(operator, refund) == []


def test_the_refund_example(operator: Operator, refund: str) -> None:
    waiting = operator.run(refund, REFUND)
    assert waiting["metadata"]["annotations"]["agentrun.dev/requested-by"] == "ana"
    assert waiting["status"]["phase"] == "Waiting"
    assert {c["type"]: c["status"] for c in waiting["status"]["conditions"]} == {
        "Succeeded": "Unknown",
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
    }
    sign_off = next(step for step in waiting["status"]["steps"] if step["name"] == "sign-off")
    assert sign_off["waitingFor"]["approval"] == f"{REFUND}-sign-off"
    said = operator.approve(refund, REFUND, "--comment", "go ahead").stdout
    assert "approved: sign-off" in said, said
    for kind in ("Succeeded", "Ready"):
        words = ("wait", f"--for=condition={kind}", f"agentrun/{REFUND}", "-n", refund, "--timeout=90s")
        operator.kubectl(*words, user="ana")
    [payment] = scenes.payments(operator, refund)
    assert (payment["orderId"], payment["amount"]) == ("4711", 138.9)

    done = operator.run(refund, REFUND)
    status = done["status"]
    assert status["observedGeneration"] == done["metadata"]["generation"]
    assert status["phase"] == "Succeeded"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Succeeded": "True",
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }
    assert re.fullmatch("sha256:[0-9a-f]{64}", status["workflowDigest"])
    uid = done["metadata"]["uid"].replace("-", "")
    assert status["journal"].rstrip("/") == f"{operator.store_url}/{refund}/{REFUND}-{uid}"
    assert [(step["name"], step["state"]) for step in status["steps"]] == [
        *(("triage", "Succeeded"), ("sign-off", "Succeeded"), ("refund", "Succeeded"), ("note", "Succeeded"))
    ]
    assert status["usage"]["modelCalls"] == 3
    assert status["usage"]["toolCalls"] == 4
    assert float(status["usage"]["costUSD"]) > 0
    assert status["output"]["refunded"]["amount"] == 138.9
    assert status["startTime"] <= status["completionTime"]


def test_what_kubectl_shows_of_the_example(operator: Operator, refund: str) -> None:
    operator.wait_for(refund, REFUND, "Succeeded")
    head, row = operator.kubectl("get", "arun", "-n", refund, user="ana").stdout.splitlines()
    assert head.split() == ["NAME", "PHASE", "STEP", "WAITING", "REASON", "COST", "AGE"]
    assert row.split()[:3] == [REFUND, "Succeeded", "Succeeded"]
    told = operator.kubectl("describe", "arun", REFUND, "-n", refund, user="ana").stdout.partition("\nEvents:")[2]
    assert re.search("Normal +AwaitingApproval .*agentrun.dev/operator +sign-off: Refund 138.9", told), told
    pods = operator.pods_of(refund, REFUND)
    assert all(pod["spec"]["automountServiceAccountToken"] is False for pod in pods)
    mounts = [mount["mountPath"] for pod in pods for mount in pod["spec"]["containers"][0]["volumeMounts"]]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounts


def test_signal_suspend_and_resume(operator: Operator, namespace: str, tools: ToolHost) -> None:
    release = threading.Event()
    tools.on("/slow", held(release, reply({"n": 1})))
    tools.on("/next", reply({"n": 2}))
    steps = (
        {"name": "shipped", "wait": {"signal": "shipped"}},
        call("slow", "slow", dependsOn=["shipped"]),
        call("next", "next", dependsOn=["slow"]),
    )
    made = [tool(name, f"{tools.url}/{name}") for name in ("slow", "next")]
    operator.apply(namespace, scenes.run("r", *steps, tools=made, output={"by": "${steps.shipped.output}"}))
    operator.wait_for(namespace, "r", "AwaitingSignal")
    wrong = operator.agentrun(namespace, "signal", "r", "payed", check=False)
    assert wrong.returncode == 2
    assert "shipped" in wrong.stderr
    operator.agentrun(namespace, "signal", "r", "shipped", '{"by": "post"}')
    operator.wait_for(namespace, "r", "Running", step="slow")
    operator.agentrun(namespace, "suspend", "r")
    release.set()
    suspended = operator.wait_for(namespace, "r", "Suspended")
    assert step_says(suspended, "next") == {"Pending"}
    assert operator.agentrun(namespace, "show", "r", check=False).returncode in (0, 3)
    operator.agentrun(namespace, "resume", "r", "--detach")
    assert operator.wait_for(namespace, "r", "Succeeded")["status"]["output"] == {"by": {"by": "post"}}
    assert len(tools.asked("/next")) == 1


def test_cancel_compensates_and_runs_finally(operator: Operator, namespace: str, tools: ToolHost) -> None:
    for name in ("book", "unbook", "note"):
        tools.on(f"/{name}", reply({"ok": name}))
    made = [tool(name, f"{tools.url}/{name}", effect="Idempotent") for name in ("book", "unbook", "note")]
    steps = (call("book", "book", compensate={"name": "unbook", "args": {}}), ask("sign-off", dependsOn=["book"]))
    final = [call("note", "note", {"how": "${run.outcome}"})]
    operator.apply(namespace, scenes.run("r", *steps, tools=made, finally_=final))
    operator.wait_for(namespace, "r", "AwaitingApproval")
    operator.agentrun(namespace, "cancel", "r")
    ended = operator.wait_for(namespace, "r", "Cancelled")
    assert ended["status"]["phase"] == "Cancelled"
    assert condition(ended, "Succeeded")["status"] == "False"
    assert [asked.target for asked in tools.asked()] == ["/book", "/unbook", "/note"]
    assert tools.asked("/note")[0].json == {"how": "Cancelled"}
    approval = operator.cluster.get("approval", "r-sign-off", "-n", namespace)
    assert approval["status"]["conditions"][0]["reason"] == "Cancelled"


def test_an_unknown_outcome_is_resolved(operator: Operator, namespace: str, tools: ToolHost) -> None:
    tools.on("/pay", lambda handler: setattr(handler, "close_connection", True))
    steps = (call("pay", "pay"),)
    made = [tool("pay", f"{tools.url}/pay", effect="Once")]
    operator.apply(namespace, scenes.run("r", *steps, tools=made, output={"paid": "${steps.pay.output}"}))
    operator.wait_for(namespace, "r", "OutcomeUnknown")
    operator.agentrun(namespace, "resolve", "r", "pay", "--happened", '{"id": 7}')
    assert operator.wait_for(namespace, "r", "Succeeded")["status"]["output"] == {"paid": {"id": 7}}
    assert len(tools.asked("/pay")) == 1
    shown = operator.agentrun(namespace, "show", "r", store=True).stdout
    assert "ana" in shown, shown


def test_a_call_that_a_group_approves_is_made(operator: Operator, namespace: str, tools: ToolHost) -> None:
    """The runner knows no groups: it took no decision for an approver's, and was begun again and again."""
    tools.on("/pay", reply({"id": 7}))
    approval = {"approvers": {"groups": ["finance"]}, "timeout": "1h"}
    made = [tool("pay", f"{tools.url}/pay", effect="Once", approval=approval)]
    operator.apply(namespace, scenes.run("r", call("pay", "pay"), tools=made))
    operator.wait_for(namespace, "r", "AwaitingApproval")
    operator.approve(namespace, "r")
    done = operator.wait_for(namespace, "r", "Succeeded")
    assert done["status"]["steps"][0]["attempt"] == 2 and len(tools.asked("/pay")) == 1


def is_over(pod: Object) -> bool:
    """Whether its container has ended: the kubelet says so before it says that the pod has."""
    states = [container["state"] for container in pod["status"].get("containerStatuses", ())]
    return pod["status"].get("phase") in ("Succeeded", "Failed") or any("terminated" in state for state in states)


@pytest.mark.timeout(300)
def test_a_fan_out_keeps_to_its_width(operator: Operator, namespace: str, tools: ToolHost) -> None:
    now, most, lock, four = 0, 0, threading.Lock(), threading.Event()

    def answer(handler: Handler) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 4:
                four.set()
        four.wait(30)  # the first wait for one another
        with lock:
            now -= 1
        reply({"ok": True})(handler)

    tools.on("/one", answer)
    each = {"items": list(range(20)), "maxParallel": 4}
    made = [tool("one", f"{tools.url}/one")]
    operator.apply(namespace, scenes.run("r", call("each", "one", forEach=each), tools=made))
    together: list[int] = []

    def ended(pods: list[Object]) -> bool:
        together.append(sum(not is_over(pod) for pod in pods))
        return "Succeeded" in says(operator.runs.get(namespace, "r") or {})

    operator.wait_pods(namespace, ended, "the end of all", seconds=240)
    done = operator.run(namespace, "r")
    assert max(together) == 4
    assert most == 4
    [entry] = done["status"]["steps"]
    assert entry["items"] == {"Succeeded": 20}
    assert len(tools.asked("/one")) == 20


def test_a_workflow_is_pinned_when_the_run_begins(operator: Operator, namespace: str, tools: ToolHost) -> None:
    release = threading.Event()
    tools.on("/slow", held(release, reply({})))
    for name in ("first", "second"):
        tools.on(f"/{name}", reply({"from": name}))

    def version(name: str) -> Object:
        made = [tool("slow", f"{tools.url}/slow"), tool("next", f"{tools.url}/{name}")]
        steps = (call("slow", "slow"), call("next", "next", dependsOn=["slow"]))
        return scenes.workflow("w", *steps, tools=made, output="${steps.next.output}")

    operator.apply(namespace, scenes.run_of("early", "w"))
    missing = operator.wait_for(namespace, "early", "WorkflowNotFound")
    assert "w" in condition(missing, "Ready")["message"]
    operator.apply(namespace, version("first"), scenes.run_of("deleted", "w"))
    for name in ("early", "deleted"):
        operator.wait_for(namespace, name, "Running", step="slow")
    operator.apply(namespace, version("second"), scenes.run_of("edited", "w"))
    operator.wait_for(namespace, "edited", "Running", step="slow")
    operator.kubectl("delete", "agentworkflow", "w", "-n", namespace, user="ana")
    release.set()
    ended = {name: operator.wait_for(namespace, name, "Succeeded")["status"] for name in ("early", "deleted", "edited")}
    assert {name: status["output"]["from"] for name, status in ended.items()} == {
        "early": "first",
        "deleted": "first",
        "edited": "second",
    }
    assert ended["early"]["workflowDigest"] == ended["deleted"]["workflowDigest"] != ended["edited"]["workflowDigest"]


def test_what_validate_refuses_stalls_with_its_words(operator: Operator, namespace: str, tmp_path: Any) -> None:
    wrong = scenes.run("r", {"name": "pause", "wait": {"duration": "${steps.nowhere.output}"}})
    operator.apply(namespace, wrong)
    stalled = operator.wait_for(namespace, "r", "InvalidSpec")
    assert condition(stalled, "Stalled")["status"] == "True"
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(wrong))
    said = operator.agentrun(namespace, "validate", str(file), check=False)
    assert said.returncode == 2
    problem = said.stderr.strip().partition(": ")[2]
    assert problem.startswith("spec.workflow.steps[0].wait.duration: ")
    assert condition(stalled, "Stalled")["message"].startswith(problem)
    assert operator.pods_of(namespace, "r") == []


def test_where_a_step_runs(operator: Operator, namespace: str, cluster: Cluster, tools: ToolHost) -> None:
    tools.on("/who", reply({}))
    for name in ("runs", "pays"):
        operator.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _in(namespace, name)})
    node = cluster.get("nodes")["items"][0]["metadata"]["labels"]["kubernetes.io/hostname"]
    steps = (
        call("plain", "who"),
        call(
            "special",
            "who",
            identity={"serviceAccountName": "pays"},
            resources={"requests": {"cpu": "20m"}, "limits": {"memory": "300Mi"}},
            image=cluster.image,
            nodeSelector={"kubernetes.io/hostname": node},
            tolerations=[{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
        ),
    )
    made = [tool("who", f"{tools.url}/who")]
    run = scenes.run("r", *steps, tools=made, run={"identity": {"serviceAccountName": "runs"}})
    refused = operator.apply(namespace, run, check=False)
    assert refused.returncode != 0
    assert "serviceaccounts" in refused.stderr.lower(), refused.stderr
    rule = {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["runs", "pays"], "verbs": ["use"]}
    api = "rbac.authorization.k8s.io/v1"
    operator.cluster.apply({"apiVersion": api, "kind": "Role", "metadata": _in(namespace, "use"), "rules": [rule]})
    operator.kubectl("create", "rolebinding", "use", "-n", namespace, "--role=use", "--user=ana")
    operator.apply(namespace, run)
    operator.wait_for(namespace, "r", "Succeeded")
    [plain], [special] = (operator.pods_of(namespace, "r", name) for name in ("plain", "special"))
    assert plain["spec"]["serviceAccountName"] == "runs"
    spec = special["spec"]
    assert spec["serviceAccountName"] == "pays"
    assert spec["automountServiceAccountToken"] is False
    assert [volume for volume in spec["volumes"] if "projected" in volume] == []
    assert spec["nodeSelector"] == {"kubernetes.io/hostname": node}
    assert {"key": "batch", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    [container] = spec["containers"]
    assert container["image"] == cluster.image
    assert container["resources"]["limits"]["memory"] == "300Mi"
    assert container["resources"]["requests"]["cpu"] == "20m"


def _in(namespace: str, name: str) -> Object:
    return {"name": name, "namespace": namespace}


def test_a_run_that_ended_and_one_that_is_deleted(operator: Operator, namespace: str, tools: ToolHost) -> None:
    never = threading.Event()
    tools.on("/slow", held(never, reply({})))
    tools.on("/fast", reply({}))
    made = [tool(name, f"{tools.url}/{name}") for name in ("slow", "fast")]
    short = scenes.run("short", call("fast", "fast"), tools=made, run={"ttlSecondsAfterFinished": 1})
    operator.apply(namespace, short, scenes.run("deleted", call("slow", "slow"), tools=made))
    operator.wait_for(namespace, "deleted", "Running", step="slow")
    operator.wait_gone(operator.runs, namespace, "short")
    assert len(operator.journal(namespace, "short")) > 3
    [pod] = operator.pods_of(namespace, "deleted")
    operator.kubectl("delete", "agentrun", "deleted", "-n", namespace, user="ana")
    operator.wait_gone(operator.pods, namespace, pod["metadata"]["name"])
    assert len(operator.journal(namespace, "deleted")) > 1


def test_a_fork_goes_on_from_the_past_of_another(operator: Operator, namespace: str, tools: ToolHost) -> None:
    for name in ("first", "second"):
        tools.on(f"/{name}", reply({"from": name}))
    made = [tool(name, f"{tools.url}/{name}") for name in ("first", "second")]
    steps = (call("first", "first"), call("second", "second", dependsOn=["first"]))
    operator.apply(namespace, scenes.workflow("w", *steps, tools=made), scenes.run_of("old", "w"))
    operator.wait_for(namespace, "old", "Succeeded")
    operator.apply(namespace, scenes.run_of("new", "w", source={"run": "old", "step": "second"}))
    operator.wait_for(namespace, "new", "Succeeded")
    assert [asked.target for asked in tools.asked()] == ["/first", "/second", "/second"]


def test_one_replica_leads_and_helm_test_passes(operator: Operator) -> None:
    leading = {pod: _gauge(operator.metrics(pod), "agentrun_leader") for pod in operator.replicas()}
    assert sorted(leading.values()) == [0, 1]
    assert leading[operator.leader()] == 1
    tested = operator.cluster.helm("test", "agentrun", "-n", SPACE)
    assert "Succeeded" in tested.stdout


def _gauge(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def test_logs_of_a_step_before_and_after_its_pod_is_swept(operator: Operator, refund: str) -> None:
    operator.wait_for(refund, REFUND, "Succeeded")
    before = operator.agentrun(refund, "logs", REFUND, "triage", store=True).stdout
    assert before
    for pod in operator.pods_of(refund, REFUND):
        operator.wait_gone(operator.pods, refund, pod["metadata"]["name"])
    after = operator.agentrun(refund, "logs", REFUND, "triage", store=True).stdout
    assert after == before
    shown = operator.agentrun(refund, "show", REFUND, store=True).stdout
    for words in ("look_up_order", "approved", "ben", "pay_refund"):
        assert words in shown, shown
