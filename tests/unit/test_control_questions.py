"""A decision that comes while its question ends otherwise: whichever is first, the Approval says what its step did.

Each test lets the decision come at one call of the operator after the other, heard of at once or later, by the same
operator or by one that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentrun.plan.events import EventIndex, tally
from agentrun.plan.snapshot import Event
from agentrun.records.run_events import EventKind
from tests.harness.cluster_world import ClusterWorld, Operator, steps_of
from tests.harness.operator_ports import METRICS
from tests.harness.operator_steps import workflow
from tests.harness.planner_world import approval, request, step
from tests.harness.virtual_time import VirtualLoop

WAIT = {"name": "w", "wait": {"signal": "s"}}
FAILS = {"name": "w", "wait": {"signal": "s", "timeout": "5m"}}


def cancel_and_resume(world: ClusterWorld) -> None:
    world.api.edit_run("r", cancel=True)
    world.api.command("r", resume={})


ENDS: dict[str, Callable[[ClusterWorld], None]] = {
    "cancelled": lambda world: world.api.edit_run("r", cancel=True),
    "cancelled while suspended": lambda world: world.api.edit_run("r", suspend=True, cancel=True),
    "cancelled and resumed": cancel_and_resume,
    "another step fails": lambda world: world.wait(301),
    "its own time is over": lambda world: world.wait(3601),
    "nothing": lambda world: world.api.edit_run("r", suspend=True),
}
"""What ends a question, or seems to."""

HEARD = ["at once", "later", "by another operator"]


def asked(world: ClusterWorld, how: str, *, call: bool, required: int = 1) -> Operator:
    """A run that waits for people in step ``a``."""
    other = FAILS if how == "another step fails" else WAIT
    world.api.apply_run("r", {"workflow": workflow(step("a") if call else approval("a", required=required), other)})
    operator = world.operator()
    world.settle()
    if call:
        for _ in range(6):
            operator.hear_all()
            world.settle()
            for pod in world.pods():
                world.advance(pod, "ask")
    operator.hear_all()
    world.wait(2)
    operator.hear_all()
    assert len(world.api.objects["approvals"]) == 1
    return operator


@contextmanager
def a_world() -> Iterator[ClusterWorld]:
    world = ClusterWorld(VirtualLoop())
    try:
        yield world
    finally:
        world.close()
        world.loop.close()


def strikes(how: str, heard: str, *, call: bool, decision: str) -> Iterator[ClusterWorld]:
    """One world for each call at which the decision comes, until there is none."""
    at, struck = 0, True
    while struck:
        struck = False
        with a_world() as world:
            operator = asked(world, how, call=call)
            left = at

            def hook(operator: Operator, side: str, what: str) -> None:
                nonlocal left, struck
                left -= not what.startswith(("list", "sweep"))
                if left >= 0 or struck:
                    return
                struck = True
                for name in world.api.objects["approvals"]:
                    world.api.decide(name, "ben", decision)
                if heard == "at once":
                    operator.hear("approvals")
                elif heard == "by another operator":
                    operator.kill()

            world.hook = hook
            ENDS[how](world)
            operator.hear_all()
            world.settle()
            world.finish(world.operator() if operator.dead else operator)
            yield world
        at += 1
    assert at > 3, "the decision never came in between"


MAY = {"Approved": ["Succeeded"], "Rejected": ["Failed"], "Expired": ["Failed"], "Cancelled": ["Cancelled"]}


@pytest.mark.parametrize("heard", HEARD)
@pytest.mark.parametrize("decision", ["Approved", "Rejected"])
@pytest.mark.parametrize("how", ENDS)
def test_an_approval_never_says_approved_when_its_step_was_cancelled(how: str, decision: str, heard: str) -> None:
    """A decision that was recorded after the step's end counted for the Approval, and not for the step."""
    for world in strikes(how, heard, call=False, decision=decision):
        for obj in world.api.objects["approvals"].values():
            (condition,) = obj["status"]["conditions"]
            state = dict(steps_of(world.status()))["a"]
            assert state in MAY[condition["reason"]], f"it was {condition['reason']}, and its step {state}"


@pytest.mark.parametrize("heard", HEARD)
@pytest.mark.parametrize("how", ["cancelled", "another step fails", "its own time is over", "nothing"])
def test_an_approval_of_a_call_says_approved_only_where_an_attempt_was_told(how: str, heard: str) -> None:
    """It said that enough people had approved, of a call that the cancelled run never made."""
    for world in strikes(how, heard, call=True, decision="Approved"):
        (obj,) = world.api.objects["approvals"].values()
        (condition,) = obj["status"]["conditions"]
        attempts = max(number for path, number in world.created if path == "a")
        state = dict(steps_of(world.status()))["a"]
        if condition["reason"] == "Approved":
            assert attempts > 1, f"nobody acted on it, and its step was {state}"
        elif condition["reason"] == "Cancelled":
            assert (state, attempts) == ("Cancelled", 1)


def test_a_decision_that_comes_after_the_end_of_its_step_is_in_the_journal_all_the_same() -> None:
    late = 0
    for world in strikes("cancelled", "by another operator", call=False, decision="Approved"):
        (run,) = world.api.all("runs")
        kinds = [str(record.kind) for record in world.records(run)]
        late += "decided" in kinds and kinds.index("settled") < kinds.index("decided")
    assert late, "of all the moments at which the decision came, none was after the end of its step"


def test_a_run_that_is_deleted_while_a_decision_is_taken_in_is_let_go_of() -> None:
    failed = METRICS.results["error"]
    for at in range(1, 9):
        with a_world() as world:
            operator, left = asked(world, "nothing", call=False), at

            def hook(operator: Operator, side: str, what: str) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    world.api.remove("runs", "r")

            world.hook = hook
            assert world.api.decide("r-a")
            for _ in range(3):
                operator.hear_all()
                world.wait(10)
            assert left <= 0
            assert not operator.reconciler.live
    assert METRICS.results["error"] == failed


# -- one tally -----------------------------------------------------------------------------------------------------


def said(by: str, decision: str = "Approved", at: float | None = 10.0, verified: bool | None = True) -> dict[str, Any]:
    body: dict[str, Any] = {"digest": QUESTION.digest, "by": by, "decision": decision}
    return body | ({"at": at} if at is not None else {}) | ({"verified": verified} if verified is not None else {})


QUESTION = request("c1", expires_at=100.0, required=2)
COUNTED: list[tuple[list[dict[str, Any]], str]] = [
    ([said("ben"), said("cleo")], "Approved"),
    ([said("ben"), said("ben")], "Pending"),
    ([said("ben"), said("ben", "Rejected"), said("cleo")], "Approved"),
    ([said("ben"), said("cleo", "Rejected"), said("dora")], "Rejected"),
    ([said("ben"), said("cleo", at=100.0)], "Pending"),
    ([said("ben"), said("cleo", at=None)], "Approved"),
    ([said("ben"), said("cleo", verified=False)], "Pending"),
    ([said("ben"), said("cleo", verified=None)], "Pending"),
    ([said("ben", "Rejected", verified=False)], "Pending"),
    ([said("ben"), said("cleo") | {"digest": "another"}], "Pending"),
    ([], "Pending"),
]


@pytest.mark.parametrize(("bodies", "state"), COUNTED)
def test_what_closes_an_approval_counts_as_what_ends_its_step(bodies: list[dict[str, Any]], state: str) -> None:
    """``at`` missing: it was recorded at 50. ``verified`` missing: nobody vouches for it."""
    events = [Event(n, 50.0, str(EventKind.DECIDED), body) for n, body in enumerate(bodies)]
    for now, undecided, closed in ((60.0, "Pending", "Cancelled"), (200.0, "Expired", "Expired")):
        assert tally(QUESTION, events, now, verified=True).state == (undecided if state == "Pending" else state)
        found = EventIndex(events, verified=True).closed(QUESTION, now)
        assert found == (closed if state == "Pending" else state)


def test_who_may_decide_is_asked_where_nobody_vouches() -> None:
    groups = {"mallory": ["sales"], "ben": ["finance"], "eve": [], "cleo": ["sales", "finance"]}
    bodies = [said(by, verified=True) | {"groups": found} for by, found in groups.items()]
    events = [Event(n, 50.0, str(EventKind.DECIDED), body) for n, body in enumerate(bodies)]
    assert tally(QUESTION, events, 60.0).by == ("ben", "cleo")
