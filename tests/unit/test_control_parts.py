"""The parts of the control loop one by one: the queue, the shelf of the cache, the status as it is written."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentrun.adapters import lister
from agentrun.adapters.kopf_handlers import registry_for
from agentrun.adapters.lister import ApiLists
from agentrun.adapters.settings import BadSetting, Settings
from agentrun.api.facts import StepFact
from agentrun.api.run import ConditionType, Reason
from agentrun.control import run_status
from agentrun.control.cache import Cache
from agentrun.control.controller import Controller
from agentrun.control.queue import BACKOFF_FIRST, BACKOFF_MAX, WorkQueue
from agentrun.control.views import RUNS, RunRef, RunView
from agentrun.kube.errors import Refused
from agentrun.observe.health import Health
from agentrun.observe.metrics import Metrics
from agentrun.plan.clocks import in_our_time
from agentrun.runner.ports import Ports

REF = RunRef("shop", "refund")
NOON = "2026-01-01T12:00:00Z"


def run(version: int = 1, uid: str = "u", status: dict[str, Any] | None = None, name: str = "refund") -> RunView:
    return RunView(RunRef("shop", name), uid, version, 1, 0.0, None, status=status)


async def test_a_key_is_in_the_queue_once_and_with_one_worker() -> None:
    queue = WorkQueue[str](Metrics(), space=lambda key: "", workers=4)
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    queue.add("a")  # while a worker has it: nobody else may have it
    assert len(queue) == 0
    queue.done("b")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_time_replaces_the_one_before() -> None:
    queue = WorkQueue[str](Metrics(), space=lambda key: "", workers=4)
    queue.due("late", 3600.0)
    queue.due("never", 0.01)
    queue.due("never", None)
    queue.due("late", 0.0)
    assert await asyncio.wait_for(queue.get(), 10) == "late"
    queue.done("late")
    queue.due("late", 3600.0)
    queue.due("soon", 0.02)  # another key's time that comes first is not held up by one that is far off
    assert await asyncio.wait_for(queue.get(), 10) == "soon"
    assert len(queue) == 0


async def test_failures_in_a_row_wait_longer_each_time() -> None:
    queue = WorkQueue[str](Metrics(), space=lambda key: "", workers=4)
    pauses = [queue.retry("a") for _ in range(12)]
    assert pauses[:3] == [BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST] and pauses[-1] == BACKOFF_MAX
    assert queue.retry("a", at_least=90.0) == 90.0
    queue.succeeded("a")
    assert queue.retry("a") == BACKOFF_FIRST
    queue.clear()
    assert len(queue) == 0


def test_an_older_view_changes_nothing() -> None:
    shelf = Cache().runs
    assert shelf.put(run(5)) and not shelf.put(run(5)) and not shelf.put(run(4))
    assert shelf.of(REF)["refund"].version == 5
    assert not shelf.drop(REF, "refund", "another")
    assert shelf.drop(REF, "refund", "u") and len(shelf) == 0 and not list(shelf.runs())


def test_an_answer_that_comes_after_the_deletion_brings_nothing_back() -> None:
    shelf = Cache().runs
    with shelf.expecting():
        shelf.drop(REF, "refund", "u")
        assert not shelf.put(run(7))
    assert shelf.put(run(8, uid="next"))


def test_a_list_forgets_what_was_deleted_and_not_what_came_after_it() -> None:
    shelf = Cache().runs
    shelf.put(run(3, uid="old", name="old"))
    shelf.put(run(4, uid="kept", name="kept"))
    shelf.put(run(12, uid="new", name="new"))
    assert shelf.keep({"kept"}, 10) == {RunRef("shop", "old")}
    assert {view.ref.name for view in shelf} == {"kept", "new"}


def conditions(status: str, reason: str) -> list[dict[str, Any]]:
    return [{"type": str(kind), "status": status, "reason": reason, "message": ""} for kind in ConditionType]


def planned(steps: list[dict[str, Any]], reason: Reason = Reason.RUNNING, **more: Any) -> dict[str, Any]:
    return {"phase": "Running", "conditions": conditions("False", str(reason)), "steps": steps, "output": None, **more}


def test_a_status_of_a_thousand_steps_stays_small_and_keeps_what_needs_an_eye() -> None:
    steps = [{"name": f"step-{n}", "state": "Succeeded", "attempt": 1, "output": "x" * 900} for n in range(1000)]
    steps[700] = {"name": "step-700", "state": "Failed", "failure": {"class": "Tool", "message": "no"}}
    written = run_status.composed(planned(steps), run(), "sha256:0", "s3://b/r/", {}, 10.0)
    assert len(json.dumps(written, separators=(",", ":"))) < 32 * 1024
    assert any(entry["name"] == "step-700" for entry in written["steps"])
    assert not any("output" in entry for entry in written["steps"])


def test_a_transition_is_when_the_status_of_a_condition_moves() -> None:
    first = run_status.composed(planned([]), run(), "d", "j", {}, 10.0)
    again = run_status.composed(planned([], Reason.RETRYING), run(2, status=first), "d", "j", {}, 20.0)
    times = [condition["lastTransitionTime"] for condition in (*first["conditions"], *again["conditions"])]
    assert len(set(times)) == 1 and again["conditions"][0]["reason"] == "Retrying"
    moved = planned([]) | {"conditions": conditions("True", "Succeeded")}
    later = run_status.composed(moved, run(3, status=again), "d", "j", {}, 30.0)
    assert {condition["lastTransitionTime"] for condition in later["conditions"]}.isdisjoint(times)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Reason.PENDING, Reason.RUNNING, False),
        (Reason.RUNNING, Reason.AWAITING_APPROVAL, True),
        (Reason.RUNNING, Reason.IMAGE_PULL_FAILED, True),
        (Reason.AWAITING_APPROVAL, Reason.RUNNING, False),
    ],
)
def test_what_a_person_waits_for_is_written_at_once(before: Reason, after: Reason, expected: bool) -> None:
    old, new = planned([], before), planned([], after)
    assert run_status.urgent(old, new) is expected
    assert run_status.urgent(old, new | {"completionTime": "2027-01-01T00:00:00Z"})


def test_an_approval_is_named_as_kubectl_finds_it() -> None:
    waiting = {"name": "sign-off", "state": "Waiting", "waitingFor": {"approval": "sign-off", "subjects": ["pay?"]}}
    written = run_status.composed(planned([waiting]), run(), "d", "j", {"sign-off": "refund-sign-off"}, 1.0)
    assert written["steps"][0]["waitingFor"] == {"approval": "refund-sign-off", "subjects": ["pay?"]}


def test_a_run_that_never_began_ends_as_cancelled() -> None:
    status = run_status.never_begun(run(), "there is no AgentWorkflow", 5.0)
    found = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert found == {"Succeeded": "False", "Ready": "False", "Reconciling": "False", "Stalled": "True"}
    assert status["phase"] == "Cancelled" and "completionTime" in status


SETTINGS = {"AGENTRUN_STORE": "s3://bucket/runs", "AGENTRUN_STEP_IMAGE": "agentrun:1"}


def test_the_operator_s_settings() -> None:
    found = Settings.from_environment(SETTINGS | {"AGENTRUN_ADMISSION_POLICIES": "b,a", "AGENTRUN_NAMESPACES": "y, x"})
    assert found.admission_policies == ("a", "b") and found.namespaces == ("x", "y")
    unguarded = Settings.from_environment(SETTINGS | {"AGENTRUN_ADMISSION": "false"})
    assert unguarded.admission_policies == () and unguarded.namespaces == ()


@pytest.mark.parametrize("wrong", [{}, {"AGENTRUN_ADMISSION": "no"}])
def test_without_policies_the_operator_says_what_to_set(wrong: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="AGENTRUN_ADMISSION"):
        Settings.from_environment(SETTINGS | wrong)


def test_events_are_heard_in_the_event_loop() -> None:
    """kopf runs a handler that is no coroutine in a thread: cache and queue were changed while the loop read them."""
    registry = registry_for(object.__new__(Controller), cast("Any", None), Metrics(), cast("Any", None))
    handlers = registry._watching.get_all_handlers()
    assert len(handlers) == 5
    assert all(inspect.iscoroutinefunction(handler.fn) for handler in handlers)


def test_what_a_clock_that_is_ahead_says_is_taken_as_of_now() -> None:
    fact = StepFact(attempt=2, started=1500.0, at=1700.0, intervals=((1500.0, 1550.0), (1600.0, 1700.0)))
    ours = in_our_time(fact, 1010.0)
    assert (ours.started, ours.at, ours.intervals) == (810.0, 1010.0, ((810.0, 860.0), (910.0, 1010.0)))
    assert ours.active == fact.active
    assert in_our_time(fact, 1700.0) is fact


def test_an_attempt_lives_in_no_time_before_it_was_planned() -> None:
    behind, ahead = (Ports(clock=lambda: 1000.0) for _ in range(2))
    behind.set_clock(1600.0)
    assert behind.clock() == 1600.0
    ahead.set_clock(900.0)
    assert ahead.clock() == 1000.0


async def test_one_object_that_cannot_be_read_is_not_the_end_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    meta = {"namespace": "n", "name": "good", "uid": "u", "resourceVersion": "5", "creationTimestamp": NOON}

    class Pages:
        async def pages(self, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
            yield {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": meta}, {"spec": 1}]}

    lists = ApiLists(cast("Any", Pages()), (), float, Health(()))
    assert [([view.ref.name for view in page], at) async for page, at in lists.pages(RUNS)] == [(["good"], 7)]
    assert "cannot be read" in caplog.text


class Namespaces:
    """Kube, of which namespace team-b may be refused."""

    def __init__(self) -> None:
        self.refused = True

    async def pages(self, path: str, labels: str = "", *, limit: int = 0) -> AsyncIterator[dict[str, Any]]:
        space = path.split("/namespaces/")[1].partition("/")[0]
        if space == "team-b" and self.refused:
            raise Refused("forbidden")
        meta = {"namespace": space, "name": "r", "uid": space, "resourceVersion": "5", "generation": 1}
        meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
        yield {"metadata": {"resourceVersion": "10"}, "items": [{"metadata": meta, "spec": {}}]}


async def test_a_namespace_that_is_refused_holds_up_no_other_and_nothing_of_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Role was removed: nothing was listed any more, of none, and no leader began to work."""
    monkeypatch.setattr(lister, "LOOK", 0.01)
    kube, metrics, cache = Namespaces(), Metrics(), Cache()
    lists = ApiLists(cast("Any", kube), ("team-a", "team-b"), float, Health(()))
    nothing: Any = None
    controller = Controller(
        nothing,
        lists,
        cache,
        WorkQueue(metrics, space=lambda ref: ref.namespace, workers=1),
        cast("Any", SimpleNamespace(answers=nothing)),
        metrics,
        float,
        float,
    )
    kube.refused = False
    await controller._list_patiently()
    assert (len(cache.runs), lists.answering) == (2, ("team-a", "team-b"))
    kube.refused = True
    await controller._list_patiently()
    assert (len(cache.runs), lists.answering) == (2, ("team-a",))
    kube.refused = False
    changed = asyncio.ensure_future(lists.others_answer(("team-a",)))
    await controller._list_patiently()
    await asyncio.wait_for(changed, 30)
    assert lists.answering == ("team-a", "team-b")


async def test_where_all_namespaces_are_refused_nothing_is_taken_for_a_list() -> None:
    lists = ApiLists(cast("Any", Namespaces()), ("team-b",), float, Health(()))
    with pytest.raises(Refused):
        [page async for page in lists.pages(RUNS)]
