"""What the command line does about clusters where none is needed: which place is meant, refusals, statuses."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.canonical import moment, timestamp
from agentrun.api.errors import Problem
from agentrun.api.facts import Usage
from agentrun.cli.main import main
from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.refusals import NotInstalled, fields_of, refusal_of
from agentrun.cli.verbs.show import step_table
from agentrun.journal.log import manifest_bytes
from agentrun.journal.paths import RunPath
from agentrun.journal.runs import NoSuchRun, find_run, list_runs
from agentrun.kube.errors import (
    AlreadyExists,
    BadRequest,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthorized,
    Unavailable,
)
from agentrun.kube.impersonation import acting_as
from agentrun.kube.status import read_status
from agentrun.query.past import Past
from agentrun.query.run_view import RunView as Run
from agentrun.query.status_form import in_form
from agentrun.records.waits import WAITS, MovedBy
from tests.harness.cli_store import PEOPLE, REFUND, Scene, Type, closed, request
from tests.harness.memory_store import MemoryStore


def kubeconfig(path: Path, server: str = "https://127.0.0.1:1", **user: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "t", **user}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
                "current-context": "here",
            }
        )
    )
    return path


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", list(words))
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


# -- which place is meant ---------------------------------------------------------------------------------------------


def test_as_a_plugin_a_cluster_is_meant_unless_a_store_is_named(
    scene: Scene,
    agentrun: Type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config")))
    assert typed(monkeypatch, "/usr/bin/kubectl-agentrun", "list") == 4
    assert "the API server at https://127.0.0.1:1 does not answer" in capsys.readouterr().err
    assert typed(monkeypatch, "kubectl-agentrun", "list", "--store", str(scene.folder)) == 0
    assert "no runs in namespace default of" in capsys.readouterr().err
    assert agentrun("list").code == 0
    assert agentrun("list", "--context", "here").code == 4
    assert agentrun("--kubeconfig", str(tmp_path / "config"), "list").code == 4


def test_a_store_and_a_cluster_are_not_one_place(agentrun: Type) -> None:
    said = agentrun("list", "--store", "x", "--context", "here")
    assert said.code == 2 and "give only one" in said.err


def test_a_context_that_is_not_there_is_named(agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config")))
    said = agentrun("list", "--context", "elsewhere")
    assert said.code == 2 and "elsewhere" in said.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["approve", "r", "--as-group", "x"], "the API server knows who you are"),
        (["resume", "r", "--secrets", "."], "Secrets from the run's namespace"),
        (["drive", "r"], "drive works on a store only"),
    ],
)
def test_what_means_nothing_on_a_cluster_is_refused_before_it_is_asked(
    agentrun: Type, words: list[str], why: str
) -> None:
    said = agentrun(*words, "--context", "here")
    assert said.code == 2 and why in said.err


def test_the_environment_of_one_machine_is_no_reason_to_refuse(
    agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config")))
    monkeypatch.setenv("AGENTRUN_SECRETS", str(tmp_path))
    assert agentrun("resume", "r", "--context", "here").code == 4


@pytest.mark.parametrize("server", ["nonsense", "https://[::1"])
def test_an_address_that_is_none_is_no_traceback(agentrun: Type, tmp_path: Path, server: str) -> None:
    said = agentrun("list", "--kubeconfig", str(kubeconfig(tmp_path / "config", server)))
    assert said.code in (2, 4) and said.err.startswith("agentrun: ")


# -- what the API server answers --------------------------------------------------------------------------------------


def status(code: int, message: str, **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("code", "body", "error", "words"),
    [
        (404, b"404 page not found\n", NotInstalled, "--namespace agentrun --create-namespace"),
        (404, status(404, 'agentruns "r" not found', details={"name": "r"}), NotFound, "r"),
        (409, status(409, "there", reason="AlreadyExists"), AlreadyExists, "there"),
        (409, status(409, "changed", reason="Conflict"), Conflict, "changed"),
        (401, status(401, "Unauthorized"), Unauthorized, "Log in again"),
        (403, status(403, "ValidatingAdmissionPolicy denied request: eve may not"), Forbidden, "eve may not"),
        (429, status(429, "busy"), Unavailable, "429"),
        (500, status(500, "etcdserver: request is too large"), Invalid, "too large"),
        (503, b"<html>no backend</html>", Unavailable, "no backend"),
        (422, status(422, "bad"), Invalid, "bad"),
        (418, b"", BadRequest, "418"),
    ],
)
def test_every_refusal_has_its_kind(code: int, body: bytes, error: type[Exception], words: str) -> None:
    found = refusal_of(read_status(code, body))
    assert type(found) is error and words in str(found)


@pytest.mark.parametrize(
    ("verb", "resource", "group", "role"),
    [
        ("list", "agentruns", "agentrun.dev", "agentrun-viewer"),
        ("create", "agentruns", "agentrun.dev", "agentrun-editor"),
        ("create", "agentcommands", "agentrun.dev", "agentrun-editor"),
        ("patch", "approvals/status", "agentrun.dev", "agentrun-approver"),
        ("get", "pods/log", "", "view"),
    ],
)
def test_a_missing_permission_names_the_role_that_has_it(verb: str, resource: str, group: str, role: str) -> None:
    said = (
        f'x is forbidden: User "eve@example.com" cannot {verb} resource "{resource}" in API group "{group}" '
        'in the namespace "support"'
    )
    found = str(refusal_of(read_status(403, status(403, said))))
    wanted = f"kubectl create rolebinding {role}-eve-example-com -n support --clusterrole={role} --user=eve@example.com"
    assert found == f"{said}. The role {role} permits it: {wanted}"


def test_over_all_namespaces_the_binding_is_the_clusters() -> None:
    said = 'User "eve" cannot list resource "agentruns" in API group "agentrun.dev" at the cluster scope'
    assert "kubectl create clusterrolebinding agentrun-viewer-eve --clusterrole" in str(
        refusal_of(read_status(403, status(403, said)))
    )


def test_a_refused_field_is_a_place_in_the_file() -> None:
    causes = [{"field": "spec.steps[1].when", "message": "no"}, {"field": "<nil>", "message": "all"}, {"message": "x"}]
    found = refusal_of(read_status(422, status(422, "bad", details={"causes": causes})))
    assert isinstance(found, Invalid)
    assert fields_of(found) == [Problem(("spec", "steps", 1, "when"), "no"), Problem((), "all")]
    said = status(400, 'strict decoding error: unknown field "spec.steps[0].agent.tool"')
    strict = refusal_of(read_status(400, said))
    assert isinstance(strict, BadRequest)
    assert [problem.path for problem in fields_of(strict)] == [("spec", "steps", 0, "agent", "tool")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: (
        st.lists(x) | st.dictionaries(st.sampled_from(["message", "details", "causes", "field", "name", "reason"]), x)
    ),
    max_leaves=8,
)


@given(st.integers(400, 599), JSON.map(lambda found: json.dumps(found).encode()) | st.binary())
def test_no_answer_is_a_defect_of_ours(code: int, body: bytes) -> None:
    found = refusal_of(read_status(code, body))
    assert not isinstance(found, ClusterError) or isinstance(fields_of(found), list)


# -- in whose name ----------------------------------------------------------------------------------------------------


def test_a_kubeconfig_that_acts_for_another_is_obeyed(tmp_path: Path) -> None:
    given_: dict[str, Any] = {
        "as": "ben",
        "as-groups": ["finance", "ops"],
        "as-uid": "7",
        "as-user-extra": {"a/b": ["c"]},
    }
    file = kubeconfig(tmp_path / "config", **given_)
    wanted = [
        ("Impersonate-User", "ben"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "finance"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-a%2Fb", "c"),
    ]
    assert acting_as(str(file), None, {}) == wanted
    assert acting_as(str(file), "here", {}) == wanted
    assert acting_as(str(file), "elsewhere", {}) == []
    assert acting_as(str(kubeconfig(tmp_path / "plain")), None, {}) == []
    several = os.pathsep.join([str(tmp_path / "missing"), str(file), str(tmp_path / "plain")])
    assert acting_as(None, None, {"KUBECONFIG": several}) == wanted


# -- what a status says -----------------------------------------------------------------------------------------------


def run_of(*entries: dict[str, Any], phase: str = "Waiting", reason: str = "AwaitingApproval", **more: Any) -> Run:
    found = {
        "observedGeneration": 1,
        "phase": phase,
        "conditions": [{"type": "Ready", "reason": reason}],
        "steps": [{"name": f"s{n}", **entry} for n, entry in enumerate(entries)],
        **more,
    }
    return Run({"metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 1}, "spec": {}, "status": found})


ASKS = {"state": "Waiting", "waitingFor": {"approval": "r-s0", "subjects": ["?"]}}
RUNS = {"state": "Running"}
TIMER = {"state": "Waiting", "waitingFor": {"until": "2030-01-01T00:00:00Z"}}
AGAIN = {"state": "Waiting", "waitingFor": {"retry": "2030-01-01T00:00:00Z"}}
PULLS = {"state": "Pending", "waitingFor": {"pod": "no image"}}


@pytest.mark.parametrize(
    ("run", "waits"),
    [
        (run_of(ASKS), True),
        (run_of(ASKS, RUNS), False),
        (run_of(ASKS, TIMER), False),
        (run_of(ASKS, AGAIN), False),
        (run_of(TIMER, reason="AwaitingTimer"), False),
        (run_of(PULLS, reason="ImagePullFailed"), False),
        (run_of({"state": "Pending"}, phase="Running", reason="Running"), False),
        (run_of({"state": "OutcomeUnknown", "waitingFor": {"resolve": "?"}}, phase="Stalled"), True),
        (run_of(phase="Stalled", reason="InvalidSpec"), True),
        (run_of(reason="WorkflowNotFound"), True),
        (run_of(reason="StoreUnavailable"), False),
        (run_of(phase="Suspended", reason="Suspended"), True),
        (run_of(ASKS, phase="Succeeded", completionTime="x"), False),
        (run_of(ASKS, observedGeneration=0), False),
    ],
)
def test_a_run_waits_for_a_person_when_nothing_moves_without_one(run: Run, waits: bool) -> None:
    assert run.waits_for_person is waits


@pytest.mark.parametrize("kind", WAITS)
def test_who_moves_a_wait_says_whether_a_run_waits_for_a_person(kind: str) -> None:
    run = run_of({"state": "Waiting", "waitingFor": {kind: "?"}})
    assert run.waits_for_person is (WAITS[kind].moved_by is MovedBy.PERSON)


# -- a cluster's run in a store ---------------------------------------------------------------------------------------


def cluster_run(scene: Scene, name: str = "c1", at: float | None = None, **changes: Any) -> RunPath:
    """A run as an operator leaves it in the store: without an object for its name."""
    made = scene.run(f"{name}-made", PEOPLE)
    manifest = json.loads(scene.store.get(made.manifest)) | {
        "name": name,
        "uid": uuid.uuid4().hex,
        "createdAt": timestamp(at or time.time()),
        "cluster": True,
        **changes,
    }
    manifest.pop("hash")
    run = RunPath(manifest["namespace"], name, manifest["uid"])
    scene.store.create(run.manifest, manifest_bytes(manifest))
    (scene.folder / made.name_key).unlink()
    return run


def test_the_newest_run_of_that_name_is_found_and_all_are_listed(scene: Scene) -> None:
    old, new = cluster_run(scene, at=1e9), cluster_run(scene, at=2e9)
    other = cluster_run(scene, "c1-x")
    assert find_run(scene.store, "default", "c1") == new
    assert sorted(map(str, list_runs(scene.store, None))) == sorted(map(str, [old, new, other]))


def test_what_a_death_left_on_one_machine_is_no_run(scene: Scene) -> None:
    cluster_run(scene, cluster=False)
    with pytest.raises(NoSuchRun):
        find_run(scene.store, "default", "c1")
    assert list_runs(scene.store, None) == []


def test_a_damaged_run_of_a_cluster_is_listed_as_damaged(scene: Scene, agentrun: Type) -> None:
    run = cluster_run(scene)
    (scene.folder / run.manifest).write_text("{}")
    said = agentrun("list")
    assert said.code == 0 and str(run) in said.err
    assert agentrun("show", "c1").code == 1


def test_a_run_of_a_cluster_is_shown_and_told_nothing(scene: Scene, agentrun: Type) -> None:
    run = cluster_run(scene, requestedBy=None)
    scene.event(run, "approvalRequested", step="ask", request=request("Go?", digest="sha256:aa"))
    said = agentrun("show", "c1")
    assert said.code == 0 and "kubectl agentrun show c1 -n default" in said.out
    assert "an unknown user" in said.out and "agentrun approve c1" not in said.out and "resume c1" not in said.out
    assert "ask: approval" in agentrun("list").out
    before = sorted(scene.store.list(""))
    for words in (
        ["approve", "c1", "--as-group", "ops"],
        ["reject", "c1", "--as-group", "ops"],
        ["signal", "c1", "shipped"],
        ["resume", "c1"],
        ["suspend", "c1"],
        ["cancel", "c1"],
        ["resolve", "c1", "ask", "--retry"],
        ["drive", "c1"],
    ):
        refused = agentrun(*words)
        assert refused.code == 2 and "kubectl agentrun VERB c1 -n default" in refused.err, words
    assert sorted(scene.store.list("")) == before


def test_a_fork_of_it_on_one_machine_is_driven_here(scene: Scene, agentrun: Type) -> None:
    cluster_run(scene)
    said = agentrun("fork", "c1", "--from", "ask", "--name", "mine")
    assert said.code == 3 and "agentrun approve mine ask" in said.out
    assert agentrun("cancel", "mine").code == 0


# -- on one machine ---------------------------------------------------------------------------------------------------


def test_what_only_a_cluster_obeys_is_said_once(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    spec = {"workflow": PEOPLE, "identity": {"serviceAccountName": "x"}, "ttlSecondsAfterFinished": 5}
    document = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": {"name": "w"}, "spec": spec}
    (tmp_path / "file.json").write_text(json.dumps(document))
    said = agentrun("run", str(tmp_path / "file.json"))
    assert said.err.count("identity, ttlSecondsAfterFinished: only a cluster uses this") == 1


def test_the_command_that_goes_on_has_a_place_for_the_secrets(
    scene: Scene, agentrun: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"secretRef": {"name": "model-key", "key": "k"}}
    models = [{**REFUND["models"][0], "credentials": key}, *REFUND["models"][1:]]
    run = scene.run(workflow=REFUND | {"models": models})
    scene.step(run, "triage", closed("yes"))
    assert agentrun("suspend", "r1").out.endswith("continue with: agentrun resume r1 --secrets DIR\n")
    monkeypatch.setenv("AGENTRUN_SECRETS", "/")
    assert agentrun("suspend", "r1").out.endswith("continue with: agentrun resume r1 (it was already)\n")


GOOD: dict[str, Any] = {
    "metadata": {"name": "good", "namespace": "n", "creationTimestamp": "2027-01-31T09:00:00Z"},
    "spec": {},
    "status": {"phase": "Running", "steps": [{"name": "a", "state": "Running"}], "usage": Usage().to_json()},
}


@pytest.mark.parametrize(
    "bad",
    [
        {"spec": None, "unreadable": "spec.inputs is nested deeper than 200 levels"},
        {"status": {"steps": 7}},
        {"status": {"steps": [{"name": "a"}]}},
        {"status": {"steps": [{"name": "a", "state": "Nowhere"}]}},
        {"status": {"steps": [{"name": "a", "state": "Waiting", "waitingFor": {}}]}},
        {"status": {"usage": []}},
        {"status": {"phase": ["x"], "steps": None}},
        {"status": {"completionTime": "0000-01-01T00:00:00Z"}},
    ],
)
def test_an_object_that_anybody_wrote_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: dict[str, Any]
) -> None:
    objects = [GOOD, GOOD | {"metadata": GOOD["metadata"] | {"name": "bad"}} | bad]
    monkeypatch.setattr(Client, "list_all", lambda _, path: objects)
    assert typed(monkeypatch, "agentrun", "list", "--context", "here", "-n", "n") == 0
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1] for line in said.out.splitlines()}
    assert rows == {"NAME": "PHASE", "good": "Running", "bad": "Unreadable"}
    assert "run bad in n: " in said.err


WHEN = "2027-01-31T09:00:00Z"
FAILURE = {"class": "Tool", "message": "it broke", "retryAfter": 1.5, "retryable": True, "happened": True}
WAITINGS: list[dict[str, Any]] = [
    {"approval": "r-a", "subjects": ["Go?"]},
    {"resolve": "did it happen?", "tool": "pay", "callId": "call"},
    {"retry": WHEN, "because": "it broke"},
    {"until": WHEN},
    {"signal": "go"},
    {"resume": "lost"},
]
WHOLE: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Running",
    "workflowDigest": "sha256:aa",
    "startTime": WHEN,
    "completionTime": WHEN,
    "conditions": [
        {"type": "Ready", "status": "False", "reason": "Running", "message": "", "lastTransitionTime": WHEN}
    ],
    "usage": Usage().to_json(),
    "steps": [
        {"name": "f", "state": "Running", "items": {"Running": 1}},
        {"name": "f[0]", "state": "Failed", "attempt": 1, "startedAt": WHEN, "finishedAt": WHEN, "failure": FAILURE},
        *({"name": f"w{n}", "state": "Waiting", "waitingFor": waiting} for n, waiting in enumerate(WAITINGS)),
    ],
    "output": {"any": ["thing"]},
    "journal": "s3://bucket/prefix/n/r-" + "0" * 32,
    "message": "all is well",
}
"""A status with each of the fields that the operator writes."""

ODD: tuple[Any, ...] = (None, [], {}, [[]], 7, True, "", "0000-01-01T00:00:00Z", "\x1b[2J")


def variants(value: Any, odd: tuple[Any, ...] = ODD) -> Iterator[Any]:
    """``value`` with one place left out or replaced, for every place."""
    yield from odd
    if isinstance(value, dict):
        for name in value:
            yield {key: part for key, part in value.items() if key != name}
            yield from (value | {name: other} for other in variants(value[name], odd))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in variants(part, odd))


def test_a_status_that_the_operator_writes_is_whole() -> None:
    assert in_form(WHOLE) == (WHOLE, None)
    assert in_form(None) == ({}, None)


def test_what_is_left_of_a_status_has_the_form() -> None:
    for status in variants(WHOLE):
        found, why = in_form(status)
        assert in_form(found) == (found, None), (status, why)
        assert why is not None or found == (status or {})


def test_a_status_that_anybody_wrote_gives_no_verb_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``list`` reads them all at once; the other verbs one after the other, over a journal that is out of reach."""
    monkeypatch.setattr("agentrun.cli.on_cluster.cluster_run.open_store", lambda url: MemoryStore())
    going_on = {key: value for key, value in WHOLE.items() if key != "completionTime"}
    statuses = [*variants(WHOLE, ODD[-3:]), *variants(going_on, ODD[:4])]
    answers = Answers(monkeypatch, going(), [])
    objects = [going() | {"status": status} for status in statuses]
    with monkeypatch.context() as listing:
        listing.setattr(Client, "list_all", lambda _, path: objects)
        assert typed(monkeypatch, "agentrun", "list", "--context", "here", "-n", "n") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(objects)
    for answers.run in objects:
        for verb, codes in (("show r", {0}), ("approve r w0", {2}), ("resolve r w1 --give-up", {0, 2, 4})):
            answers.gone = False
            code = typed(monkeypatch, "agentrun", *verb.split(), "--context", "here", "-n", "n")
            said = capsys.readouterr()
            assert code in codes and "Traceback" not in said.err, (verb, answers.run["status"], said.err)
            assert "\x1b" not in said.out + said.err
    answers.run = going() | {"status": WHOLE | {"completionTime": "0000-01-01T00:00:00Z"}}
    typed(monkeypatch, "agentrun", "show", "r", "--context", "here", "-n", "n")
    assert 'status.completionTime is "0000-01-01T00:00:00Z"' in capsys.readouterr().out


NOWHERE = ("", "x", "s3://", "s3://b", "s3://b/n/r", "file:///etc/passwd", f"s3:///n/r-{'0' * 32}")


@pytest.mark.parametrize("journal", NOWHERE)
def test_a_journal_that_is_nowhere_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], journal: str
) -> None:
    Answers(monkeypatch, going(journal=journal), [])
    assert typed(monkeypatch, "agentrun", "audit", "verify", "r", "--context", "here", "-n", "n") == 2
    assert "journal" in capsys.readouterr().err


def test_an_approval_that_nobody_can_read_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = asking("late")
    bad = good | {
        "metadata": good["metadata"] | {"name": "bad"},
        "spec": good["spec"] | {"expiresAt": "0000-01-01T00:00:00Z"},
    }
    Answers(monkeypatch, going(), [bad, good])
    assert typed(monkeypatch, "agentrun", "approve", "r", "late", "--context", "here", "-n", "n") == 0
    assert "without the Approval bad" in capsys.readouterr().err


def test_the_time_of_a_step_that_the_runs_end_cut_short_ends_with_the_run() -> None:
    step = {"name": "slow", "state": "Cancelled", "attempt": 1, "startedAt": "2030-01-01T00:00:00Z"}
    ended = {"steps": [step], "completionTime": "2030-01-01T00:00:07Z"}
    later = moment("2030-02-01T00:00:00Z")
    assert "7.0s" in step_table(ended, Past(), None, later)[1]
    assert "7.0s" not in step_table({"steps": [step]}, Past(), None, later)[1]


# -- one thing after the other ----------------------------------------------------------------------------------------


class Answers:
    """An API server with one run: what each request is answered, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], approvals: list[dict[str, Any]]) -> None:
        self.run, self.approvals, self.asked, self.gone = run, approvals, list[str](), False
        monkeypatch.setattr(Client, "get", lambda _, path, **query: self._get(path))
        monkeypatch.setattr(Client, "list_all", lambda _, path, labels="": self.approvals)
        monkeypatch.setattr(Client, "user", lambda _: "ana")
        monkeypatch.setattr(Client, "patch", lambda _, path, change: self._patch(path, change))

    def _get(self, path: str) -> dict[str, Any]:
        self.asked.append(f"GET {path.rpartition('/')[2]}")
        if self.gone:
            raise NotFound("not found")
        if path.endswith("/r"):
            return self.run
        raise Forbidden("may not")

    def _patch(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        self.asked.append("PATCH")
        self.gone = True  # the run ends at once, and is deleted
        if "spec" in change:
            return self.run | {"spec": self.run["spec"] | change["spec"]}
        return self.approvals[0] | {"status": change["status"]}


def going(**more: Any) -> dict[str, Any]:
    meta = {
        "name": "r",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2027-01-31T09:00:00Z",
    }
    spec = {"workflowRef": {"name": "w"}}
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running", "steps": [], **more}}


@pytest.mark.parametrize(("verb", "said"), [("cancel", "r is being cancelled"), ("suspend", "r is suspended")])
def test_what_was_done_is_said_though_the_run_is_gone_by_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, said: str
) -> None:
    answers = Answers(monkeypatch, going(), [])
    assert typed(monkeypatch, "agentrun", verb, "r", "--context", "here", "-n", "n") == 0
    assert said in capsys.readouterr().out and answers.asked == ["GET r", "PATCH"]


def asking(step: str) -> dict[str, Any]:
    spec = {
        "run": {"name": "r", "uid": "u"},
        "step": step,
        "subject": "Go?",
        "digest": "sha256:aa",
        "approvers": {"groups": ["ops"], "somethingNewer": 1},
        "required": 1,
        "expiresAt": "2030-01-01T00:00:00Z",
    }
    metadata = {"name": f"r-{step}", "namespace": "n", "uid": "a", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": spec}


def test_an_approval_is_decided_though_the_status_does_not_have_its_step_yet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers(monkeypatch, going(steps=[{"name": "early", "state": "Running"}]), [asking("late")])
    assert typed(monkeypatch, "agentrun", "approve", "r", "late", "--context", "here", "-n", "n") == 0
    assert "approved: late: Go?" in capsys.readouterr().out and answers.asked == ["GET r", "PATCH"]
    answers.gone = False
    assert typed(monkeypatch, "agentrun", "approve", "r", "nowhere", "--context", "here", "-n", "n") == 2
    assert 'run r has no step "nowhere"; it has early' in capsys.readouterr().err


def test_a_name_that_no_signal_can_have_is_refused_though_the_workflow_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Answers(monkeypatch, going(), [])
    assert typed(monkeypatch, "agentrun", "signal", "r", "Go", "--context", "here", "-n", "n") == 2
    assert '"Go" is not the name of a signal' in capsys.readouterr().err
