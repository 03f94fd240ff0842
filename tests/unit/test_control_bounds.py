"""What one object, or many of one tenant, may take of the operator: memory, and the room for a status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from agentrun.adapters import objects
from agentrun.adapters.objects import run_view
from agentrun.api.canonical import timestamp
from agentrun.api.decoding import UNREADABLE
from agentrun.api.footprint import footprint
from agentrun.api.run import Reason
from agentrun.api.workflow import API_VERSION
from agentrun.control import held, inbox, run_loader, run_status
from agentrun.control.program_size import program_footprint
from agentrun.control.views import RunRef, RunView, WorkflowView
from agentrun.kube.errors import Invalid
from tests import poison
from tests.harness.cluster_world import ClusterWorld, Operator
from tests.harness.operator_steps import Calls, begin, ends
from tests.harness.planner_world import CALL, TOOL, approval, step

DEEP = "spec.inputs nests deeper than 200 levels: make it flatter"
TIMER = {"name": "w", "wait": {"duration": "1s"}}
NEVER = {"name": "w", "wait": {"signal": "never"}}


def waiting(name: str = "w", signal: str = "never") -> dict[str, Any]:
    return {"name": name, "wait": {"signal": signal}}


def ready(world: ClusterWorld, name: str = "r") -> tuple[str, str]:
    return run_status.headline(world.status(name))


def apply_unreadable(world: ClusterWorld, name: str, **spec: Any) -> None:
    world.api.make("runs", {"metadata": {"name": name}, "spec": spec, UNREADABLE: DEEP})


# -- a run that cannot be read -----------------------------------------------------------------------------------------


def test_a_run_that_cannot_be_read_is_refused_by_name_and_the_others_go_on(world: ClusterWorld) -> None:
    for n in range(20):
        apply_unreadable(world, f"bad-{n}")
    operator = begin(world, step("a"))
    ends(world, operator)
    assert world.status()["phase"] == "Succeeded"
    for n in range(20):
        reason, message = ready(world, f"bad-{n}")
        assert reason == Reason.INVALID_SPEC
        assert message == f"{DEEP}. The spec of a run cannot be changed: delete the run and create another"
        assert world.status(f"bad-{n}")["phase"] == "Stalled"
    written = len(world.statuses)
    operator.kill()
    world.operator()  # the next leader has nothing new to say
    world.wait(5)
    assert len(world.statuses) == written


def test_a_run_that_cannot_be_read_is_cancelled_and_deleted_as_any_other(world: ClusterWorld) -> None:
    apply_unreadable(world, "bad", ttlSecondsAfterFinished=60)
    operator = world.operator()
    world.settle()
    assert ready(world, "bad")[0] == Reason.INVALID_SPEC
    world.api.edit_run("bad", cancel=True)
    operator.hear_all()
    world.settle()
    assert world.status("bad")["phase"] == "Cancelled"
    operator.hear_all()
    world.wait(61)
    assert not world.api.objects["runs"]


def test_a_workflow_that_cannot_be_read_is_named_to_those_who_refer_to_it(world: ClusterWorld) -> None:
    world.api.workflows["w"] = {"metadata": {"name": "w"}, "spec": {}, UNREADABLE: DEEP}
    world.api.apply_run("r", {"workflowRef": {"name": "w"}})
    operator = world.operator()
    world.settle()
    advice = "Correct the AgentWorkflow, and the run begins automatically"
    assert ready(world) == (Reason.INVALID_SPEC, f"AgentWorkflow w: {DEEP}. {advice}")
    world.api.workflows["w"] = {"apiVersion": API_VERSION, "kind": "AgentWorkflow", "metadata": {"name": "w"}}
    world.api.workflows["w"]["spec"] = {"steps": [NEVER]}
    operator.controller.workflow_seen(WorkflowView("n", "w"))
    world.settle()
    assert ready(world)[0] == Reason.AWAITING_SIGNAL


def test_a_command_that_cannot_be_read_is_refused_and_removed(world: ClusterWorld) -> None:
    operator = begin(world, waiting())
    spec = {"run": {"name": "r"}}
    world.api.make("commands", {"metadata": {"name": "bad"}, "spec": spec, UNREADABLE: DEEP})
    operator.hear_all()
    world.settle()
    assert ("CommandRefused", f"bad: {DEEP}") in world.api.events
    assert not world.api.objects["commands"]


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [{"a": 1}, [], "", 1, {"a": [{}]}], ids=json.dumps)
def test_of_a_large_run_a_few_words_are_kept(value: Any) -> None:
    spec = {"inputs": {"l": [value] * 5000}, "workflow": {"steps": [NEVER]}}
    meta: dict[str, Any] = {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "1"}
    meta |= {"creationTimestamp": timestamp(0), "labels": {"a": "b"}}
    view = run_view({"metadata": meta, "spec": spec})
    assert view.written is None
    small = run_view({"metadata": meta, "spec": spec | {"inputs": {}}})
    assert json.loads(small.written or b"") == {"labels": {"a": "b"}, "spec": spec | {"inputs": {}}}
    assert len(small.written or b"") <= objects.WRITTEN_MAX


@pytest.mark.parametrize("payload", ["y" * 60_000, [[]] * 1000], ids=["text", "lists"])
def test_a_large_command_is_read_when_it_is_heard(world: ClusterWorld, payload: Any) -> None:
    operator = begin(world, waiting("w", "go"))
    world.api.command("r", signal={"name": "go", "payload": payload})
    view = world.api.all("commands")[0]
    assert (view.command, view.problem) == (None, "")
    operator.hear_all()
    world.wait(2)
    assert list(world.api.answers().values()) == ["Recorded"]
    assert world.status()["phase"] == "Succeeded"
    records = world.records(world.api.all("runs")[0])
    assert [r.body["payload"] for r in records if r.kind == "signalled"] == [payload]


def test_of_a_run_that_is_refused_or_pinned_nothing_of_its_spec_is_kept(world: ClusterWorld) -> None:
    world.api.apply_run("refused", {"workflow": {"steps": [{"name": "a"}]}})
    world.api.apply_run("waits", {"workflow": {"steps": [NEVER]}})
    world.api.apply_run("needs", {"workflowRef": {"name": "w"}})
    operator = world.operator()
    world.settle()
    world.wait(3)
    reasons = {name: ready(world, name)[0] for name in ("refused", "waits", "needs")}
    assert reasons == {
        "refused": Reason.INVALID_SPEC,
        "waits": Reason.AWAITING_SIGNAL,
        "needs": Reason.WORKFLOW_NOT_FOUND,
    }
    kept = {name: operator.cache.run(RunRef("n", name)) for name in reasons}
    assert [name for name, view in kept.items() if view is not None and view.written is not None] == ["needs"]


def test_a_large_run_works_as_a_small_one(world: ClusterWorld) -> None:
    workflow = {"tools": [TOOL], "steps": [step("a")]}
    world.api.apply_run("r", {"inputs": {"l": list(range(50_000))}, "workflow": workflow})
    operator = world.operator()
    world.settle()
    ends(world, operator)
    assert world.status()["phase"] == "Succeeded"


def test_live_runs_that_are_too_much_are_read_anew_and_lose_nothing(
    world: ClusterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "_BASE", 10**9)
    for n in range(5):
        steps = [waiting("w", "go"), step("a", "w", tool=CALL)]
        world.api.apply_run(f"r{n}", {"workflow": {"tools": [TOOL], "steps": steps}})
    operator = world.operator()
    world.wait(3)
    assert not operator.reconciler.live
    assert operator.reconciler.live.bytes == 0
    for n in range(5):
        world.api.command(f"r{n}", signal={"name": "go", "payload": n})
    operator.hear_all()
    world.settle()
    assert len(operator.reconciler.live) == 5  # each has a pod at work, of which more is known than the journal says
    for _ in range(3):
        ends(world, operator)
    assert [world.status(f"r{n}")["phase"] for n in range(5)] == ["Succeeded"] * 5
    assert world.created == [("a", 1)] * 5


def test_what_live_runs_take_is_counted_and_a_program_once(world: ClusterWorld) -> None:
    for n in range(3):
        world.api.apply_run(f"r{n}", {"inputs": {"x": "y" * 10_000}, "workflow": {"steps": [NEVER]}})
    operator = world.operator()
    world.wait(3)
    live = operator.reconciler.live
    each = {footprint(live[RunRef("n", f"r{n}")].pinned.manifest["inputs"]) for n in range(3)}
    program = live[RunRef("n", "r0")].program_bytes
    assert program == program_footprint({"steps": [NEVER]})
    assert 3 * min(each) + program < live.bytes < 3 * (min(each) + 12_000) + program
    live.clear()
    assert live.bytes == 0


def test_compiled_workflows_are_kept_by_their_bytes(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_loader, "PROGRAMS", 300_000)
    steps = [{"name": f"s{n}", "when": "inputs.a == 1 && inputs.b != 2", "wait": {"duration": "1s"}} for n in range(10)]
    for n in range(8):
        world.api.apply_run(f"r{n}", {"inputs": {"a": 2, "b": 2}, "workflow": {"description": str(n), "steps": steps}})
    operator = world.operator()
    world.settle()
    opener = operator.reconciler.opener
    assert 0 < len(opener._compiled) < 8
    assert 0 < opener._compiled.size <= 300_000


def test_a_workflow_wakes_those_that_wait_for_it_alone(world: ClusterWorld) -> None:
    for name in ("a", "b"):
        world.api.apply_run(name, {"workflowRef": {"name": name}})
    world.api.apply_run("waits", {"workflow": {"steps": [NEVER]}})
    operator = world.operator()
    world.wait(3)
    calls = Calls(world)
    world.api.workflows["a"] = {"apiVersion": API_VERSION, "kind": "AgentWorkflow", "metadata": {"name": "a"}}
    world.api.workflows["a"]["spec"] = {"steps": [NEVER]}
    operator.controller.workflow_seen(WorkflowView("n", "a"))
    operator.controller.workflow_seen(WorkflowView("elsewhere", "b"))
    world.wait(3)
    assert calls.count("get_workflow") == 1
    assert (ready(world, "a")[0], ready(world, "b")[0]) == (Reason.AWAITING_SIGNAL, Reason.WORKFLOW_NOT_FOUND)


# -- what people say without end ---------------------------------------------------------------------------------------


def signalled(world: ClusterWorld, operator: Operator, count: int, payload: Any = None) -> int:
    """How many of so many signals the run takes."""
    for _ in range(count):
        world.api.command("r", signal={"name": "other", "payload": payload})
    operator.hear_all()
    world.settle()
    assert "" not in world.api.answers().values()
    return sum(record.kind == "signalled" for record in operator.reconciler.live[RunRef("n", "r")].log.records)


@pytest.mark.parametrize("payload", ["y" * 60_000, [[]] * 1000, None], ids=["text", "lists", "none"])
def test_signals_that_nobody_waits_for_are_bounded(
    world: ClusterWorld, monkeypatch: pytest.MonkeyPatch, payload: Any
) -> None:
    monkeypatch.setattr(inbox, "SIGNALS_MAX", 30)
    monkeypatch.setattr(inbox, "SIGNALS_BYTES", 1_000_000)
    operator = begin(world, waiting())
    taken = signalled(world, operator, 40, payload)
    assert taken == 30 if payload is None else 5 < taken < 20
    refused = [message for reason, message in world.api.events if reason == "CommandRefused"]
    assert len(refused) == 40 - taken
    assert f"{taken} signals that no step has taken" in refused[0]


def test_a_signal_that_a_step_took_makes_room(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "SIGNALS_MAX", 2)
    steps = [waiting(f"w{n}", "other") | ({"dependsOn": [f"w{n - 1}"]} if n else {}) for n in range(5)]
    operator = begin(world, *steps)
    for _ in range(5):
        world.api.command("r", signal={"name": "other"})
        operator.hear_all()
        world.settle()
    ends(world, operator)
    assert world.status()["phase"] == "Succeeded"


def test_a_run_is_resumed_so_often_and_not_more(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "WORDS_MAX", 3)
    operator = begin(world, waiting())
    for _ in range(5):
        world.api.command("r", resume={})
    operator.hear_all()
    world.settle()
    assert [reason for reason, _ in world.api.events].count("CommandRefused") == 2


# -- the room for a status ---------------------------------------------------------------------------------------------


def limit_statuses(world: ClusterWorld, most: int) -> None:
    """The API server takes no status of more bytes."""
    take = world.api.patch_status

    def patch(run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        if len(json.dumps(status)) > most:
            raise Invalid("etcdserver: request is too large")
        return take(run, version, status)

    world.api.patch_status = patch  # type: ignore[method-assign]


@pytest.mark.parametrize("most", [6000, 1600, 1000])
def test_a_status_that_does_not_fit_is_made_smaller_and_says_so(world: ClusterWorld, most: int) -> None:
    limit_statuses(world, most)
    operator = begin(world, *(step(f"s{n}") for n in range(60)), approval("last", *(f"s{n}" for n in range(60))))
    ends(world, operator)
    status = world.status()
    assert ready(world)[0] == Reason.AWAITING_APPROVAL
    assert "shortened" in ready(world)[1]
    assert status["journal"]
    assert (len(status.get("steps", ())) == 61) is (most == 6000)
    written = len(world.statuses)
    for _ in range(3):
        operator.hear_all()
        world.wait(40)
    assert len(world.statuses) == written  # what is cut is not written again and again
    world.answer()
    ends(world, operator)
    assert world.status()["phase"] == "Succeeded"
    assert not operator.reconciler.live


def test_where_no_status_fits_an_event_says_it(world: ClusterWorld) -> None:
    limit_statuses(world, 10)
    world.api.apply_run("r", {"workflow": {"steps": [{"name": "a"}]}})
    world.operator()
    world.wait(100)
    assert not world.statuses
    told = [message for reason, message in world.api.events if reason == "StatusRefused"]
    assert "etcdserver: request is too large" in told[0]
    assert "The status would be InvalidSpec: spec.workflow.steps[0]: does nothing" in told[0]


def test_a_run_whose_status_might_not_fit_never_begins(world: ClusterWorld) -> None:
    big = {"inputs": {"x": "y" * run_loader.OBJECT_MAX}, "workflow": {"tools": [TOOL], "steps": [step("a")]}}
    world.api.apply_run("r", big)
    operator = world.operator()
    world.wait(3)
    ends(world, operator)
    assert not world.created
    assert ready(world)[0] == Reason.INVALID_SPEC
    assert "more than 1,400,000: this leaves no room for its status in the API server" in ready(world)[1]


def test_an_output_that_nests_deep_stands_in_the_journal_alone(world: ClusterWorld) -> None:
    deep: Any = json.loads(poison.lists(60))
    spec = {"inputs": {"x": deep}, "workflow": {"steps": [TIMER], "output": {"a": [[[[["${inputs.x}"]]]]]}}}
    world.api.apply_run("r", spec)
    world.operator()
    world.wait(10)
    assert world.status()["phase"] == "Succeeded"
    assert "output" not in world.status()
