"""The operator while journal, cache and API server disagree for a moment: no answer, a late watch, a takeover."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.control.controller import RESYNC
from agentrun.control.run_state import Attempt, RunState
from agentrun.control.views import PodView
from agentrun.journal.fork import plan_fork
from agentrun.journal.log import EventLog
from agentrun.journal.runs import read_manifest
from agentrun.kube.errors import Refused
from agentrun.plan.attempt_tracker import AttemptTracker
from tests.harness.cluster_world import ClusterWorld, Operator, lost
from tests.harness.operator_steps import begin, workflow
from tests.harness.planner_world import CALL, approval, step


def pod_of(world: ClusterWorld, path: str) -> PodView:
    """The pod of a step that is alive."""
    return next(pod for pod in world.pods() if pod.key.path == path)


def open_journal(world: ClusterWorld, path: str) -> None:
    """Let a step's pod be taken by its node, and its runner open the journal."""
    for _ in range(2):
        world.advance(pod_of(world, path))


def quietly(world: ClusterWorld, operator: Operator, seconds: float) -> None:
    operator.hear_all()
    world.wait(seconds)


# -- pods --------------------------------------------------------------------------------------------------------------


def test_a_pod_that_settles_a_call_is_not_deleted_before_it_begins(world: ClusterWorld) -> None:
    """Each was told to leave as soon as it was made; a run whose call was unknown could not be cancelled."""
    operator = begin(world, step("a"))
    operator.hear_all()
    open_journal(world, "a")
    world.advance(pod_of(world, "a"))  # its intent
    world.end(pod_of(world, "a"), word=False)
    world.api.edit_run("r", cancel=True)
    for _ in range(30):  # no node takes the second pod for some seconds
        quietly(world, operator, 0.2)
    assert pod_of(world, "a").grace is None
    world.run_pods()
    quietly(world, operator, 2)
    assert world.created == [("a", 1), ("a", 2)]
    assert world.status()["steps"][0]["state"] == "OutcomeUnknown"


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_run_does_not_end_while_a_pod_of_it_is_being_made(how: str, world: ClusterWorld) -> None:
    """Without an answer, and before the watch told of the pod, the run was over; then the pod made its call."""
    wait = {"name": "w", "wait": {"signal": "s"}}
    world.api.apply_run("r", {"workflow": workflow(step("b", retry={"limit": 0}), wait, step("a", "w"))})
    operator = world.operator()
    world.settle()
    operator.hear_all()
    open_journal(world, "b")
    quietly(world, operator, 2)
    world.api.command("r", signal={"name": "s"})

    def hook(operator: Operator, side: str, what: str) -> None:
        if not what.startswith("create_pod a") or side != "after":
            return
        world.hook = lambda *_: None
        if how == "cancelled":
            world.api.edit_run("r", cancel=True)
            while operator.behind("runs"):
                operator.hear("runs")
        for _ in range(3):
            for pod in world.pods():
                if pod.key.path == "b":
                    world.advance(pod, "fail")
        for _, view in [entry for entry in world.api.log["pods"] if entry[1].key.path == "b"]:
            operator.controller.pod_seen(view)  # of a, the watch tells later
        lost(operator, what)

    world.hook = hook
    while operator.behind("commands"):
        operator.hear("commands")
    world.wait(5)
    run = world.api.all("runs")[0]
    assert world.kinds(run)[-1] != "ended"
    world.run_pods()
    quietly(world, operator, 2)
    assert world.ledger["a"] == (how == "failed")  # what runs when another step fails comes to its end
    assert world.kinds(run)[-1] == "ended"


def test_a_pod_that_is_found_after_the_end_is_told_to_leave(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    quietly(world, operator, 1)
    run = world.api.all("runs")[0]
    late = pod_of(world, "a")
    world.api.edit_run("r", cancel=True)
    quietly(world, operator, 1)
    world.advance(pod_of(world, "a"))
    quietly(world, operator, 1)
    assert world.kinds(run)[-1] == "ended"
    world.api.write("pods", late.name, late)
    quietly(world, operator, 1)
    assert [pod.grace for pod in world.pods()] != [None]


def test_a_step_on_a_lost_node_is_fenced_before_its_cancelled_run_ends(world: ClusterWorld) -> None:
    """The runner there went on after the run was Cancelled, and made its call."""
    operator = begin(world, step("a"))
    operator.hear_all()
    open_journal(world, "a")
    zombie = world.containers[pod_of(world, "a").uid]
    world.api.edit_run("r", cancel=True)
    for _ in range(2):
        quietly(world, operator, 75)
    assert world.created == [("a", 1), ("a", 2)]
    second = next(pod for pod in world.pods() if pod.attempt == 2)
    for _ in range(4):
        world.advance(next(pod for pod in world.api.all("pods") if pod.uid == second.uid))
    quietly(world, operator, 2)
    for _ in range(5):
        zombie.advance("succeed", stopping=False)
    assert world.status()["phase"] == "Cancelled"
    assert not world.ledger["a"]


@pytest.mark.parametrize("how", ["no node has room", "the image is not to be had", "the kubelet does not admit it"])
def test_a_run_whose_pod_never_began_is_cancelled_without_another(how: str, world: ClusterWorld) -> None:
    """An attempt that fences it would never begin either, and the run never end."""
    operator = begin(world, step("a"))
    quietly(world, operator, 1)
    pod = pod_of(world, "a")
    if how != "the kubelet does not admit it":
        pod = world.api.write("pods", pod.name, replace(pod, trouble=(Reason.UNSCHEDULABLE, how)))
        quietly(world, operator, 1)
        world.api.edit_run("r", cancel=True)
        quietly(world, operator, 1)
    if how == "the image is not to be had":  # Failed, without the time of an end
        pod = world.api.write("pods", pod.name, replace(pod_of(world, "a"), phase="Ended"))
    if how == "the kubelet does not admit it":
        world.api.edit_run("r", cancel=True)
        world.api.write("pods", pod.name, replace(pod, phase="Ended"))
    else:
        world.vanish(pod)
    quietly(world, operator, 2)
    assert world.created == [("a", 1)]
    assert world.status()["phase"] == "Cancelled"


def test_a_pod_that_the_node_controller_called_failed_may_be_at_work(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    open_journal(world, "a")
    quietly(world, operator, 1)
    pod = pod_of(world, "a")
    world.api.edit_run("r", cancel=True)
    world.api.write("pods", pod.name, replace(pod, phase="Ended", stray=True))
    quietly(world, operator, 2)
    assert world.created == [("a", 1), ("a", 2)]


def test_a_zombie_whose_successor_died_unopened_is_fenced_too(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    open_journal(world, "a")
    zombie = world.containers[pod_of(world, "a").uid]
    world.api.delete_pod(pod_of(world, "a"))  # and its node is gone
    quietly(world, operator, 41)
    second = next(pod for pod in world.pods() if pod.attempt == 2)
    world.advance(second)
    world.end(next(pod for pod in world.pods() if pod.attempt == 2), word=False)
    world.api.edit_run("r", cancel=True)
    for _ in range(20):
        for pod in world.pods():
            if pod.attempt > 2:
                world.advance(pod)
        quietly(world, operator, 5)
    assert world.status()["phase"] == "Cancelled"
    for _ in range(5):
        zombie.advance("succeed", stopping=False)
    assert not world.ledger["a"]


def test_who_is_cancelled_already_is_not_told_to_cancel(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    open_journal(world, "a")
    world.advance(pod_of(world, "a"))  # its intent
    world.api.refuse = "exceeded quota"
    world.end(pod_of(world, "a"), word=False)
    world.api.edit_run("r", cancel=True)
    for _ in range(5):
        quietly(world, operator, 20)
    message = world.status()["message"]
    assert "exceeded quota" in message
    assert "agentrun cancel" not in message


def test_a_pod_that_a_new_leader_finds_after_the_end_is_told_to_leave(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    quietly(world, operator, 1)
    late = pod_of(world, "a")
    world.api.edit_run("r", cancel=True)
    quietly(world, operator, 1)
    world.advance(pod_of(world, "a"))
    quietly(world, operator, 1)
    operator.kill()
    world.api.write("pods", late.name, late)
    world.operator()
    world.wait(2)
    assert [pod.grace for pod in world.pods()] != [None]


def test_ends_are_taken_in_in_any_order() -> None:
    """A list has attempt 10 before attempt 9: the tenth was forgotten, and its pod made again, round and round."""
    live = RunState("u", None, None, AttemptTracker({StepKey("a"): StepFact(attempt=9, seq=20)}))  # type: ignore[arg-type]
    for number in (10, 9):
        live.take(StepKey("a"), number, None, StepFact(attempt=9, seq=20), 1.0)
    assert live.tracker.unopened == {StepKey("a"): 1}


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_what_our_own_clock_has_stamped_moves_with_it(jump: float) -> None:
    """Else a clock that is set stops attempts at work, or keeps a pause until it has caught up."""
    key, now = StepKey("a"), 1_800_000_000.0
    tracker = AttemptTracker({key: StepFact(attempt=1, seq=2, at=now, started=now - 5)}, lost_at={key: now - 10})
    live = RunState("u", None, None, tracker)  # type: ignore[arg-type]
    live._attempts = {"1": Attempt(key, 1, running=now - 60, leaving=now + 30), "2": Attempt(key, 2)}
    live.refused(key, "no", now)
    until = live._refusals[key].until
    live.clock_set(jump, now + jump)
    first, second = live._attempts.values()
    assert (first.running, first.leaving) == (now - 60 + jump, now + 30 + jump)
    assert (second.running, second.leaving) == (None, None)
    assert tracker.lost_at[key] == now - 10 + jump and live._refusals[key].until == until + jump
    assert live.facts[key].at == min(now, now + jump)


def test_a_pod_that_was_given_up_and_ends_later_makes_no_hot_loop(world: ClusterWorld) -> None:
    world.alone = False
    first = begin(world, step("a"))
    first.hear_all()
    open_journal(world, "a")
    world.api.delete_pod(pod_of(world, "a"))  # and its node dies
    quietly(world, first, 41)
    assert world.created == [("a", 1), ("a", 2)]
    first.kill()
    second = world.operator()
    world.wait(1)
    world.end(next(pod for pod in world.pods() if pod.attempt == 2), word=False)  # before it opened its journal
    second.hear_all()
    calls: list[str] = []

    def hook(operator: Operator, side: str, what: str) -> None:
        if side == "before" and what.startswith("create_pod"):
            calls.append(what)
            assert len(calls) < 50, calls

    world.hook = hook
    world.wait(70)
    assert len(calls) < 10


def test_a_pod_that_is_gone_before_the_answer_to_its_creation_is_followed_by_another(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    quietly(world, operator, 3)
    world.advance(pod_of(world, "a"))
    quietly(world, operator, 3)

    def hook(operator: Operator, side: str, what: str) -> None:
        if what.startswith("create_pod") and side == "after":
            world.hook = lambda *_: None
            world.vanish(world.pods()[0])
            while operator.behind("pods") > 1:
                operator.hear("pods", lost=True)
            operator.hear("pods")

    world.hook = hook
    world.vanish(world.pods()[0])
    quietly(world, operator, 2 * RESYNC)
    assert len(world.created) > 2


# -- visits ------------------------------------------------------------------------------------------------------------


def test_a_visit_that_was_refused_is_made_when_we_lead_on(world: ClusterWorld) -> None:
    """A process that was stopped for ten seconds leads on where nobody took over; what came meanwhile was forgotten."""
    operator = begin(world, approval("ok"), step("b", "ok"))
    quietly(world, operator, 3)
    world.answer()
    operator.leads = False
    operator.hear_all()
    world.settle()
    operator.leads = True
    world.wait(3 * RESYNC)
    assert ("b", 1) in world.created


# -- people ------------------------------------------------------------------------------------------------------------


def test_a_decision_in_time_counts_though_the_watch_is_late_with_all_of_it(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok", timeout="60s"), step("a", "ok"))
    world.wait(50)  # the watch has told nothing of the Approval yet
    world.api.decide(world.api.all("approvals")[0].name, "ben")
    world.wait(20)
    quietly(world, operator, 30)
    assert world.created == [("a", 1)]


def test_a_decision_that_is_heard_while_another_is_recorded_is_not_closed_over(world: ClusterWorld) -> None:
    operator = begin(world, approval("one", timeout="60s"), approval("two"), step("a", "one"))
    quietly(world, operator, 59)
    names = {found.name.split("-")[1]: found.name for found in world.api.all("approvals")}
    for name in ("two", "one"):  # the watch tells of the one that came in time last
        world.api.decide(names[name], "ben")

    def hook(operator: Operator, side: str, what: str) -> None:
        if what.startswith("store create") and "/events/" in what and side == "before":
            world.hook = lambda *_: None
            operator.hear("approvals")

    world.hook = hook
    world.loop.now += 2  # its time is over when the visit begins
    operator.hear("approvals")
    world.wait(5)
    quietly(world, operator, 5)
    assert world.created == [("a", 1)]


def test_an_approval_that_is_deleted_before_it_was_heard_of_is_made_again(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"), step("a", "ok"))
    while operator.behind("approvals"):
        operator.hear("approvals", lost=True)
    world.api.remove("approvals", "r-ok")
    quietly(world, operator, 1)
    assert list(world.api.objects["approvals"]) == ["r-ok"]


def test_an_approval_that_the_api_server_refuses_is_said_and_holds_up_no_other(world: ClusterWorld) -> None:
    world.api.apply_run("r", {"workflow": workflow(approval("ok"), approval("two"), step("a"))})
    operator = world.operator()
    full, asked = True, itertools.count()

    def hook(operator: Operator, side: str, what: str) -> None:
        if what == "create_approval" and side == "before" and next(asked) % 2 == 0 and full:
            raise Refused("exceeded quota: approvals")

    world.hook = hook
    quietly(world, operator, 2)
    ready = next(c for c in world.status()["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], "exceeded quota" in ready["message"]) == ("ApprovalRefused", True)
    assert list(world.api.objects["approvals"]) == ["r-two"]
    world.run_pods()
    for _ in range(5):
        quietly(world, operator, 1)
    assert {entry["name"]: entry["state"] for entry in world.status()["steps"]}["a"] == "Succeeded"
    assert len(world.statuses) < 6
    full = False
    quietly(world, operator, 40)
    assert set(world.api.objects["approvals"]) == {"r-ok", "r-two"}
    assert next(c for c in world.status()["conditions"] if c["type"] == "Ready")["reason"] == "AwaitingApproval"


def test_a_refused_look_for_a_pod_is_no_refused_approval(world: ClusterWorld) -> None:
    world.api.apply_run("r", {"workflow": workflow(step("a"))})
    operator = world.operator()

    def hook(operator: Operator, side: str, what: str) -> None:
        if what.startswith("create_pod") and side == "after":
            lost(operator, what)
        if what == "find_pod" and side == "before":
            raise Refused("pods is forbidden")

    world.hook = hook
    quietly(world, operator, 5)
    assert "ApprovalRefused" not in str(world.statuses)


# -- what has been decided ---------------------------------------------------------------------------------------------


def test_a_run_that_timed_out_stays_so_for_a_leader_with_another_clock(world: ClusterWorld) -> None:
    """It had timed out and been compensated; the next leader reckoned less time, and it ended Succeeded."""
    world.skew = 300.0
    operator = begin(world, step("a", compensate=CALL), step("b", "a"), timeout="55s")
    operator.hear_all()

    def act(path: str, times: int, seconds: float) -> None:
        for _ in range(times):
            for pod in [pod for pod in world.pods() if pod.key.path == path]:
                world.advance(pod)
            quietly(world, operator, seconds)

    act("a", 6, 10)
    act("b", 6, 10)
    quietly(world, operator, 2)
    act("a.compensate", 7, 1)
    operator.kill()
    operator = world.operator()
    world.wait(2)
    world.finish(operator)
    assert ("a.compensate", 1) in world.created
    assert world.status()["phase"] == "Failed"


def test_a_fork_takes_over_what_follows_a_step_that_was_passed_over(world: ClusterWorld) -> None:
    passed = {"when": "false"}
    steps: list[dict[str, Any]] = [step("a", **passed), step("b", "a"), step("c", "b", retry={"limit": 0})]
    world.api.apply_run("r", {"workflow": workflow(*steps)})
    operator = world.operator()
    world.settle()
    world.finish(operator, how={"c": "fail"})
    run = world.path(world.api.all("runs")[0])
    manifest = read_manifest(world.store, run) | {"uid": "f", "name": "f"}
    fork = plan_fork(world.store, run, manifest, StepKey("c"), None, now=world.now)
    assert {"a", "b"} <= fork.done
    assert not fork.again or all(text.startswith("c") for text in fork.again)


def test_a_fork_from_finally_takes_what_a_cancelled_run_asks_no_more(world: ClusterWorld) -> None:
    """Cancelled in the journal, and nobody has driven it on: a plan that is only read tells how it stands."""
    operator = begin(world, approval("ok"), step("b", "ok"), **{"finally": [step("z")]})
    quietly(world, operator, 1)
    operator.kill()
    run = world.path(world.api.all("runs")[0])
    log = EventLog(world.store, run, lambda: world.now)
    log.refresh()
    log.append("cancelled", {"by": "ana", "verified": False, "late": False})
    manifest = read_manifest(world.store, run) | {"uid": "f", "name": "f"}
    assert plan_fork(world.store, run, manifest, StepKey("z"), None, now=world.now).done == {"ok", "b"}
