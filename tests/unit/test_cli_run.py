from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.keys import StepKey
from agentrun.cli.inputs import read_inputs
from agentrun.cli.on_store.starting import _free
from agentrun.journal.log import StepLog
from agentrun.journal.records import Record
from agentrun.journal.runs import find_run, read_manifest
from agentrun.query.stored_run import StoredRun
from agentrun.records.step_records import Kind
from agentrun.runner.process_id import this_process
from tests.harness.cli_store import PEOPLE, REFUND, Scene, Type

SCHEMA = {
    "type": "object",
    "required": ["text"],
    "$defs": {"word": {"type": "string"}},
    "properties": {
        "text": {"type": "string", "pattern": "^[0-9]+$"},
        "number": {"type": "integer"},
        "flag": {"type": "boolean"},
        "word": {"$ref": "#/$defs/word"},
        "list": {"type": "array"},
        "any": {},
    },
}


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("text=4711", "4711"),
        ("text=47x", "47x"),
        ("number=4711", 4711),
        ("flag=true", True),
        ("word=true", "true"),
        ("word=a=b", "a=b"),
        ("list=[1, 2]", [1, 2]),
        ('any={"a": 1}', {"a": 1}),
        ("any=plain words", "plain words"),
        ("any=NaN", "NaN"),
        ("number=4.5", 4.5),
        ("other=1", 1),
        ("text=", ""),
    ],
)
def test_a_value_is_what_the_schema_wants(pair: str, found: Any) -> None:
    assert read_inputs(SCHEMA, [pair], None) == {pair.partition("=")[0]: found}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_arrives_as_it_was_typed(text: str) -> None:
    assert read_inputs({"properties": {"a": {"type": "string", "pattern": "^"}}}, [f"a={text}"], None)["a"] in (
        text,
        _quoted(text),
    )


def _quoted(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def workflow(tmp_path: Path, spec: dict[str, Any], kind: str = "AgentWorkflow", **more: Any) -> str:
    document = {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": {"name": "w"}}
    file = tmp_path / "file.json"
    file.write_text(json.dumps(document | {"spec": spec if kind == "AgentWorkflow" else {"workflow": spec, **more}}))
    return str(file)


def test_the_name_comes_first_and_the_commands_that_free_the_run_last(
    scene: Scene, agentrun: Type, tmp_path: Path
) -> None:
    said = agentrun("run", workflow(tmp_path, PEOPLE), "--name", "p1", "-n", "team")
    assert said.code == 3
    lines = said.out.splitlines()
    assert lines[0] == "p1" and "ask: Waiting: approval: Go?" in lines
    assert lines[-1].strip() == "agentrun resume p1 -n team"
    assert "    agentrun approve p1 ask --as-group ops -n team" in lines
    assert read_manifest(scene.store, find_run(scene.store, "team", "p1"))["requestedBy"] == "ben"


def test_a_run_goes_on_to_its_end_by_the_verbs_of_people(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    spec = PEOPLE | {"output": "${steps.shipped.output}"}
    started = agentrun("run", workflow(tmp_path, spec), "--name", "p1", "-o", "json")
    assert started.code == 3 and started.err.startswith("p1\n")
    assert json.loads(started.out)["status"]["phase"] == "Waiting"
    run = find_run(scene.store, "default", "p1")
    [asked] = scene.events(run, "approvalRequested")
    decided = {"step": "ask", "digest": asked["request"]["digest"], "groups": ["ops"], "verified": False}
    scene.event(run, "decided", **decided, by="fay", decision="Approved", comment="")
    assert agentrun("approve", "p1", "--as-group", "ops").code == 0
    assert agentrun("signal", "p1", "shipped", '{"box": 7}').code == 0
    done = agentrun("resume", "p1")
    assert done.code == 0 and json.loads(done.out[done.out.index("{") :]) == {"box": 7}
    again = agentrun("resume", "p1", "-o", "json")
    assert again.code == 0 and json.loads(again.out)["status"]["output"] == {"box": 7}


def test_a_rejected_run_failed(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    agentrun("run", workflow(tmp_path, PEOPLE), "--name", "p1")
    agentrun("reject", "p1", "--as-group", "ops", "--comment", "too much")
    said = agentrun("resume", "p1")
    assert said.code == 1 and "p1 Failed: ask: rejected by ben: too much" in said.err


def test_a_file_can_suspend_and_cancel(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    said = agentrun("run", workflow(tmp_path, PEOPLE, "AgentRun", suspend=True), "--name", "s1")
    assert said.code == 3 and "suspended:" in said.out
    assert scene.events(find_run(scene.store, "default", "s1"), "approvalRequested") == []
    resumed = agentrun("resume", "s1")
    assert resumed.code == 3 and "no longer suspended" in resumed.out and "agentrun approve s1 ask" in resumed.out
    cancelled = agentrun("run", workflow(tmp_path, PEOPLE, "AgentRun", cancel=True), "--name", "c1")
    assert cancelled.code == 1 and "c1 Cancelled" in cancelled.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "A_B"], "is not a name"),
        (["-i", "orders"], "KEY=VALUE"),
        (["-i", "items=2.5"], "items"),
        (["--inputs", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["--secrets", "nothing"], "does not exist"),
        ([], "payments/token"),
        (["--secrets", "."], "does not hold payments/token"),
    ],
)
def test_nothing_is_written_before_everything_is_checked(
    scene: Scene, agentrun: Type, tmp_path: Path, words: list[str], message: str
) -> None:
    secret = {"bearer": {"secretRef": {"name": "payments", "key": "token"}}}
    tools = [REFUND["tools"][0], REFUND["tools"][1] | {"http": {"url": "http://127.0.0.1:1/pay", "auth": secret}}]
    said = agentrun("run", workflow(tmp_path, REFUND | {"tools": tools}), "-i", "order=4711", *words)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert not scene.folder.exists()


def test_a_name_that_is_taken_is_refused(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    scene.run("r1")
    before = scene.store.list("default/")
    said = agentrun("run", workflow(tmp_path, PEOPLE), "--name", "r1")
    assert said.code == 2 and "a run named r1 exists" in said.err
    assert scene.store.list("default/") == before


def test_a_run_that_somebody_drives_is_not_driven_twice(scene: Scene, agentrun: Type) -> None:
    run = scene.run(workflow=PEOPLE)
    scene.store.swap(run.lease, json.dumps({"process": this_process()}).encode(), None)
    said = agentrun("resume", "r1")
    assert said.code == 2 and "is driven by process" in said.err and "agentrun logs r1 -f" in said.err


def test_inputs_come_from_a_file_and_words_over_it(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    (tmp_path / "inputs.yaml").write_text("order: '7'\nmore: [1]\n")
    spec = PEOPLE | {"inputs": {"type": "object", "properties": {"order": {"type": "string"}}}}
    agentrun(
        "run", workflow(tmp_path, spec), "--name", "p1", "--inputs", str(tmp_path / "inputs.yaml"), "-i", "order=8"
    )
    assert read_manifest(scene.store, find_run(scene.store, "default", "p1"))["inputs"] == {"order": "8", "more": [1]}


@pytest.mark.parametrize("ahead", [0.0, 2 * 3600.0, -2 * 3600.0], ids=["right", "ahead", "behind"])
def test_a_parked_step_is_tried_again_when_a_person_resumes(scene: Scene, agentrun: Type, ahead: float) -> None:
    """Its attempts were lost without progress until the plan parked it; the verb writes the event that frees it.

    By a clock that was two hours ahead then, the event came before the loss, and every resume did nothing.
    """
    run = scene.run()
    nothing = Record(str(run), "triage", 0, 0, 0.0, "", {}, "")
    for attempt in range(1, 12):
        log = StepLog(scene.store, run, StepKey("triage"), attempt, nothing, lambda: scene.now + ahead)
        nothing = log.append(Kind.OPENED, {"process": {}, "task": {"prompt": "x"}})
    view = StoredRun.read(scene.store, run)
    assert "resume" in view.entries["triage"]["waitingFor"]
    assert _free(view) == ["triage is retried"]
    assert [e["step"] for e in scene.events(run, "resumed")] == ["triage"]
    again = StoredRun.read(scene.store, run)
    assert "resume" not in again.entries["triage"].get("waitingFor", {})
    assert _free(again) == []


@pytest.mark.parametrize("words", [["--help"], ["list", "-o", "json"]])
def test_a_full_disk_under_standard_output_is_no_failed_run(words: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "agentrun.cli", *words],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert done.returncode == 74
    assert "could not be written" in said


def test_an_argument_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    words = [sys.executable.encode(), b"-m", b"agentrun.cli", b"signal", b"a", b"b", b"\xff"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"is not UTF-8; nothing was written" in done.stderr


@pytest.mark.parametrize("namespace", ["a/b", "Foo_Bar", "../../x", ""])
def test_a_namespace_that_no_verb_could_name_is_refused(
    agentrun: Type, scene: Scene, tmp_path: Path, namespace: str
) -> None:
    meta = {"name": "w", "namespace": namespace}
    document = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "metadata": meta,
        "spec": {"workflow": PEOPLE},
    }
    (tmp_path / "file.json").write_text(json.dumps(document))
    for verb in ("validate", "run"):
        said = agentrun(verb, str(tmp_path / "file.json"))
        assert said.code == 2 and "namespace" in said.err + said.out
    assert not scene.store.list("")
