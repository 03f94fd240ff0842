"""What people decide, tell and change while the operator looks or not; and what is left of runs that are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentrun.control import inbox
from agentrun.control.answers import KEPT_FOR
from agentrun.control.leftovers import AT_A_TIME, COMMANDS_KEPT, GRACE
from agentrun.control.views import RUNS
from agentrun.journal.records import Record
from agentrun.records.run_events import EventKind
from tests.harness.cluster_world import ClusterWorld, Operator, lost
from tests.harness.operator_steps import begin, quietly, workflow
from tests.harness.planner_world import approval, step

HOUR = 3600.0
WAIT = {"name": "w", "wait": {"signal": "s"}}
LONG_PAUSE = {"name": "p", "wait": {"duration": "100h"}}


def bodies(world: ClusterWorld, kind: EventKind) -> list[dict[str, Any]]:
    """What the journal of the run has under a kind of event."""
    return [event.body for event in events(world) if event.kind == kind]


def events(world: ClusterWorld) -> list[Record]:
    return world.records(world.api.all("runs")[0])


# -- decisions ---------------------------------------------------------------------------------------------------------

IN_TIME, LATE = 0.0, 2 * HOUR
DECISIONS: list[tuple[int, list[tuple[str, str, float]], str]] = [
    (1, [("ben", "Approved", IN_TIME)], "Approved"),
    (1, [("ben", "Approved", IN_TIME), ("carl", "Approved", LATE)], "Approved"),
    (1, [("ben", "Approved", IN_TIME), ("carl", "Rejected", LATE)], "Approved"),
    (1, [("ben", "Rejected", IN_TIME), ("carl", "Approved", LATE)], "Rejected"),
    (1, [("ben", "Approved", LATE), ("carl", "Approved", LATE)], "Expired"),
    (1, [("ben", "Rejected", LATE)], "Expired"),
    (2, [("ben", "Approved", IN_TIME), ("carl", "Approved", LATE)], "Expired"),
    (2, [("ben", "Approved", IN_TIME), ("carl", "Approved", IN_TIME), ("dora", "Rejected", LATE)], "Approved"),
    (2, [("ben", "Approved", IN_TIME), ("carl", "Rejected", IN_TIME), ("dora", "Approved", LATE)], "Rejected"),
]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("required", "decisions", "outcome"), DECISIONS)
def test_each_decision_made_while_no_operator_ran_is_judged_by_its_own_instant(
    world: ClusterWorld, required: int, decisions: list[tuple[str, str, float]], outcome: str, turned: bool
) -> None:
    """Who decided late made all that was decided in time late too. (``turned``: the last one writes the list anew.)"""
    begin(world, approval("a", required=required)).kill()
    (asked,) = world.api.objects["approvals"]
    began = world.now
    for person, verdict, at in decisions:
        world.wait(began + at + 1 - world.now if world.now < began + at else 0.5)
        assert world.api.decide(asked, person, verdict)
    world.wait(max(0.0, began + LATE - world.now))
    if turned:
        obj = world.api.objects["approvals"][asked]
        status = obj["status"] | {"decisions": obj["status"]["decisions"][::-1]}
        world.api.write("approvals", asked, obj | {"status": status})
    operator = world.operator()
    quietly(world, operator, 4)
    (condition,) = world.api.objects["approvals"][asked]["status"]["conditions"]
    assert condition["reason"] == outcome
    expected = {"Approved": "Succeeded", "Rejected": "Failed", "Expired": "Failed"}
    assert world.status()["phase"] == expected[outcome]
    assert ("nobody decided" in world.status().get("message", "")) == (outcome == "Expired")


# -- who changed what --------------------------------------------------------------------------------------------------


def test_who_suspends_resumes_and_cancels_is_in_the_journal(world: ClusterWorld) -> None:
    operator = begin(world, LONG_PAUSE)
    for by, change in (("ana", {"suspend": True}), ("ben", {"suspend": False}), ("carl", {"cancel": True})):
        world.api.edit_run("r", by, **change)
        quietly(world, operator, 1)
    assert [(e.kind, e.body["by"], e.body["verified"]) for e in events(world) if "by" in e.body] == [
        ("suspended", "ana", True),
        ("unsuspended", "ben", True),
        ("cancelled", "carl", True),
    ]


def test_who_changes_the_time_to_live_is_in_the_journal(world: ClusterWorld) -> None:
    operator = begin(world, LONG_PAUSE, ttlSecondsAfterFinished=5)
    assert bodies(world, EventKind.TTL_CHANGED) == [], "who makes a run sets it, and that is no change"
    for by, ttl in (("ana", 60), ("ana", 60), ("ben", None), ("ben", 7)):
        world.api.edit_run("r", by, ttlSecondsAfterFinished=ttl)
        quietly(world, operator, 1)
    world.api.edit_run("r", "carl", suspend=True)
    quietly(world, operator, 1)
    operator.kill()
    quietly(world, world.operator(), 1)
    expected = [("ana", 60), ("ben", None), ("ben", 7)]
    found = bodies(world, EventKind.TTL_CHANGED)
    assert found == [{"by": by, "verified": True, "ttlSecondsAfterFinished": ttl} for by, ttl in expected]


def test_a_run_that_is_suspended_for_ever_anew_does_not_fill_its_journal(
    world: ClusterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "WORDS_MAX", 3)
    operator = begin(world, LONG_PAUSE)
    for n in range(8):
        world.api.edit_run("r", suspend=True, ttlSecondsAfterFinished=n)
        quietly(world, operator, 1)
        world.api.edit_run("r", suspend=False)
        quietly(world, operator, 1)
    found = [event.kind for event in events(world)]
    assert [found.count(kind) for kind in ("suspended", "unsuspended", "ttlChanged")] == [3, 3, 3]
    world.api.edit_run("r", cancel=True)
    quietly(world, operator, 1)
    assert world.status()["phase"] == "Cancelled"


@pytest.mark.parametrize("change", [{"suspend": True}, {"cancel": True}])
def test_where_nobody_says_who_it_was_nothing_is_verified(world: ClusterWorld, change: dict[str, bool]) -> None:
    """It was written as verified, of nobody."""
    operator = begin(world, LONG_PAUSE)
    world.api.edit_run("r", None, **change)
    quietly(world, operator, 1)
    (body,) = [event.body for event in events(world) if event.kind in ("suspended", "cancelled")]
    assert (body["by"], body["verified"]) == (None, False)


def test_where_no_policy_vouches_a_name_is_not_verified(world: ClusterWorld) -> None:
    operator = begin(world, LONG_PAUSE)
    operator.reconciler.people.vouched = lambda: False
    world.api.edit_run("r", "ana", suspend=True)
    quietly(world, operator, 1)
    assert bodies(world, EventKind.SUSPENDED) == [{"by": "ana", "verified": False}]
    for vouched in (lambda: False, lambda: True):
        operator.reconciler.people.vouched = vouched
        world.api.command("r", "ana", resume={})
        quietly(world, operator, 1)
    assert [body["verified"] for body in bodies(world, EventKind.RESUMED)] == [False, True]


# -- commands ----------------------------------------------------------------------------------------------------------


def refusals(world: ClusterWorld) -> list[str]:
    return [message for reason, message in world.api.events if reason == "CommandRefused"]


@pytest.mark.parametrize("verb", [{"signal": {"name": "s", "payload": "evil"}}, {"resume": {}}])
def test_a_command_is_never_taken_by_a_run_made_after_it(world: ClusterWorld, verb: dict[str, Any]) -> None:
    """Somebody told a run that was not there, and a later one of that name took it."""
    planted = world.api.command("r", by="eve", **verb)
    operator = begin(world, WAIT)
    quietly(world, operator, 1)
    assert not bodies(world, EventKind.SIGNALLED) and not bodies(world, EventKind.RESUMED)
    assert world.api.answers() == {planted: "Rejected"}
    uid = world.api.all("runs")[0].uid
    assert refusals(world) == [f"{planted}: it may be older than the run: create it again, with spec.run.uid: {uid}"]


def test_a_command_made_in_the_second_of_the_run_needs_its_uid(world: ClusterWorld) -> None:
    """Instants of the API server are whole seconds: which of the two was first nobody knows."""
    operator = begin(world, WAIT)
    run = world.api.all("runs")[0]
    for uid in (None, run.uid):
        name = world.api.command("r", uid=uid, signal={"name": "s", "payload": uid})
        obj = world.api.objects["commands"][name]
        made = world.api.objects["runs"]["r"]["metadata"]["creationTimestamp"]
        world.api.write("commands", name, obj | {"metadata": obj["metadata"] | {"creationTimestamp": made}})
    quietly(world, operator, 1)
    assert [body["payload"] for body in bodies(world, EventKind.SIGNALLED)] == [run.uid]
    assert len(refusals(world)) == 1


def test_a_command_for_a_run_that_had_the_name_before_is_refused(world: ClusterWorld) -> None:
    operator = begin(world, WAIT)
    before = world.api.all("runs")[0].uid
    quietly(world, operator, 1)
    world.api.remove("runs", "r")
    name = world.api.command("r", uid=before, signal={"name": "s"})
    world.api.apply_run("r", {"workflow": workflow(WAIT)})
    quietly(world, operator, 1)
    assert world.api.answers() == {name: ""}, "it may be of a run of which the watch has not told yet"
    quietly(world, operator, 2 * GRACE)
    assert world.api.answers() == {name: "Rejected"} and not bodies(world, EventKind.SIGNALLED)
    (said,) = refusals(world)
    assert f"{name}: it is for AgentRun r with uid {before}, but the AgentRun of that name has another uid" in said


# -- what is left ------------------------------------------------------------------------------------------------------


def orphaned(world: ClusterWorld, operator: Operator) -> None:
    """The run is deleted, and what belongs to it stays."""
    world.api.remove("runs", "r", orphan=True)
    operator.hear_all()


def test_what_is_left_of_a_run_that_is_gone_is_removed(world: ClusterWorld) -> None:
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    orphaned(world, operator)
    name = world.api.command("r", resume={})
    quietly(world, operator, 2 * GRACE)
    assert not world.api.objects["approvals"] and world.api.answers() == {name: "Rejected"}
    assert refusals(world) == [f"{name}: there is no AgentRun r"]
    quietly(world, operator, 2 * KEPT_FOR)
    assert not world.api.objects["commands"]
    assert not len(operator.cache.approvals) and not len(operator.cache.commands)


def test_a_new_leader_removes_what_was_left_before_it(world: ClusterWorld) -> None:
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    operator.kill()
    world.api.remove("runs", "r", orphan=True)
    name = world.api.command("other", signal={"name": "s"})
    quietly(world, world.operator(), 2 * GRACE)
    assert not world.api.objects["approvals"] and world.api.answers() == {name: "Rejected"}


def test_what_a_run_made_anew_asks_is_not_removed_with_what_is_left_of_the_old(world: ClusterWorld) -> None:
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    (old,) = world.api.all("approvals")
    orphaned(world, operator)
    world.api.apply_run("r", {"workflow": workflow(approval("a"))})
    quietly(world, operator, 2 * GRACE)
    (new,) = world.api.all("approvals")
    assert new.run_uid == world.api.all("runs")[0].uid != old.run_uid
    assert world.api.decide(new.name)
    quietly(world, operator, 1)
    assert world.status()["phase"] == "Succeeded"


def test_nothing_is_removed_of_a_run_that_the_api_server_has(world: ClusterWorld) -> None:
    """The watch of the runs is late by minutes: the cache is not asked whether a run is gone."""
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    run = world.api.all("runs")[0]
    operator.controller.gone(RUNS, run)
    name = world.api.command("r", uid=run.uid, resume={})
    while operator.behind("commands"):
        operator.hear("commands")
    world.wait(3 * GRACE)
    assert world.api.objects["approvals"] and list(world.api.objects["commands"]) == [name]


@pytest.mark.parametrize("what", ["get_run", "delete_approval", "answer_command", "delete_command"])
@pytest.mark.parametrize("side", ["before", "after"])
def test_what_could_not_be_removed_is_removed_later(
    world: ClusterWorld, what: str, side: str, failing: Callable[[ClusterWorld, str, str], list[str]]
) -> None:
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    orphaned(world, operator)
    world.api.command("r", resume={})
    failed = failing(world, what, side)
    quietly(world, operator, 4 * GRACE)
    assert not world.api.objects["approvals"] and list(world.api.answers().values()) == ["Rejected"]
    quietly(world, operator, 2 * KEPT_FOR)
    assert failed and not world.api.objects["commands"]


@pytest.fixture
def failing() -> Callable[[ClusterWorld, str, str], list[str]]:
    """Let the first two calls of a name have no answer; the calls that had none."""

    def fail(world: ClusterWorld, what: str, side: str) -> list[str]:
        failed: list[str] = []

        def hook(operator: Operator, at: str, called: str) -> None:
            if called == what and at == side and len(failed) < 2:
                failed.append(called)
                lost(operator, called)

        world.hook = hook
        return failed

    return fail


def test_of_very_many_commands_without_a_run_the_oldest_go_at_once(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    names = [world.api.command(f"none-{n}", signal={"name": "s"}) for n in range(COMMANDS_KEPT + AT_A_TIME + 20)]
    quietly(world, operator, 16)
    assert set(world.api.objects["commands"]) == set(names[AT_A_TIME:])
    quietly(world, operator, 4)
    assert set(world.api.objects["commands"]) == set(names[AT_A_TIME:])
    quietly(world, operator, 11)
    assert set(world.api.objects["commands"]) == set(names[-COMMANDS_KEPT:])
    quietly(world, operator, 2 * GRACE)
    assert world.api.answers() == dict.fromkeys(names[-COMMANDS_KEPT:], "Rejected")


def test_what_cannot_be_looked_for_keeps_nothing_else(world: ClusterWorld, caplog: pytest.LogCaptureFixture) -> None:
    """A run that cannot be read, and a name that is none: what is left of others goes."""
    operator = begin(world, approval("a"))
    quietly(world, operator, 1)
    orphaned(world, operator)
    world.api.objects["runs"]["odd"] = {"metadata": {"name": "odd"}}
    for name in ("odd", "", "../../x", "A b", "gone"):
        world.api.command(name, resume={})
    quietly(world, operator, 2 * GRACE)
    assert not world.api.objects["approvals"]
    assert [view.run.name for view in world.api.all("commands") if view.open] == ["odd"]
    assert "cannot remove what is left of that run" in caplog.text
    del world.api.objects["runs"]["odd"]


def test_a_live_run_is_left_alone(world: ClusterWorld) -> None:
    operator = begin(world, approval("a"))
    quietly(world, operator, 4 * GRACE)
    assert world.api.objects["approvals"] and len(operator.reconciler.live) == 1
