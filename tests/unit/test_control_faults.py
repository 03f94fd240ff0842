"""What can come between the operator and the cluster, one thing at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agentrun.control.controller import RESYNC
from tests.harness.cluster_world import ClusterWorld, Operator, lost
from tests.harness.operator_steps import Calls, begin, ends, workflow
from tests.harness.planner_world import CALL, approval, step
from tests.harness.virtual_time import VirtualLoop


def test_a_run_that_ended_is_forgotten_and_deleted_when_its_time_is_over(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"), ttlSecondsAfterFinished=60)
    operator.hear_all()
    world.answer()
    operator.hear_all()
    world.settle()
    assert world.status()["phase"] == "Succeeded"
    assert not operator.reconciler.live
    world.wait(59)
    assert world.api.objects["runs"]
    world.wait(2)
    assert not world.api.objects["runs"]


def test_a_run_that_ended_and_is_edited_is_not_taken_for_one_under_way(world: ClusterWorld) -> None:
    """The time to live may change after the end; kstatus reads an older observedGeneration as work in progress."""
    operator = begin(world, approval("ok"))
    operator.hear_all()
    world.answer()
    operator.hear_all()
    world.settle()
    ended = world.status()
    world.api.edit_run("r", ttlSecondsAfterFinished=3600)
    calls = Calls(world)
    operator.hear_all()
    world.settle()
    assert world.status() == ended | {"observedGeneration": 2}
    operator.hear_all()
    world.settle()
    assert calls.count("observe") == 1 and calls.count("patch_status") == 0


def test_a_closed_approval_is_closed_once_though_its_watch_is_late(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"), step("a", "ok"))
    operator.hear_all()
    calls = Calls(world)
    world.answer()
    operator.hear("approvals")
    operator.hear("approvals")
    world.wait(5)
    assert calls.count("settle_approval") == 1
    assert [view.settled for view in world.api.all("approvals")] == [True]


def test_a_decision_that_comes_between_is_waited_for_and_not_rushed_at(world: ClusterWorld) -> None:
    """The question is closed for one person's decision; of the next one's the watch tells nothing for a minute."""
    operator = begin(world, approval("ok"), step("a", "ok"))
    operator.hear_all()
    name = world.api.all("approvals")[0].name
    world.api.decide(name, "ben")
    operator.hear("approvals")
    world.api.decide(name, "cleo", "Rejected")
    calls = Calls(world)
    world.wait(60)
    assert 2 <= calls.count("settle_approval") < 12
    operator.hear_all()
    world.wait(61)
    run = world.api.all("runs")[0]
    assert [r.body["by"] for r in world.records(run) if r.kind == "decided"] == ["ben", "cleo"]
    [obj] = world.api.objects["approvals"].values()
    assert obj["status"]["conditions"][0]["reason"] == "Approved"
    assert world.created == [("a", 1)]


def test_a_decision_in_time_counts_though_the_watch_is_late(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok", timeout="60s"), step("a", "ok"))
    operator.hear_all()
    world.wait(50)
    world.api.decide(world.api.all("approvals")[0].name, "ben")
    world.wait(20)
    assert world.created == []
    assert world.kinds(world.api.all("runs")[0]) == ["approvalRequested"]
    operator.hear_all()
    world.wait(30)
    assert world.created == [("a", 1)]
    [obj] = world.api.objects["approvals"].values()
    assert obj["status"]["conditions"][0]["reason"] == "Approved"


def test_an_approval_whose_deletion_nobody_told_of_is_made_again(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"))
    operator.hear_all()
    world.settle()
    world.api.remove("approvals", "r-ok")
    operator.hear("approvals", lost=True)
    world.wait(RESYNC + 1)
    assert list(world.api.objects["approvals"]) == ["r-ok"]


def test_decisions_wait_for_the_policies_that_vouch_for_them(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"), step("a", "ok"))
    vouched = False
    operator.reconciler.people.vouched = lambda: vouched
    operator.hear_all()
    world.answer()
    operator.hear_all()
    world.wait(100)
    assert world.kinds(world.api.all("runs")[0]) == ["approvalRequested"]
    assert ("PoliciesMissing" in {reason for reason, _ in world.api.events}) is True
    vouched = True
    world.wait(40)
    assert world.created == [("a", 1)]


@pytest.mark.parametrize("decision", ["Approved", "Rejected", None])
def test_a_decision_in_time_is_not_lost_to_an_operator_that_does_not_know_the_policies_yet(
    world: ClusterWorld, decision: str | None
) -> None:
    """An operator that began after the end of the time, and had not seen the policies yet, took it for undecided."""
    operator = begin(world, approval("ok", timeout="60s"), step("a", "ok"))
    operator.hear_all()
    vouched = False
    operator.reconciler.people.vouched = lambda: vouched
    if decision is not None:
        world.answer(decision)
    operator.hear_all()
    world.wait(600)
    [obj] = world.api.objects["approvals"].values()
    if decision is None:  # nobody said anything: whoever vouches, the time is over
        assert obj["status"]["conditions"][0]["reason"] == "Expired"
        assert world.status()["phase"] == "Failed"
        return
    assert "conditions" not in obj["status"]
    assert world.status()["phase"] == "Waiting"
    vouched = True
    world.wait(40)
    [obj] = world.api.objects["approvals"].values()
    assert obj["status"]["conditions"][0]["reason"] == decision
    assert world.created == ([("a", 1)] if decision == "Approved" else [])


def test_a_run_that_waits_for_the_policies_can_be_cancelled(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok", timeout="60s"))
    operator.hear_all()
    operator.reconciler.people.vouched = lambda: False
    world.answer()
    operator.hear_all()
    world.wait(100)
    assert world.status()["phase"] == "Waiting"
    world.api.edit_run("r", "ana", cancel=True)
    operator.hear_all()
    world.settle()
    assert world.status()["phase"] == "Cancelled"
    [obj] = world.api.objects["approvals"].values()
    assert obj["status"]["conditions"][0]["reason"] == "Cancelled"  # as its step


def test_a_pod_is_told_to_leave_once(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    world.advance(world.pods()[0])
    world.advance(world.pods()[0])
    operator.hear_all()
    world.settle()
    calls = Calls(world)
    for change in ("suspend", "cancel"):
        world.api.edit_run("r", "ana", **{change: True})
        while operator.behind("runs"):
            operator.hear("runs")
        world.wait(5)
    assert calls.count("delete_pod") == 1


def test_a_pod_whose_node_is_dead_is_given_up_and_not_asked_after_for_ever(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    world.advance(world.pods()[0])
    world.api.delete_pod(world.pods()[0])
    operator.hear_all()
    world.wait(39)
    assert world.created == [("a", 1)]
    calls = Calls(world)
    world.wait(3)
    assert world.created == [("a", 1), ("a", 2)]
    world.wait(100)
    assert len(calls.made) < 40


def test_the_pods_of_an_earlier_run_of_the_name_wake_nobody(world: ClusterWorld) -> None:
    operator = begin(world, approval("ok"))
    operator.hear_all()
    world.settle()
    calls = Calls(world)
    run = world.api.all("runs")[0]
    begin_other = ClusterWorld(VirtualLoop())
    begin(begin_other, step("a"))
    [pod] = begin_other.pods()
    begin_other.close()
    begin_other.loop.close()
    operator.controller.pod_seen(replace(pod, run_uid="another", run=run.ref, grace=0.0, phase="Running"))
    world.wait(5)
    assert not calls.made


def test_an_adopted_pod_that_has_ended_is_taken_in(world: ClusterWorld) -> None:
    """The answer to its creation is lost, it runs and ends, and the watch tells of it after the next visit."""
    world.api.apply_run("r", {"workflow": workflow(step("a"))})
    operator = world.operator()
    tries = 0

    def hook(operator: Operator, side: str, what: str) -> None:
        nonlocal tries
        if what.startswith("create_pod") and side == "after":
            tries += 1
            if tries == 1:
                world.run_pods()
                lost(operator, what)

    world.hook = hook
    world.wait(3)
    assert tries == 1
    assert world.status()["phase"] == "Succeeded"
    operator.hear_all()
    world.wait(1)
    assert world.created == [("a", 1)]


def test_a_pod_that_ends_while_people_are_heard_is_not_started_again(world: ClusterWorld) -> None:
    operator = begin(world, step("a", retry={"limit": 2, "backoff": {"initial": "0s"}}), step("b", "a"))
    operator.hear_all()
    pod = world.pods()[0]
    for _ in range(4):
        world.advance(pod := world.pods()[0])
    operator.hear_all()
    world.settle()
    world.api.command("r", signal={"name": "s"})

    def hook(operator: Operator, side: str, what: str) -> None:
        if what == "answer_command" and side == "before":
            world.vanish(world.pods()[0])
            operator.hear_all()

    world.hook = hook
    operator.hear_all()
    world.settle()
    assert pod.key.path == "a"
    assert world.created[:1] == [("a", 1)]
    assert ("a", 1) not in world.created[1:]
    assert operator.reconciler.live


def test_a_list_does_not_bring_back_what_was_deleted_while_it_was_read(world: ClusterWorld) -> None:
    operator = begin(world, step("a"), step("b", "a"))
    operator.hear_all()
    world.advance(world.pods()[0])
    operator.hear_all()
    world.settle()

    def hook(operator: Operator, side: str, what: str) -> None:
        if what == "list pods" and side == "after":
            world.vanish(world.pods()[0])
            operator.hear_all()

    world.hook = hook
    world.wait(RESYNC + 1)
    assert len(operator.cache.pods) <= 1
    assert all(pod.uid in operator.reconciler.live[pod.run]._attempts for pod in operator.cache.pods)
    assert len(world.created) >= 2


def test_a_workflow_that_went_after_the_run_was_pinned_is_not_missed(world: ClusterWorld) -> None:
    world.api.workflows["flow"] = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentWorkflow",
        "metadata": {"name": "flow", "namespace": "n"},
        "spec": workflow(step("a"), step("b", "a")),
    }
    world.api.apply_run("r", {"workflowRef": {"name": "flow"}})
    first = world.operator()
    world.settle()
    assert world.created == [("a", 1)]
    assert not world.status()
    first.kill()
    del world.api.workflows["flow"]
    second = world.operator()
    world.finish(second)
    assert world.status()["phase"] == "Succeeded"
    assert world.created == [("a", 1), ("b", 1)]


def test_a_stale_leader_records_nothing_that_others_have_overtaken(
    world: ClusterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It planned to ask people, was stopped, and goes on when another leader has ended the run."""
    world.alone = False
    operator = begin(world, step("a"), approval("ok", "a"))
    operator.hear_all()
    world.run_pods()

    first = operator
    original = first.journal._do

    async def paused(name: str, namespace: str, call: Any) -> Any:
        if name == "append":
            first.running.clear()
        return await original(name, namespace, call)

    monkeypatch.setattr(first.journal, "_do", paused)
    operator.hear_all()
    world.settle()
    second = world.operator()
    world.api.edit_run("r", cancel=True)
    for _ in range(3):
        second.hear_all()
        world.wait(2)
    run = world.api.all("runs")[0]
    assert world.kinds(run)[-1] == "ended"
    count = len(world.records(run))
    first.running.set()
    world.wait(5)
    assert len(world.records(run)) == count


def test_a_command_is_answered_though_the_run_has_ended(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    ends(world, operator)
    assert world.status()["phase"] == "Succeeded"
    world.api.command("r", signal={"name": "s"})
    operator.hear_all()
    world.settle()
    assert list(world.api.answers().values()) == ["Rejected"]
    assert "CommandRefused" in {reason for reason, _ in world.api.events}


def test_a_store_that_is_away_is_said_in_the_status_and_nothing_is_lost(world: ClusterWorld) -> None:
    operator = begin(world, step("a"), approval("ok", "a"))
    operator.hear_all()
    world.run_pods()

    def away(operator: Operator, side: str, what: str) -> None:
        if what.startswith("store"):
            lost(operator, what)

    world.hook = away
    operator.hear_all()
    world.wait(10)
    assert world.status()["conditions"][1]["reason"] == "StoreUnavailable"
    world.finish(operator)
    assert world.status()["phase"] == "Succeeded"
    assert world.created == [("a", 1)]


def test_pods_that_are_refused_are_said_and_tried_again(world: ClusterWorld) -> None:
    world.api.refuse = "exceeded quota"
    operator = begin(world, step("a", forEach={"items": [0, 1], "maxParallel": 2}))
    operator.hear_all()
    world.wait(5)
    assert world.status()["conditions"][1]["reason"] == "PodRefused"
    assert "exceeded quota" in world.status()["message"]
    world.api.refuse = None
    world.finish(operator)
    assert sorted(world.created) == [("a.0", 1), ("a.1", 1)]


def test_a_cancelled_run_undoes_what_was_done(world: ClusterWorld) -> None:
    operator = begin(world, step("a", compensate=CALL), approval("ok", "a"), **{"finally": [step("z")]})
    operator.hear_all()
    ends(world, operator)
    world.api.edit_run("r", cancel=True)
    for _ in range(4):
        operator.hear_all()
        world.settle()
        world.run_pods()
        operator.hear_all()
        world.wait(1.5)
    assert world.status()["phase"] == "Cancelled"
    assert world.created == [("a", 1), ("a.compensate", 1), ("z", 1)]
    [obj] = world.api.objects["approvals"].values()
    assert obj["status"]["conditions"][0]["reason"] == "Cancelled"


def test_an_operator_that_leads_no_longer_writes_nothing(world: ClusterWorld) -> None:
    operator = begin(world, step("a"), step("b", "a"))
    operator.hear_all()
    world.run_pods()
    operator.leads = False
    calls = Calls(world)
    operator.hear_all()
    world.wait(2)
    assert not [what for what in calls.made if what.split()[0] in ("create_pod", "patch_status", "delete_pod")]
    assert world.created == [("a", 1)]


def test_cancelling_the_leader_leaves_nothing_behind(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.task.cancel()
    operator.dead = True
    world.loop.run_until_complete(asyncio.wait([operator.task]))
    assert not operator.reconciler.live
    assert not operator.controller.leading
    assert len(operator.queue) == 0


@pytest.mark.parametrize("when", ["before its list", "after its list", "after its first visit"])
def test_a_sweep_that_comes_as_the_next_leader_works_costs_nothing(world: ClusterWorld, when: str) -> None:
    """The request of a sweep may take longer than the Lease lasts. It removes pods whose end nobody has taken in."""
    begin(world, step("a"), step("b"), step("c", "a", "b")).kill()
    killed = next(pod for pod in world.pods() if pod.key.path == "b")
    world.end(killed, word=False)
    world.run_pods()
    if when == "before its list":
        world.api.sweep()
    operator = world.operator()
    if when == "after its list":
        world.api.sweep()
    world.settle()
    if when == "after its first visit":
        world.api.sweep()
    world.finish(operator)
    assert world.status()["phase"] == "Succeeded"
    assert [made for made in world.created if made[0] != "b"] == [("a", 1), ("c", 1)]
    assert world.ledger == {"a": 1, "b": 1, "c": 1}
