from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from agentrun.api.canonical import canonical, digest_of
from agentrun.api.keys import StepKey
from agentrun.api.run import AgentRun
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.journal.runs import create_run, read_manifest
from agentrun.query.timeline import timeline
from agentrun.records.manifest import RunManifest
from tests.harness.cli_store import DEAD, PEOPLE, REFUND, Scene, Type, closed, intent, request, result, turn, unknown

ESC = "\x1b]52;c;aGFjaw==\x07\u202e"


RESOLVED: dict[str, Any] = {"step": "a", "callId": "call", "answer": "giveUp", "result": None}
WHO = [
    ("suspended", {"by": "ana", "verified": True}, "suspended by ana"),
    ("unsuspended", {"by": "ana", "verified": False}, "unsuspended by ana (unverified)"),
    ("cancelled", {"by": None, "verified": False, "late": False}, "cancelled by an unknown user"),
    # as the first journals of clusters have it, whoever it was
    ("cancelled", {"by": None, "verified": True, "late": False}, "cancelled"),
    ("suspended", {"by": f"ana{ESC}\nroot", "verified": True}, "suspended by ana"),
    ("signalled", {"name": "go", "payload": 1, "by": None, "verified": False}, "signal go by an unknown user: 1"),
    ("resolved", RESOLVED | {"by": None, "verified": False}, "resolved by an unknown user: give up"),
    ("resolved", RESOLVED, "resolved by an unknown user: give up"),
    ("resumed", {"by": None, "verified": False}, "resumed by an unknown user"),
    (
        "ttlChanged",
        {"by": "ana", "verified": True, "ttlSecondsAfterFinished": 60},
        "time to live after the end set to 60 s by ana",
    ),
    (
        "ttlChanged",
        {"by": "ana", "verified": False, "ttlSecondsAfterFinished": None},
        "time to live after the end set to none by ana (unverified)",
    ),
]


@pytest.mark.parametrize(("kind", "body", "line"), WHO)
def test_who_changed_a_run_is_shown(kind: str, body: dict[str, Any], line: str) -> None:
    (found,) = timeline({}, [Record("n/r-1", "", 0, 1, 0.0, kind, body, "")])
    assert found.text.startswith(line) if ESC in str(body.get("by")) else found.text == line
    assert found.text.isprintable()


def refunded(scene: Scene, name: str = "r1", output: Any = "yes") -> RunPath:
    """A run that went through triage and the sign-off, and whose payment is unknown."""
    run = scene.run(name)
    scene.step(
        run,
        "triage",
        turn(None, ("look_up", {"q": "x"})),
        result("1-0", "look_up", "an order"),
        turn("yes", number=2),
        closed(output),
    )
    scene.event(run, "approvalRequested", step="sign-off", request=request("Refund?", digest="sha256:aa"))
    decision = {"step": "sign-off", "digest": "sha256:aa", "by": "fay", "groups": ["finance"], "verified": False}
    scene.event(run, "decided", **decision, decision="Approved", comment="go ahead")
    scene.event(run, "settled", step="sign-off", state="Succeeded", output={"approved": True, "by": ["fay"]})
    scene.step(run, "refund", intent(), unknown(), task={"args": {"amount": 5}})
    return run


def ended(scene: Scene, run: RunPath, **changes: Any) -> None:
    heads = {}
    for name in scene.store.children(f"{run}/steps/"):
        last = json.loads(scene.store.get(scene.store.list(run.step(StepKey.parse(name)))[-1]))
        heads[name] = [last["seq"], last["hash"]]
    states = {step["name"]: "Succeeded" for step in REFUND["steps"]}
    body = {"outcome": "Succeeded", "output": None, "steps": states, "compensations": {}, "heads": heads}
    scene.event(run, "ended", **body | changes)


def test_an_empty_store_has_no_runs(agentrun: Type) -> None:
    said = agentrun("list")
    assert (said.code, said.out) == (0, "")
    assert "no runs in namespace default" in said.err


def test_list_shows_the_newest_first_and_what_each_waits_for(scene: Scene, agentrun: Type) -> None:
    refunded(scene, "older")
    scene.run("newer")
    said = agentrun("list")
    head, first, second = said.out.splitlines()
    assert head.split()[:3] == ["NAME", "PHASE", "STEPS"]
    assert first.split()[:3] == ["newer", "Running", "0/4"]
    assert second.split()[:3] == ["older", "Stalled", "2/4"]
    assert "a driver" in first and "refund: outcome of pay" in second


def test_one_damaged_run_does_not_hide_the_others(scene: Scene, agentrun: Type) -> None:
    bad, _ = scene.run("bad"), scene.run("good")
    path = scene.folder / bad.manifest
    path.write_bytes(path.read_bytes().replace(b"ana", b"eve"))
    said = agentrun("list")
    assert said.code == 0
    good, row = said.out.splitlines()[1:]
    assert good.startswith("good")
    assert row.split()[:3] == ["bad", "Damaged", "-"] and "does not match its hash" in row
    assert bad.manifest in said.err and "changed" in said.err


def sealed(manifest: Any) -> bytes:
    """A ``run.json`` whose hash fits, whoever wrote it."""
    return canonical(manifest | {"hash": digest_of(manifest)})


def manifest_with(**changes: Any) -> Callable[[Scene, RunPath], None]:
    def change(scene: Scene, run: RunPath) -> None:
        found = read_manifest(scene.store, run) | changes
        (scene.folder / run.manifest).write_bytes(sealed({k: v for k, v in found.items() if v is not DROPPED}))

    return change


def replaced(key: str, data: bytes) -> Callable[[Scene, RunPath], None]:
    def change(scene: Scene, run: RunPath) -> None:
        path = scene.folder / str(run) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return change


def pipe(scene: Scene, run: RunPath) -> None:
    path = scene.folder / run.manifest
    path.unlink()
    os.mkfifo(path)


def circle(scene: Scene, run: RunPath) -> None:
    path = scene.folder / run.manifest
    path.unlink()
    path.symlink_to(path)


def circle_of_folders(scene: Scene, run: RunPath) -> None:
    path = scene.folder / str(run)
    shutil.rmtree(path)
    path.symlink_to(path)


def huge(scene: Scene, run: RunPath) -> None:
    os.truncate(scene.folder / run.manifest, 1 << 40)  # a hole: it takes no room on the disk


def forged_event(scene: Scene, run: RunPath) -> None:
    scene.event(run, "approvalRequested", step="ask", request=17)


DROPPED = object()


@pytest.mark.parametrize(
    "spoil",
    [
        replaced("run.json", b""),
        replaced("run.json", b"[1]"),
        replaced("run.json", b"\xff\xfe"),
        replaced("run.json", b'{"a":' * 100_000),
        replaced("run.json", b"[" * 900 + b"]" * 900),
        replaced("run.json", sealed({"v": 99})),
        replaced("run.json", sealed({"v": "1"})),
        manifest_with(workflow=[]),
        manifest_with(workflow={"steps": [{"name": "a", "unknown": 1}]}),
        manifest_with(workflow={"steps": [{"name": "a", "wait": {"signal": "x"}, "when": "1 +"}]}),
        manifest_with(inputs=DROPPED),
        manifest_with(name=DROPPED),
        manifest_with(createdAt="yesterday"),
        manifest_with(createdAt=7),
        manifest_with(budget=[1]),
        manifest_with(timeout="for ever"),
        replaced("driver.json", b"[" * 100_000),
        replaced("driver.json", b'{"process": 7}'),
        replaced("events/00000001.json", b"{}"),
        replaced("steps/ask/00000001.json", b'{"v": 99}'),
        pipe,
        circle,
        circle_of_folders,
        huge,
        forged_event,
    ],
)
def test_whatever_is_wrong_with_one_run_the_others_are_listed(
    scene: Scene, agentrun: Type, spoil: Callable[[Scene, RunPath], None]
) -> None:
    first = scene.run("first", PEOPLE)
    bad = scene.run("bad", PEOPLE)
    scene.run("last", PEOPLE)
    spoil(scene, bad)
    said = agentrun("list")
    assert said.code == 0 and "Traceback" not in said.err
    names = [line.split()[0] for line in said.out.splitlines()[1:]]
    assert {"first", "last"} <= set(names)
    [row] = [line for line in said.out.splitlines() if line.startswith("bad")]
    assert row.split()[1] in ("Damaged", "Unreadable"), row
    found = json.loads(agentrun("list", "-o", "json").out)["items"]
    assert first.uid in {item["metadata"]["uid"] for item in found}


def test_a_namespace_that_cannot_be_read_hides_no_other(scene: Scene, agentrun: Type) -> None:
    scene.run("fine")
    (scene.folder / "other").symlink_to(scene.folder / "other")
    (scene.folder / "third" / "names").mkdir(parents=True)
    (scene.folder / "third" / "names" / "x").write_text("?")
    said = agentrun("list", "-A")
    assert said.code == 0 and "fine" in said.out
    assert [line.split()[:3] for line in said.out.splitlines() if line.startswith("third")] == [
        ["third", "x", "Damaged"]
    ]


@pytest.mark.parametrize(
    "key",
    [
        "steps/triage/00000001.json~",
        "steps/triage/notes.txt",
        "steps/Old/00000001.json",
        "events/notes.txt",
        "logs/x.y",
    ],
)
def test_what_somebody_else_put_into_a_run_is_passed_over(scene: Scene, agentrun: Type, key: str) -> None:
    """An editor's copy beside a record ended `list` for every run with a traceback."""
    run = scene.run()
    scene.step(run, "triage", closed("yes"))
    before = agentrun("show", "r1", "-o", "json").out
    scene.store.create(f"{run}/{key}", b"notes")
    assert agentrun("list").code == 0
    assert agentrun("show", "r1", "-o", "json").out == before
    assert agentrun("logs", "r1").code == 0


def test_a_name_that_is_damaged_hides_no_other_run(scene: Scene, agentrun: Type) -> None:
    scene.run()
    scene.store.create("default/names/other", b"{")
    said = agentrun("list")
    assert said.code == 0 and "r1" in said.out
    assert "default/names/other" in said.out + said.err


def test_a_run_of_a_newer_agentrun_says_so(scene: Scene, agentrun: Type) -> None:
    newer = read_manifest(scene.store, scene.run("r1")) | {"v": 2, "name": "new", "uid": "b" * 32, "another": 1}
    create_run(scene.store, cast("RunManifest", newer))
    said = agentrun("show", "new")
    assert said.code != 0 and "upgrade" in said.err and "Traceback" not in said.err
    assert agentrun("list").code == 0


def test_a_run_has_the_shape_of_the_cluster(scene: Scene, agentrun: Type) -> None:
    run = refunded(scene)
    found = json.loads(agentrun("show", "r1", "-o", "json").out)
    assert found["apiVersion"] == "agentrun.dev/v1alpha1" and found["kind"] == "AgentRun"
    assert found["metadata"]["uid"] == run.uid
    assert found["spec"]["inputs"] == {"order": "4711"}
    assert [s["name"] for s in found["status"]["steps"]][:3] == ["triage", "sign-off", "refund"]
    assert found["status"]["journal"].endswith(f"/{run}/")
    metadata = {k: found["metadata"][k] for k in ("name", "namespace")}
    AgentRun.model_validate({k: found[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": metadata})
    listed = yaml.safe_load(agentrun("list", "-o", "yaml").out)
    assert listed["kind"] == "List" and listed["items"][0]["metadata"]["name"] == "r1"


def test_show_says_who_did_what_when_and_what_to_do_now(scene: Scene, agentrun: Type) -> None:
    refunded(scene)
    said = agentrun("show", "r1")
    assert said.code == 0
    for text in (
        "requested  by ana (unverified)",
        'turn 1: calls look_up({"q": "x"}) (100 (20 cached) + 10 tokens, 0.5 s)',
        "look_up answers an order",
        "Approved by fay (as finance, unverified): go ahead — Refund? (sha256:aa)",
        'begins pay({"amount": 5}) (at most once)',
        "outcome unknown of pay",
        "agentrun resolve r1 refund --happened RESULT",
        "triage@5",
    ):
        assert text in said.out
    only = agentrun("show", "r1", "--step", "triage").out
    assert "turn 1" in only and "fay" not in only
    assert agentrun("show", "r1", "--step", "nothing").code == 2


def test_nothing_of_a_model_a_tool_or_a_file_reaches_the_terminal_as_a_command(scene: Scene, agentrun: Type) -> None:
    run = scene.run("r1", inputs={"order": ESC})
    asks = request(ESC, digest="sha256:aa", call="2-0")
    scene.step(
        run,
        "triage",
        turn(ESC, (ESC, {ESC: ESC})),
        result("1-0", ESC, ESC, isError=True),
        ("result", {"repair": ESC}),
        ("waiting", {"approvals": [asks]}),
    )
    scene.event(
        run, "decided", step="triage", digest="sha256:no", by=ESC, groups=[ESC], decision="Approved", comment=ESC
    )
    damaged = scene.run("r2")
    scene.event(damaged, "decided", digest="sha256:no", by=ESC, decision=ESC, comment=ESC)
    scene.store.create(run.log(StepKey("triage"), 1, 1), json.dumps({"event": ESC, ESC: ESC}).encode() + ESC.encode())
    scene.event(run, "ended", outcome="Failed", output={ESC: ESC}, steps={}, compensations={}, heads={},
                failure={"class": "Tool", "message": ESC})  # fmt: skip
    for words in (
        ["show", "r1"],
        ["show", "r1", "-o", "yaml"],
        ["show", "r1", "-o", "json"],
        ["list"],
        ["logs", "r1"],
        ["logs", "r1", "-o", "json"],
        ["resume", "r1"],
        ["approve", "r1"],
        ["audit", "verify", "r1"],
        ["audit", "export", "r1"],
        ["show", "r2"],
        ["audit", "verify", "r2"],
    ):
        said = agentrun(*words)
        for text in (said.out, said.err):
            assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text, words


def test_logs_are_merged_by_time_and_narrowed_by_step(scene: Scene, agentrun: Type) -> None:
    run = scene.run(workflow=PEOPLE)
    for name, index, at in (("ask", None, "01"), ("ask", 1, "03"), ("shipped", None, "02")):
        line = {"at": f"2026-01-01T00:00:{at}.000000Z", "event": "opened", "attempt": 1}
        scene.store.create(run.log(StepKey(name, index), 1, 1), json.dumps(line).encode() + b"\n")
    assert [line.split()[1] for line in agentrun("logs", "r1").out.splitlines()] == ["ask", "shipped", "ask[1]"]
    assert len(agentrun("logs", "r1", "ask").out.splitlines()) == 2
    assert json.loads(agentrun("logs", "r1", "ask[1]", "-o", "json").out)["step"] == "ask[1]"
    assert "has no step other; it has ask, shipped" in agentrun("logs", "r1", "other").err


def test_following_ends_with_the_run(scene: Scene, agentrun: Type) -> None:
    run = refunded(scene)
    ended(scene, run)
    scene.store.create(run.log(StepKey("triage"), 1, 1), b"not json \x1b[2J\n")
    said = agentrun("logs", "r1", "-f")
    assert said.code == 0 and "not json \\u001b[2J" in said.out


# -- audit ---------------------------------------------------------------------------------------------------------


def test_a_sound_journal_is_verified_here_and_elsewhere(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    run = refunded(scene, output="x" * 100_000)
    said = agentrun("audit", "verify", "r1")
    assert said.code == 0 and "11 records, 1 blobs verified; the run has not ended" in said.out
    ended(scene, run)
    assert agentrun("audit", "verify", "r1").out == "r1: 12 records, 1 blobs verified\n"
    file = tmp_path / "r1.jsonl"
    file.write_text(agentrun("audit", "export", "r1").out)
    assert agentrun("audit", "verify", str(file), "--store", "/nowhere").out == "r1: 12 records, 1 blobs verified\n"
    exported = [json.loads(line) for line in file.read_text().splitlines()]
    [decided] = [e["content"]["body"] for e in exported[1:] if e.get("content", {}).get("kind") == "decided"]
    assert (decided["by"], decided["groups"], decided["verified"]) == ("fay", ["finance"], False)


def test_an_export_that_was_changed_is_found_out(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    refunded(scene)
    file = tmp_path / "r1.jsonl"
    file.write_text(agentrun("audit", "export", "r1").out.replace('"by":"fay"', '"by":"eve"', 1))
    said = agentrun("audit", "verify", str(file))
    assert said.code == 1 and "events/00000002.json" in said.out
    file.write_text(file.read_text()[:-30])
    assert agentrun("audit", "verify", str(file)).code == 1
    file.write_text("{}\n")
    assert "not the header" in agentrun("audit", "verify", str(file)).err


def damaged(scene: Scene, agentrun: Type, key: str, data: bytes | None) -> str:
    """What the audit says when one object is replaced (None: removed). The object is named, and the exit code is 1."""
    path = scene.folder / key
    path.unlink(missing_ok=True)
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    said = agentrun("audit", "verify", "r1")
    assert said.code == 1
    return said.out


def test_every_kind_of_damage_is_found_and_the_object_named(scene: Scene, agentrun: Type) -> None:
    run = refunded(scene, output="x" * 100_000)
    ended(scene, run)
    [blob] = scene.store.list(f"{run}/blobs/")
    triage = run.step(StepKey("triage"))
    second, third = f"{triage}00000002.json", f"{triage}00000003.json"
    keep = {key: scene.store.get(key) for key in scene.store.list(f"{run}/")}
    changed = keep[second].replace(b"look_up", b"pay_now")
    resealed = json.loads(keep[second]) | {"kind": "failed"}
    del resealed["hash"]
    forged = Record(str(run), "triage", 1, 2, 0.0, "failed", {"class": "Tool", "message": "x"}, resealed["prev"])
    cases: list[tuple[str, bytes | None, str, str]] = [
        (second, changed, second, "does not match its hash"),
        (second, b"{", second, "not a record"),
        (second, None, second, "missing"),
        (second, keep[third], second, "moved"),
        (second, forged.sealed()[1], third, "does not follow"),
        (blob, b"other", blob, "does not match its name"),
        (blob, None, blob, "missing"),
        (f"{triage}00000005.json", None, f"{triage}00000005.json", "cut off"),
        (run.manifest, keep[run.manifest].replace(b"4711", b"4712"), run.manifest, "hash"),
        (f"{run}/steps/extra/00000001.json", keep[second], f"{run}/steps/extra", "moved"),
        (f"{run}/steps/other.txt", b"x", f"{run}/steps/other.txt", "agentrun writes no such object"),
        (f"{run.events}00000002.json", None, f"{run.events}00000002.json", "missing"),
    ]
    for key, data, named, why in cases:
        out = damaged(scene, agentrun, key, data)
        assert named in out and why in out, (key, out)
        (scene.folder / key).unlink(missing_ok=True)
        if key in keep:
            (scene.folder / key).write_bytes(keep[key])
    assert agentrun("audit", "verify", "r1").code == 0


def test_a_record_after_the_end_is_found(scene: Scene, agentrun: Type) -> None:
    run = scene.run()
    scene.step(run, "triage", closed())
    ended(scene, run, heads={"triage": [1, "sha256:x"]})
    said = agentrun("audit", "verify", "r1")
    assert said.code == 1 and "after the run had ended" in said.out


# -- diff ----------------------------------------------------------------------------------------------------------


def test_runs_that_say_the_same_do_not_differ(scene: Scene, agentrun: Type) -> None:
    refunded(scene, "r1"), refunded(scene, "r2")
    said = agentrun("diff", "r1", "r2")
    assert (said.code, said.out) == (0, "r1 and r2 do not differ\n")


def test_diff_names_the_first_records_that_part(scene: Scene, agentrun: Type) -> None:
    refunded(scene, "r1")
    other = scene.run("r2", inputs={"order": "1042"})
    scene.step(other, "triage", turn(None, ("look_up", {"q": "y"})), result("1-0", "look_up", "an order"), closed("no"))
    said = agentrun("diff", "r1", "r2", "-o", "json")
    assert said.code == 1
    found = {(d["step"], d["what"]): (d["left"], d["right"]) for d in json.loads(said.out)["items"]}
    assert found["", "inputs.order"] == ("4711", "1042")
    assert found["triage", "output"] == ("yes", "no")
    left, right = found["triage", "record 2 / 2"]
    assert (left["calls"][0]["args"], right["calls"][0]["args"]) == ({"q": "x"}, {"q": "y"})
    assert found["refund", "state"] == ("OutcomeUnknown", "Pending")
    table = agentrun("diff", "r1", "r2")
    assert table.code == 1 and table.out.splitlines()[0].split() == ["STEP", "WHAT", "r1", "r2"]


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "nothing"], 2, 'no run "nothing"'),
        (["show", "../../etc"], 2, "not the name of a run"),
        (["frobnicate"], 2, "No such command"),
        (["show"], 2, "Missing argument"),
        (["list", "--store", "ftp://x"], 4, "not a kind of store"),
        (["list", "-n", "A B"], 2, "not a namespace"),
        (["validate", "nothing.yaml"], 2, "nothing.yaml: does not exist"),
        (["audit", "verify", "no/such/file"], 2, "neither the name of a run nor a file"),
        (["list", "-o", "xml"], 2, "Invalid value"),
    ],
)
def test_errors_say_what_to_do_and_have_their_code(agentrun: Type, words: list[str], code: int, message: str) -> None:
    said = agentrun(*words)
    assert said.code == code
    assert message in said.err and "Traceback" not in said.err and said.out == ""


def test_a_damaged_journal_is_an_error_that_names_the_object(scene: Scene, agentrun: Type) -> None:
    run = refunded(scene)
    path = scene.folder / run.step(StepKey("triage")) / "00000003.json"
    path.write_text("{}")
    said = agentrun("show", "r1")
    assert said.code == 1 and said.err.startswith("agentrun: ") and "00000003.json" in said.err


def test_options_stand_before_or_after_the_verb(scene: Scene, agentrun: Type) -> None:
    scene.run()
    before = agentrun("-o", "json", "--store", str(scene.folder), "list")
    assert json.loads(before.out)["items"][0]["metadata"]["name"] == "r1"
    assert yaml.safe_load(agentrun("-o", "json", "list", "-o", "yaml").out)["kind"] == "List"
    assert agentrun("-n", "other", "list").out == ""


def test_validate_prints_a_line_for_each_problem(agentrun: Type, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    document: dict[str, Any] = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentWorkflow",
        "metadata": {"name": "w"},
        "spec": PEOPLE,
    }
    good.write_text(yaml.safe_dump(document))
    steps = [
        {"name": "a", "dependsOn": ["b"], "wait": {"signal": "x"}},
        {"name": "c", "when": "1 +", "wait": {"signal": "z"}},
    ]
    bad.write_text(yaml.safe_dump(document | {"spec": {"steps": steps}}))
    said = agentrun("validate", str(good), str(bad))
    assert said.code == 2
    assert said.out == f"{good}: valid: AgentWorkflow w (2 steps)\n"
    lines = said.err.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{bad}:") for line in lines)
    assert agentrun("validate", str(good)).code == 0
    assert json.loads(agentrun("validate", str(good), "-o", "json").out)["items"] == [document]


def test_a_run_elsewhere_is_not_taken_for_dead(scene: Scene, agentrun: Type) -> None:
    """The driver's process is on another machine: it cannot be seen to be gone, so it counts as there."""
    run = scene.run()
    scene.step(run, "triage", turn("x"))
    scene.store.swap(run.lease, json.dumps({"process": DEAD}).encode(), None)
    said = agentrun("show", "r1")
    assert "driver     process 1 on elsewhere" in said.out
    assert json.loads(agentrun("show", "r1", "-o", "json").out)["status"]["steps"][0]["state"] == "Running"
