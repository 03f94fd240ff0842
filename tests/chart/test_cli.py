"""The command line on a cluster: a real API server with the chart's roles and policies, real users, the real operator.

There is no node, so the workflows here are of steps without a pod.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.cli.main import main
from agentrun.cli.on_cluster import commands, following
from agentrun.cli.on_cluster.approvals import approvals_of, decide
from agentrun.cli.on_cluster.backend import ClusterBackend
from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.cluster_run import ClusterRun as Run
from agentrun.cli.on_cluster.cluster_run import change, journal_of
from agentrun.cli.on_cluster.commands import command
from agentrun.kube.errors import REJECTED, Forbidden
from tests.chart.api import Api
from tests.chart.conftest import SYSTEM, until
from tests.cluster.control_plane import ControlPlane
from tests.servers import versitygw
from tests.servers.versitygw import S3Server

ROOT = Path(__file__).parents[2]
NAMESPACE = "support"
HELLO: dict[str, Any] = {
    "inputs": {"type": "object", "required": ["who"], "properties": {"who": {"type": "string"}}},
    "steps": [
        {
            "name": "ask",
            "approval": {
                "subject": "Greet ${inputs.who}?",
                "details": {"who": "${inputs.who}"},
                "approvers": {"groups": ["finance"]},
            },
        },
        {"name": "shipped", "dependsOn": ["ask"], "wait": {"signal": "shipped"}},
    ],
    "output": {"box": "${steps.shipped.output}"},
}
WAIT: dict[str, Any] = {
    "steps": [{"name": "shipped", "wait": {"signal": "shipped"}}],
    "output": {"box": "${steps.shipped.output}"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw.running(tmp_path_factory.mktemp("store")) as server:
        server.client.create_bucket(Bucket="journals")
        yield server


@pytest.fixture(scope="module")
def at_work(
    plane: ControlPlane, operator: Api, store: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[bytes]]:
    """The operator's process, under the ServiceAccount that the chart gives it."""
    folder = tmp_path_factory.mktemp("operator")
    document = plane.document("admin") | {"users": [{"name": "admin", "user": {"token": operator._token}}]}
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))
    (container,) = plane.get("deployment", "agentrun", "-n", SYSTEM)["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    environment = store.environment(folder / "none") | {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(folder / "kubeconfig"),
        "AGENTRUN_STORE": "s3://journals/test",
        "AGENTRUN_STEP_IMAGE": "registry.example/agentrun:1",
        "AGENTRUN_LEASE_NAMESPACE": SYSTEM,
        "AGENTRUN_ADMISSION_POLICIES": told["AGENTRUN_ADMISSION_POLICIES"],
        "AGENTRUN_LISTEN": "127.0.0.1:0",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentrun.adapters.operator"], env=environment, stdout=log, stderr=log
        )
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    assert process.wait(30) == 0, (folder / "log").read_text()[-3000:]


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Said]


@pytest.fixture
def type_(
    plane: ControlPlane,
    store: S3Server,
    at_work: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    """Types `kubectl agentrun WORDS` as a person in `support`, who may read the store."""
    for name, value in store.environment(tmp_path / "none").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AGENTRUN_STORE", raising=False)

    def type_(user: str, *words: str, namespace: str = NAMESPACE) -> Said:
        monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig(user)))
        monkeypatch.setattr(sys, "argv", ["kubectl-agentrun", *words, "-n", namespace])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, found.out, found.err)

    return type_


@pytest.fixture
def name(fresh: Iterator[str]) -> str:
    return f"cli-{next(fresh)}"


def file(folder: Path, *documents: tuple[str, str, dict[str, Any]], namespace: str | None = None) -> str:
    path = folder / "file.yaml"
    place = {"namespace": namespace} if namespace else {}
    path.write_text(
        yaml.safe_dump_all(
            {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": {"name": name, **place}, "spec": spec}
            for kind, name, spec in documents
        )
    )
    return str(path)


@pytest.fixture
def client_of(plane: ControlPlane) -> Iterator[Callable[[str], Client]]:
    """A client of a person's own."""
    made: list[Client] = []

    def client_of(user: str) -> Client:
        made.append(Client(str(plane.kubeconfig(user)), None))
        return made[-1]

    yield client_of
    for client in made:
        client.close()


def found(plane: ControlPlane, name: str) -> Run:
    return Run(plane.get("agentruns", name, "-n", NAMESPACE))


# -- a run from its file to its end -----------------------------------------------------------------------------------


def test_a_run_is_followed_decided_and_signalled_to_its_end(
    type_: Type, name: str, tmp_path: Path, store: S3Server, plane: ControlPlane, client_of: Callable[[str], Client]
) -> None:
    both = file(
        tmp_path,
        ("AgentWorkflow", name, HELLO),
        ("AgentRun", name, {"workflowRef": {"name": name}, "inputs": {"who": "Ana"}}),
    )
    said = type_("ana", "run", both, "-i", "who=Zoe")
    assert said.code == 3, said.err
    lines = said.out.splitlines()
    assert lines[:3] == [f"AgentWorkflow {name} applied", name, "ask: Waiting: approval: Greet Zoe?"]
    assert f"    kubectl agentrun approve {name} ask -n {NAMESPACE}" in lines
    assert "ask waits for group finance: Greet Zoe?" in lines
    assert found(plane, name).requester == "ana"

    own = type_("ana", "approve", name)
    assert own.code == 2 and "nobody decides on their own run: ask another one of the approvers" in own.err
    stranger = type_("eve", "reject", name, "ask")
    assert stranger.code == 2 and "eve is not among the approvers: ask one of the groups finance" in stranger.err
    approved = type_("ben", "approve", name, "--comment", "why not")
    assert approved.code == 0, approved.err
    assert "approved: ask: Greet Zoe?" in approved.out and '{"who": "Zoe"}' in approved.out
    [asked] = approvals_of(client_of("admin"), found(plane, name))
    assert asked["spec"]["digest"] in approved.out
    assert [d["by"] for d in asked["status"]["decisions"]] == ["ben"]

    wrong = type_("ana", "signal", name, "shiped")
    assert wrong.code == 2 and "its signals: shipped" in wrong.err
    assert type_("ana", "signal", name, "shipped", '{"n": 7}').code == 0
    ended = type_("ana", "resume", name, "-o", "json")
    assert ended.code == 0 and ended.object["status"]["output"] == {"box": {"n": 7}}
    assert "managedFields" not in ended.object["metadata"]

    shown = type_("ana", "show", name)
    assert shown.code == 0 and "requested  by ana" in shown.out
    assert "Approved by ben: why not" in shown.out and 'signal shipped by ana: {"n": 7}' in shown.out
    assert type_("ana", "audit", "verify", name).code == 0
    exported = type_("ana", "audit", "export", name)
    (tmp_path / "journal").write_text(exported.out)
    assert type_("ana", "audit", "verify", str(tmp_path / "journal")).code == 0
    assert type_("ana", "diff", name, name).code == 0
    again = type_("ana", "run", both)
    assert again.code == 2 and "give another name with --name" in again.err

    in_store = type_("ana", "show", name, "--store", "s3://journals/test", "-o", "json")
    assert in_store.code == 0 and in_store.object["status"]["output"] == {"box": {"n": 7}}
    assert name in type_("ana", "list", "--store", "s3://journals/test").out


def test_a_workflow_alone_runs_inline_and_a_rejection_fails_it(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane
) -> None:
    alone = file(tmp_path, ("AgentWorkflow", "greet", HELLO))
    missing = type_("ana", "run", alone)
    assert missing.code == 2 and "who" in missing.err
    detached = type_("ana", "run", alone, "-i", "who=Ana", "--name", f"{name}-d", "--detach")
    assert (detached.code, detached.out) == (0, f"{name}-d\n")
    assert type_("ana", "run", alone, "-i", "who=Ana", "--name", name).code == 3
    assert found(plane, name).spec["workflow"]["steps"][0]["name"] == "ask"
    assert type_("ben", "reject", name, "ask").out.startswith("rejected: ask: Greet Ana?")
    assert type_("ana", "logs", name, "-f").code == 0  # until it has ended
    ended = type_("ana", "resume", name)
    assert ended.code == 1 and "rejected by ben" in ended.err


def test_a_run_may_refer_to_a_workflow_that_is_on_the_cluster(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane
) -> None:
    alone = file(tmp_path, ("AgentRun", name, {"workflowRef": {"name": name}}))
    absent = type_("ana", "run", alone)
    assert absent.code == 2 and "neither in this file nor in namespace support" in absent.err
    plane.kubectl("apply", "-n", NAMESPACE, "-f", file(tmp_path, ("AgentWorkflow", name, HELLO)))
    alone = file(tmp_path, ("AgentRun", name, {"workflowRef": {"name": name}}))
    invalid = type_("ana", "run", alone)
    assert invalid.code == 2 and "who" in invalid.err
    said = type_("ana", "run", alone, "-i", "who=47", "-o", "json")
    assert said.code == 3 and said.object["spec"]["inputs"] == {"who": "47"}
    assert name in said.err.splitlines()[0]


def test_a_workflow_that_others_keep_is_not_changed_on_the_way(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane
) -> None:
    plane.kubectl("apply", "-n", NAMESPACE, "-f", file(tmp_path, ("AgentWorkflow", name, WAIT)))
    before = plane.get("agentworkflow", name, "-n", NAMESPACE)
    changed = {"steps": [{"name": "shipped", "wait": {"signal": "another"}}], "output": WAIT["output"]}
    for other, why in (
        (WAIT | {"output": {"another": "one"}}, "parts that are not in this file"),
        (changed, "others manage its fields"),
    ):
        ours = file(tmp_path, ("AgentWorkflow", name, other), ("AgentRun", name, {"workflowRef": {"name": name}}))
        said = type_("ana", "run", ours)
        assert said.code == 2 and why in said.err and "bring it up to date the way it was made" in said.err
    assert plane.get("agentworkflow", name, "-n", NAMESPACE)["spec"] == before["spec"]
    assert plane.kubectl("get", "agentruns", name, "-n", NAMESPACE, check=False).returncode != 0


def test_suspend_resume_cancel(type_: Type, name: str, tmp_path: Path) -> None:
    alone = file(tmp_path, ("AgentWorkflow", "wait", WAIT))
    assert type_("ana", "run", alone, "--name", name).code == 3
    refused = type_("ana", "resume", name)
    assert refused.code == 2 and "neither suspended nor parked" in refused.err
    assert type_("ana", "suspend", name).out == (
        f"{name} is suspended; continue with: kubectl agentrun resume {name} -n {NAMESPACE}\n"
    )
    assert "(it was already)" in type_("ana", "suspend", name).out
    assert "suspended by ana:" in type_("carl", "show", name).out
    resumed = type_("ben", "resume", name)
    assert resumed.code == 3 and f"{name} is no longer suspended" in resumed.out
    assert type_("ana", "cancel", name, "-o", "json").object["spec"]["cancel"] is True
    until("it is over", lambda: "Cancelled" in type_("carl", "show", name).out)
    told = type_("carl", "show", name).out
    for line in ("suspended by ana", "unsuspended by ben", "cancelled by ana", "cancelled  by ana"):
        assert line in told, told
    assert "unverified" not in told
    assert type_("ana", "suspend", name).code in (0, 2)


def test_of_two_who_suspend_at_once_the_first_has_done_it(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane
) -> None:
    alone = file(tmp_path, ("AgentWorkflow", "wait", WAIT))
    assert type_("ana", "run", alone, "--name", name).code == 3
    seen = Run(plane.get("agentrun", name, "-n", NAMESPACE))
    assert type_("ana", "suspend", name).code == 0
    with closing(Client(str(plane.kubeconfig("ben")), None)) as client:
        after = change(client, seen, "suspend", value=True)
        assert after.spec["suspend"] is True and after.changer("suspend") == "ana"
        other = Run(seen.obj | {"metadata": seen.obj["metadata"] | {"uid": "another"}})
        with pytest.raises(REJECTED):
            change(client, other, "suspend", value=False)


def test_a_fork_shares_the_past(type_: Type, name: str, tmp_path: Path, plane: ControlPlane) -> None:
    alone = file(tmp_path, ("AgentWorkflow", "greet", HELLO))
    assert type_("ana", "run", alone, "-i", "who=Ana", "--name", name).code == 3
    assert type_("ben", "approve", name).code == 0
    assert type_("ana", "signal", name, "shipped", "1").code == 0
    assert type_("ana", "resume", name).code == 0
    none = type_("ana", "fork", name, "--from", "nothing")
    assert none.code == 2 and "nothing" in none.err
    forked = type_("ana", "fork", name, "--from", "shipped", "--name", f"{name}-f")
    assert forked.code == 3 and f"kubectl agentrun approve {name}-f ask" in forked.out, "it asks again"
    made = found(plane, f"{name}-f")
    assert made.spec["source"] == {"run": name, "step": "shipped"} and made.spec["inputs"] == {"who": "Ana"}
    parted = type_("ana", "diff", name, f"{name}-f")
    assert parted.code == 1 and "shipped" in parted.out


# -- decisions --------------------------------------------------------------------------------------------------------


def test_two_people_who_decide_at_once_both_count(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane, client_of: Callable[[str], Client]
) -> None:
    asks = {"subject": "Go?", "approvers": {"groups": ["finance"]}, "required": 2}
    spec = {"steps": [{"name": "ask", "approval": asks}]}
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "go", spec)), "--name", name).code == 3
    carl = client_of("carl")
    [seen] = approvals_of(carl, found(plane, name))
    first = type_("ben", "approve", name)
    assert first.code == 0 and "ask: 1 of 2 people have approved" in first.out
    twice = type_("ben", "approve", name)
    assert twice.code == 2 and "you have already decided ask: Approved" in twice.err
    assert decide(carl, seen, "carl", "Approved", "") == 2  # as carl saw it before ben decided
    [after] = approvals_of(carl, found(plane, name))
    assert [entry["by"] for entry in after["status"]["decisions"]] == ["ben", "carl"]
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "go", spec)), "--name", f"{name}-2").code == 3
    with pytest.raises(Forbidden, match="may not decide in the name of ben"):
        decide(carl, approvals_of(carl, found(plane, f"{name}-2"))[0], "ben", "Approved", "")


def test_a_kubeconfig_that_impersonates_decides_as_that_person(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane, client_of: Callable[[str], Client]
) -> None:
    alone = file(tmp_path, ("AgentWorkflow", "greet", HELLO))
    assert type_("ana", "run", alone, "-i", "who=Ana", "--name", name).code == 3
    acting = plane.document("admin")
    acting["users"][0]["user"] |= {"as": "ben", "as-groups": ["finance", "system:authenticated"]}
    (tmp_path / "acting").write_text(yaml.safe_dump(acting))
    assert type_("eve", "approve", name, "--kubeconfig", str(tmp_path / "acting")).code == 0
    [asked] = approvals_of(client_of("admin"), found(plane, name))
    assert [d["by"] for d in asked["status"]["decisions"]] == ["ben"]


# -- commands ---------------------------------------------------------------------------------------------------------


def test_what_the_operator_takes_for_nothing_is_said_with_its_words(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane, client_of: Callable[[str], Client]
) -> None:
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name).code == 3
    plain = type_("ana", "resolve", name, "shipped", "--retry")
    assert plain.code == 2 and "shipped is Waiting, not OutcomeUnknown" in plain.err
    with pytest.raises(Refused, match="nothing to resolve"):
        command(client_of("admin"), found(plane, name), {"resolve": {"step": "shipped", "retry": True}})


def test_without_an_operator_a_command_stands_and_a_person_is_told(
    type_: Type,
    name: str,
    tmp_path: Path,
    plane: ControlPlane,
    at_work: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name).code == 3
    monkeypatch.setattr(commands, "PATIENCE", 0.3)
    at_work.send_signal(signal.SIGSTOP)
    try:
        said = type_("ana", "signal", name, "shipped")
        assert said.code == 4 and "no operator has answered AgentCommand" in said.err
    finally:
        at_work.send_signal(signal.SIGCONT)
    assert type_("ana", "resume", name, "--detach").code in (0, 2)


def test_an_unknown_outcome_is_resolved_for_the_very_call(
    type_: Type, name: str, tmp_path: Path, plane: ControlPlane, operator: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node runs its pod here, so the status is written as the operator would."""
    spec = {
        "tools": [{"name": "pay", "http": {"url": "http://127.0.0.1:1/pay"}}],
        "steps": [{"name": "refund", "tool": {"name": "pay", "args": {}}}],
    }
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "pay", spec)), "--name", name, "--detach").code == 0
    said = type_("admin", "logs", name)
    assert said.code == 0 and "there are no logs" in said.err  # its pod waits for a node
    waiting = {"resolve": "no answer is known", "tool": "pay", "callId": "refund-1"}
    told: list[dict[str, Any]] = []

    def find(*_: Any, **__: Any) -> Run:
        run = found(plane, name)
        entry = {"name": "refund", "state": "OutcomeUnknown", "waitingFor": waiting}
        run.obj["status"] = {"phase": "Stalled", "steps": [entry]}
        return run

    monkeypatch.setattr(ClusterBackend, "find", find)
    monkeypatch.setattr("agentrun.cli.on_cluster.backend.command", lambda client, run, verb: told.append(verb))
    assert type_("ana", "resolve", name, "refund", "--happened", '{"id": 3}').code == 0
    assert type_("ana", "resolve", name, "refund", "--give-up").code == 0
    assert told == [
        {"resolve": {"step": "refund", "callId": "refund-1", "happened": {"result": {"id": 3}}}},
        {"resolve": {"step": "refund", "callId": "refund-1", "giveUp": True}},
    ]


# -- looking ----------------------------------------------------------------------------------------------------------


def test_lists(type_: Type, name: str, tmp_path: Path) -> None:
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name).code == 3
    [row] = [line for line in type_("ana", "list").out.splitlines() if line.startswith(f"{name} ")]
    assert row.split()[1:5] == ["Waiting", "0/1", "shipped:", "signal"]
    assert [NAMESPACE, name] in [line.split()[:2] for line in type_("admin", "list", "-A").out.splitlines()]
    listed = type_("ana", "list", "-o", "json").object
    assert listed["kind"] == "List" and {item["kind"] for item in listed["items"]} == {"AgentRun"}
    assert "no runs in namespace nowhere" in type_("admin", "list", namespace="nowhere").err


def test_logs_of_pods_that_are_gone_are_the_stores(type_: Type, name: str, tmp_path: Path, plane: ControlPlane) -> None:
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name).code == 3
    assert "there are no logs" in type_("ana", "logs", name).err
    bucket, run = journal_of(found(plane, name))
    line = {"at": "2026-01-01T00:00:00Z", "event": "turn", "model": "m"}
    bucket.create(run.log(StepKey("shipped"), 1, 1), json.dumps(line).encode())
    said = type_("admin", "logs", name, "shipped")
    assert said.out == "00:00:00  shipped  turn model=m\n" and said.err == ""
    assert type_("admin", "logs", name, "nothing").code == 2
    assert type_("ana", "cancel", name).code == 0
    followed = type_("ana", "logs", name, "-f")
    assert followed.code == 0 and "turn model=m" in followed.out and "The role view permits it" in followed.err


def test_who_may_not_read_the_store_is_shown_the_status(
    type_: Type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name).code == 3
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    said = type_("ana", "show", name)
    assert said.code == 0 and "shipped   Waiting" in said.out
    assert len(said.err.splitlines()) == 1 and "the timeline is left out" in said.err
    assert type_("ana", "audit", "verify", name).code == 4


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_what_the_api_server_refuses_validate_says_by_line(type_: Type, name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "apiVersion: agentrun.dev/v1alpha1\nkind: AgentWorkflow\nmetadata:\n  name: w\n  labels:\n    team: 'a b'\n"
        "spec:\n  steps: [{name: s, wait: {signal: x}}]\n"
    )
    said = type_("ana", "validate", str(path))
    assert said.code == 2 and said.err.startswith(f"{path}:") and "metadata.labels" in said.err
    forbidden = file(tmp_path, ("AgentRun", name, {"workflow": WAIT, "identity": {"serviceAccountName": "payments"}}))
    said = type_("ana", "validate", forbidden)
    assert said.code == 2 and "may not run steps as the ServiceAccount payments" in said.err
    right = file(tmp_path, ("AgentRun", name, {"workflow": WAIT}))
    said = type_("ana", "validate", right, "-o", "json")
    assert said.code == 0 and "the cluster accepts it" in said.err and said.object["items"][0]["kind"] == "AgentRun"
    assert type_("ana", "show", name).code == 2  # nothing was made


def test_a_missing_role_is_named(type_: Type) -> None:
    said = type_("eve", "list", namespace="default")
    assert said.code == 2
    assert "kubectl create rolebinding agentrun-viewer-eve -n default --clusterrole=agentrun-viewer" in said.err


def test_a_run_that_is_not_there(type_: Type) -> None:
    said = type_("ana", "show", "nothing")
    assert said.code == 2 and 'there is no run "nothing" in namespace support' in said.err


def test_following_says_when_no_operator_comes(
    type_: Type,
    name: str,
    tmp_path: Path,
    at_work: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.5)
    said: list[str] = []

    def tell(place: Any, text: str = "") -> None:
        said.append(text)
        if "no operator has picked up the run" in text:
            at_work.send_signal(signal.SIGCONT)

    monkeypatch.setattr("agentrun.cli.terminal.board.tell", tell)
    at_work.send_signal(signal.SIGSTOP)
    try:
        ended = type_("ana", "run", file(tmp_path, ("AgentWorkflow", "wait", WAIT)), "--name", name)
    finally:
        at_work.send_signal(signal.SIGCONT)
    assert ended.code == 3 and [text for text in said if "no operator has picked up the run" in text]


def test_kubectl_knows_the_plugin(plane: ControlPlane, release: None, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-agentrun"
    plugin.write_text(f"#!{sys.executable}\nfrom agentrun.cli.main import main\nmain()\n")
    plugin.chmod(0o755)
    done = subprocess.run(
        [plane.programs / "kubectl", "agentrun", "list", "-n", "empty"],
        env={
            "PATH": f"{tmp_path}:{os.defpath}",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(plane.kubeconfig("admin")),
            "PYTHONPATH": str(ROOT / "operator"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "there are no runs in namespace empty of the cluster\n")
