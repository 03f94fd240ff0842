from __future__ import annotations

import json
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from agentrun.journal.audit import verify
from agentrun.journal.fold import fold
from agentrun.journal.fork import forked_manifest, plan_fork, write_fork
from agentrun.journal.log import read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.runs import find_run, read_manifest
from tests.harness.cli_store import PAY, PEOPLE, REFUND, Scene, Type, closed, intent, request, result, turn


def source(scene: Scene) -> RunPath:
    """A run that was paid, and then failed in its last step; its triage called the payment, too."""
    run = scene.run()
    scene.step(
        run,
        "triage",
        turn(None, ("look_up", {"q": "x"})),
        result("1-0", "look_up", "an order"),
        turn(None, ("pay", {"amount": 1}), number=2),
        intent("2-0"),
        result("2-0", "pay", "paid"),
        turn("yes", number=3),
        closed("x" * 100_000),
    )
    scene.event(run, "approvalRequested", step="sign-off", request=request("Refund?", digest="sha256:aa"))
    decision = {"step": "sign-off", "digest": "sha256:aa", "by": "fay", "groups": ["finance"], "verified": False}
    scene.event(run, "decided", **decision, decision="Approved", comment="")
    scene.event(run, "settled", step="sign-off", state="Succeeded", output={"approved": True}, signal=1)
    scene.step(run, "refund", intent(), closed({"id": 1}), task={"args": {"amount": 5}})
    return run


def forked(scene: Scene, name: str = "f1") -> RunPath:
    return find_run(scene.store, "default", name)


def test_what_does_not_depend_on_the_step_is_taken_over(scene: Scene, agentrun: Type) -> None:
    run = source(scene)
    said = agentrun("fork", "r1", "--from", "note", "--name", "f1")
    assert said.code == 3  # everything before it is done, and the last step waits for a signal
    fork = forked(scene)
    [record] = read_step(scene.store, fork, StepKey("triage"))
    last = read_step(scene.store, run, StepKey("triage"))[-1]
    assert record.body["source"] == {"run": str(run), "step": "triage", "seq": 8, "hash": last.hash}
    assert record.body["output"] == "x" * 100_000
    [settled] = [e for e in scene.events(fork, "settled") if e["step"] == "sign-off"]
    assert settled["output"] == {"approved": True} and "signal" not in settled and settled["source"]["run"] == str(run)
    assert scene.events(fork, "decided") == []
    assert read_manifest(scene.store, fork)["source"] == {"run": "r1", "step": "note"}
    assert verify(scene.store, fork).findings == []
    assert "may call it again" not in said.err


def test_a_decision_is_asked_anew_and_paid_calls_are_warned_of(scene: Scene, agentrun: Type) -> None:
    source(scene)
    said = agentrun("fork", "r1", "--from", "sign-off", "--name", "f1")
    assert said.code == 3 and "agentrun approve f1 sign-off --as-group finance" in said.out
    assert 'refund: run r1 called pay({"amount": 5})' in said.err and "triage" not in said.err
    [asked] = scene.events(forked(scene), "approvalRequested")
    assert asked["request"]["digest"] != "sha256:aa"


def undriven(scene: Scene, point: str, **changes: Any) -> RunPath:
    """A fork that begins nothing: what it shares can be looked at as it was written."""
    at, _, seq = point.partition("@")
    before = read_manifest(scene.store, find_run(scene.store, "default", "r1"))
    options: dict[str, Any] = {"inputs": {}, "prompt": None, "model": None} | changes
    number = int(seq) if seq else None
    manifest = forked_manifest(
        before, StepKey.parse(at), number, name="f1", now=scene.clock(), uid="ab" * 16, requested_by="ana", **options
    )
    planned = plan_fork(scene.store, forked(scene, "r1"), manifest, StepKey.parse(at), number, now=scene.clock())
    return write_fork(scene.store, planned, scene.clock)


def test_a_step_goes_on_from_a_record_of_it(scene: Scene, agentrun: Type) -> None:
    run = source(scene)
    fork = undriven(scene, "triage@4")
    [record] = read_step(scene.store, fork, StepKey("triage"))
    assert record.kind == "compacted" and record.body["reason"] == "fork"
    assert record.body["source"]["run"] == str(run) and record.body["source"]["seq"] == 4
    state = fold([record])
    assert (state.attempt, state.turns, len(state.history)) == (1, 2, 3)
    assert [call["name"] for call in state.pending] == ["pay"]
    assert state.task == {"prompt": "Order 4711"}
    # What the source spent, was, and was allowed stays with it.
    fact = state.fact()
    assert fact.usage.tokens == 0 and fact.active == 0 and state.process == {} and state.events == {} == state.requests
    assert fact.end == "waiting" and fact.failures == fact.losses == 0
    assert verify(scene.store, fork).findings == []


def test_another_prompt_or_input_is_rendered_anew(scene: Scene, agentrun: Type) -> None:
    source(scene)
    fork = undriven(scene, "triage@3", prompt="Again: ${inputs.order}", inputs={"order": "1"})
    manifest = read_manifest(scene.store, fork)
    assert manifest["workflow"]["steps"][0]["agent"]["prompt"] == "Again: ${inputs.order}"
    assert manifest["inputs"] == {"order": "1"}
    assert manifest["workflowDigest"] != read_manifest(scene.store, forked(scene, "r1"))["workflowDigest"]
    assert fold(read_step(scene.store, fork, StepKey("triage"))).task is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "triage@5"], "outcome of pay is unknown"),
        (["--from", "triage@8"], "closes it"),
        (["--from", "triage@99"], "its records are 1 to 8"),
        (["--from", "note@1"], "it has no records"),
        (["--from", "triage[1]"], "no forEach"),
        (["--from", "triage@x"], "STEP@SEQ"),
        (["--from", "nothing"], 'no step "nothing"'),
        (["--from", "Not A Step"], "not a step"),
        (["--from", "refund.compensate"], "undoes a step"),
        (["--from", "refund", "--prompt", "x"], "a step of kind tool: it has no prompt to change"),
        (["--from", "triage", "--prompt", ""], "not valid with prompt"),
        (["--from", "triage", "--prompt", "${inputs.order"], "prompt"),
        (["--from", "triage", "--model", "nothing"], 'there is no model "nothing"'),
        (["--from", "triage", "-i", "order=true", "-i", "order"], "KEY=VALUE"),
        (["--from", "triage", "--name", "r1"], "a run named r1 exists"),
        (["--from", "triage", "--name", "A_B"], "not a name"),
    ],
)
def test_a_fork_that_cannot_be_is_refused_and_leaves_nothing(
    scene: Scene, agentrun: Type, words: list[str], message: str
) -> None:
    source(scene)
    before = scene.store.list("default/")
    said = agentrun("fork", "r1", *words)
    assert said.code == 2 and message in said.err, said.err
    assert scene.store.list("default/") == before


def test_what_failed_or_was_undone_is_done_again(scene: Scene, agentrun: Type) -> None:
    """A failure that was taken over would end the fork at once; a step that was undone did not happen."""
    pay = {"name": "pay"}
    steps = [
        {"name": "a", "tool": pay, "compensate": pay},
        {"name": "b", "dependsOn": ["a"], "tool": pay},
        {"name": "c", "tool": pay},
        {"name": "d", "tool": pay, "continueOnError": True},
        {"name": "e", "when": "false", "tool": pay},
        {"name": "last", "wait": {"signal": "go"}},
    ]
    run = scene.run(workflow={"tools": REFUND["tools"], "steps": steps})
    scene.step(run, "a", closed(1), task={"args": {}})
    scene.step(run, "a.compensate", closed(1), task={"args": {}})
    scene.step(run, "b", closed(1), task={"args": {}})
    failure = {"class": "Tool", "message": "no"}
    scene.step(run, "c", ("closed", {"outcome": "Failed", "failure": failure}), task={"args": {}})
    scene.step(run, "d", ("closed", {"outcome": "Failed", "failure": failure}), task={"args": {}})
    states = {"a": "Succeeded", "b": "Succeeded", "c": "Failed", "d": "Failed", "e": "Skipped", "last": "Cancelled"}
    undone = {"a.compensate": "Succeeded"}
    scene.event(run, "ended", outcome="Failed", output=None, steps=states, heads={}, compensations=undone)
    fork = undriven(scene, "last")
    assert scene.store.children(f"{fork}/steps/") == ["d"]
    assert [(e["step"], e["state"]) for e in scene.events(fork, "settled")] == [("e", "Skipped")]


def test_one_item_of_a_fan_out_is_done_again(scene: Scene, agentrun: Type) -> None:
    steps = [
        {"name": "each", "forEach": {"items": [1, 2, 3]}, "tool": {"name": "pay"}},
        {"name": "after", "dependsOn": ["each"], "tool": {"name": "pay"}},
    ]
    run = scene.run(workflow={"tools": REFUND["tools"], "steps": steps})
    for n in range(3):
        scene.step(run, f"each[{n}]", closed(n), task={"args": {}})
    scene.event(run, "settled", step="each", state="Succeeded", items=3, output=[0, 1, 2], states={})
    scene.step(run, "after", closed(1), task={"args": {}})
    one = undriven(scene, "each[1]")
    assert scene.store.children(f"{one}/steps/") == ["each.0", "each.2"]
    assert scene.events(one, "settled") == []
    found = json.loads(agentrun("show", "f1", "-o", "json").out)["status"]["steps"][0]
    assert found["items"] == {"Pending": 1, "Succeeded": 2} and found["state"] == "Pending"


def test_a_whole_fan_out_is_taken_over_with_its_items(scene: Scene, agentrun: Type) -> None:
    steps = [
        {"name": "each", "forEach": {"items": [1, 2]}, "tool": {"name": "pay"}},
        {"name": "after", "dependsOn": ["each"], "wait": {"signal": "go"}},
    ]
    run = scene.run(workflow={"tools": REFUND["tools"], "steps": steps})
    for n in range(2):
        scene.step(run, f"each[{n}]", closed(n), task={"args": {}})
    scene.event(run, "settled", step="each", state="Succeeded", items=2, output=[0, 1], states={})
    fork = undriven(scene, "after")
    assert scene.store.children(f"{fork}/steps/") == ["each.0", "each.1"]
    [settled] = scene.events(fork, "settled")
    assert settled["output"] == [0, 1] and settled["source"]["run"] == str(run)
    assert json.loads(agentrun("show", "f1", "-o", "json").out)["status"]["steps"][0]["items"] == {"Succeeded": 2}


def test_a_fork_compares_with_its_source_by_what_it_does_anew(scene: Scene, agentrun: Type) -> None:
    source(scene)
    undriven(scene, "refund")
    found = json.loads(agentrun("diff", "r1", "f1", "-o", "json").out)["items"]
    assert {difference["step"] for difference in found} == {"refund", "sign-off"}


def test_a_file_that_names_a_source_forks(scene: Scene, agentrun: Type, tmp_path: Any) -> None:
    run = scene.run(workflow=PEOPLE)
    scene.event(run, "settled", step="ask", state="Succeeded", output={"approved": True})
    spec = {"workflow": PEOPLE, "source": {"run": "r1", "step": "shipped"}}
    document = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": {"name": "f1"}, "spec": spec}
    (tmp_path / "fork.json").write_text(json.dumps(document))
    said = agentrun("run", str(tmp_path / "fork.json"))
    assert said.code == 3 and "agentrun approve f1 ask" in said.out
    [asked] = scene.events(forked(scene), "approvalRequested")
    assert asked["step"] == "ask", "somebody approved what came next in the source, and nothing else"


def test_a_call_that_was_undone_before_it_was_made_is_named(scene: Scene) -> None:
    """A tool step's calls have one id: the first try, which surely did not happen, hid the second."""
    step = {"name": "refund", "tool": {"name": "pay", "args": {"amount": 5}}}
    run = scene.run("r1", {"tools": [PAY], "steps": [step]})
    undone = ("result", {"undone": "call", "because": "HTTP 429"})
    scene.step(run, "refund", intent(), undone, intent(), closed({"paid": 5}), task={"args": {"amount": 5}})
    source, key = read_manifest(scene.store, run), StepKey("refund")
    changed: dict[str, Any] = {"inputs": {}, "prompt": None, "model": None, "name": "f"}
    manifest = forked_manifest(source, key, None, **changed, now=scene.now, uid="f" * 32, requested_by="me")
    [named] = plan_fork(scene.store, run, manifest, key, None, now=scene.now).again
    assert named.startswith("refund: run r1 called pay")
