"""What people decide, say and stop: approvals, signals, waits, suspend, cancel, and calls with an unknown outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from tests.harness.planner_world import CALL, PlannerWorld, approval, compiled, request, step

ONCE = {"limit": 0}


def wait(name: str, *after: str, **how: Any) -> dict[str, Any]:
    return {"name": name, "dependsOn": list(after), "wait": how}


# -- approval steps --------------------------------------------------------------------------------------------------


def test_an_approval_waits_for_a_person_and_holds_no_process() -> None:
    world = PlannerWorld(compiled(approval("ok"), step("b", "ok")))
    waiting = world.go()
    assert waiting.waits_for_person
    assert world.running == []
    assert world.entry("ok")["waitingFor"] == {"approval": "ok", "subjects": ["Go on?"]}
    world.decide("ok", by="ben", groups=["finance"])
    world.go()
    assert world.settled("ok")["output"] == {"approved": True, "by": ["ben"], "comment": "why not"}
    assert world.running == ["b"]


def test_two_have_to_be_two_people() -> None:
    world = PlannerWorld(compiled(approval("ok", required=2)))
    world.go()
    world.decide("ok", by="ana")
    world.decide("ok", by="ana")
    assert world.go().waits_for_person
    world.decide("ok", by="ben", groups=["finance"])
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_one_rejection_rejects_and_says_who() -> None:
    world = PlannerWorld(compiled(approval("ok", required=2)))
    world.go()
    world.decide("ok", by="ana")
    world.decide("ok", "Rejected", by="ben", groups=["finance"])
    world.go()
    assert world.ended["failure"] == {"class": "Rejected", "message": "rejected by ben: why not"}


def test_nobody_changes_their_own_decision() -> None:
    """A rejection counted even from someone who had approved: each person's first decision is theirs."""
    world = PlannerWorld(compiled(approval("ok", required=2)))
    world.go()
    world.decide("ok", by="ana")
    world.decide("ok", "Rejected", by="ana")
    assert world.go().waits_for_person


@pytest.mark.parametrize(
    ("by", "groups", "digest"),
    [("mallory", ["sales"], None), ("ana", [], "sha256:something-else")],
    ids=["not an approver", "wrong digest"],
)
def test_a_decision_that_does_not_count(by: str, groups: list[str], digest: str | None) -> None:
    world = PlannerWorld(compiled(approval("ok")))
    world.go()
    world.decide(digest or "ok", by=by, groups=groups)
    assert world.go().waits_for_person


def test_an_approval_expires() -> None:
    world = PlannerWorld(compiled(approval("ok")))
    waiting = world.go()
    assert waiting.wake_at == 4600
    world.now = 4600
    world.go()
    assert world.ended["failure"] == {"class": "Timeout", "message": "nobody decided within 1h"}


def test_a_decision_after_the_time_does_not_count_even_where_nobody_had_looked() -> None:
    world = PlannerWorld(compiled(approval("ok")))
    world.go()
    world.now = 4600
    world.decide("ok")
    world.go()
    assert world.ended["failure"]["class"] == "Timeout"


def test_a_decision_in_time_counts_however_late_one_looks() -> None:
    world = PlannerWorld(compiled(approval("ok")))
    world.go()
    world.now = 4599
    world.decide("ok")
    world.now = 99999
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_the_question_is_bound_to_what_it_shows() -> None:
    digests = set()
    for amount in (1, 2):
        world = PlannerWorld(
            compiled(approval("ok", subject="Pay?", details="${inputs.amount}")), inputs={"amount": amount}
        )
        world.go()
        digests.add(world.events[0].body["request"]["digest"])
    assert len(digests) == 2


# -- approvals of tool calls -----------------------------------------------------------------------------------------


def test_a_tool_call_that_waits_for_approval_goes_on_with_the_decision() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.park("a", request("1"), request("2"))
    waiting = world.go()
    assert (waiting.waits_for_person, waiting.wake_at) == (True, 5000)
    world.decide("sha256:1", by="ben", groups=["finance"])
    assert world.go().waits_for_person  # the other one is open
    world.decide("sha256:2", "Rejected", by="ben", groups=["finance"])
    world.go()
    assert (world.starts[-1].attempt, world.starts[-1].events) == (2, (1, 2))


def test_a_tool_call_whose_approval_expired_goes_on_without() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.park("a", request("1"))
    world.now = 5000
    world.decide("sha256:1", by="ben", groups=["finance"])
    world.go()
    assert (world.starts[-1].attempt, world.starts[-1].events) == (2, ())


# -- waits -----------------------------------------------------------------------------------------------------------


def test_a_wait_for_a_while() -> None:
    world = PlannerWorld(compiled(wait("w", duration="${inputs.days}d"), step("b", "w")), inputs={"days": 2})
    waiting = world.go()
    assert (waiting.wake_at, waiting.waits_for_person) == (1000 + 2 * 86400, False)
    assert waiting.status["phase"] == "Waiting"
    world.now += 2 * 86400 - 1
    world.go()
    assert world.running == []
    world.now += 1
    world.go()
    assert world.running == ["b"]


def test_a_wait_until_an_instant() -> None:
    world = PlannerWorld(compiled(wait("w", until="${inputs.at}")), inputs={"at": "1970-01-01T01:00:00+00:00"})
    assert world.go().wake_at == 3600
    world.now = 3600
    world.go()
    assert world.ended["outcome"] == "Succeeded"


def test_an_instant_that_is_past_does_not_wait() -> None:
    world = PlannerWorld(compiled(wait("w", until="1970-01-01T00:00:00Z")))
    world.go()
    assert world.ended["outcome"] == "Succeeded"


@pytest.mark.parametrize("how", [{"until": "${inputs.x}"}, {"duration": "${inputs.x}"}])
@pytest.mark.parametrize("value", ["soon", "2027-01-31T09:00:00", "99999999999d", -1, None])
def test_a_wait_for_nothing_that_can_be_told_fails_and_does_not_break_the_plan(how: dict[str, str], value: Any) -> None:
    world = PlannerWorld(compiled(wait("w", **how)), inputs={"x": value})
    world.go()
    assert world.ended["failure"]["class"] == "Invalid"
    assert world.ended["failure"]["message"].startswith("wait: ")


def test_a_signal_ends_a_wait_and_its_payload_is_the_output() -> None:
    world = PlannerWorld(compiled(wait("w", signal="shipped"), step("b", "w")))
    assert world.go().waits_for_person
    world.append("signalled", name="returned", payload=1)
    assert world.go().waits_for_person
    world.append("signalled", name="shipped", payload={"by": "train"})
    world.go()
    assert world.settled("w")["output"] == {"by": "train"}
    assert world.running == ["b"]


def test_a_signal_that_comes_before_its_wait_is_not_lost() -> None:
    world = PlannerWorld(compiled(step("a"), wait("w", "a", signal="shipped")))
    world.append("signalled", name="shipped", payload=7)
    world.go()
    world.succeed("a")
    world.go()
    assert world.settled("w")["output"] == 7


def test_two_waits_for_one_name_take_a_signal_each() -> None:
    world = PlannerWorld(compiled(wait("v", signal="s"), wait("w", signal="s"), wait("x", "v", signal="s")))
    world.append("signalled", name="s", payload=1)
    world.go()
    assert world.settled("v")["output"] == 1
    assert world.state("w") == world.state("x") == "Waiting"
    world.append("signalled", name="s", payload=2)
    world.append("signalled", name="s", payload=3)
    world.go()
    assert (world.settled("w")["output"], world.settled("x")["output"]) == (2, 3)


def test_a_signal_that_does_not_come_in_time() -> None:
    world = PlannerWorld(compiled(wait("w", signal="s", timeout="1m")))
    assert world.go().wake_at == 1060
    world.now = 1060
    world.go()
    assert world.ended["failure"] == {"class": "Timeout", "message": "no signal s came in time"}


def test_a_signal_after_the_time_does_not_count_even_where_nobody_had_looked() -> None:
    """It did: whether the wait had timed out depended on when the planner looked."""
    world = PlannerWorld(compiled(wait("w", signal="s", timeout="1m")))
    world.go()
    world.now = 1061
    world.append("signalled", name="s", payload=1)
    world.go()
    assert world.ended["failure"]["class"] == "Timeout"


def test_a_signal_too_late_for_one_wait_is_there_for_another() -> None:
    world = PlannerWorld(
        compiled(
            {**wait("v", signal="s", timeout="1m"), "continueOnError": True},
            wait("w", signal="s"),
        )
    )
    world.go()
    world.now = 1061
    world.append("signalled", name="s", payload=1)
    world.go()
    assert (world.settled("v")["state"], world.settled("w")["output"]) == ("Failed", 1)


# -- suspend ---------------------------------------------------------------------------------------------------------


def test_a_suspended_run_stops_what_runs_and_starts_nothing_until_it_is_not() -> None:
    world = PlannerWorld(compiled(step("a"), step("b", "a")))
    world.go()
    world.append("suspended")
    world.go()
    assert world.executions[StepKey("a")].stopping
    world.park("a")
    waiting = world.go()
    assert (waiting.waits_for_person, waiting.status["phase"]) == (True, "Suspended")
    world.append("unsuspended")
    world.go()
    assert world.starts[-1].attempt == 2
    world.succeed("a")
    world.go()
    assert world.running == ["b"]


def test_a_suspended_run_asks_nobody() -> None:
    world = PlannerWorld(compiled(approval("ok"), wait("w", signal="s")))
    world.append("suspended")
    world.go()
    assert [event.kind for event in world.events] == ["suspended"]


def test_a_suspended_run_that_fails_does_not_settle_calls_before_it_goes_on() -> None:
    world = PlannerWorld(compiled(step("a"), step("b", retry=ONCE)))
    world.go()
    world.park("a", unknown="call-1")
    world.fail("b")
    world.append("suspended")
    world.resolve("a", "call-1")
    assert world.go().waits_for_person
    assert world.running == []
    world.append("unsuspended")
    world.go()
    assert world.starts[-1].drain


# -- cancel ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_stops_what_runs_compensates_and_comes_to_its_last_steps() -> None:
    world = PlannerWorld(
        compiled(step("a", compensate=CALL), step("b", "a"), step("c", "b"), **{"finally": [step("z")]})
    )
    world.go()
    world.succeed("a")
    world.go()
    world.append("cancelled")
    assert world.go().status["phase"] == "Cancelling"
    assert world.executions[StepKey("b")].stopping
    world.park("b")
    world.go()
    assert world.running == ["a.compensate"]
    world.succeed("a.compensate")
    world.go()
    assert world.running == ["z"]
    world.succeed("z")
    world.go()
    assert world.ended["outcome"] == "Cancelled"
    assert world.ended["steps"] == {"a": "Succeeded", "b": "Cancelled", "c": "Cancelled", "z": "Succeeded"}


def test_cancel_ends_every_wait() -> None:
    steps = [approval("ok"), wait("s", signal="s"), wait("d", duration="1h"), step("r"), step("q")]
    world = PlannerWorld(compiled(*steps))
    world.go()
    world.fail("r")
    world.park("q", request("1"))
    world.go()
    world.append("cancelled")
    world.go()
    assert set(world.ended["steps"].values()) == {"Cancelled"}


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_an_answer_is_about_one_unknown_outcome_whatever_clocks_say(ahead: float) -> None:
    """A node's clock that was behind let a person's "try again" count once more: the call was made again unasked."""
    world = PlannerWorld(compiled(step("a")))
    key = StepKey("a")
    world.go()
    world.park("a", unknown="call-1")
    world.facts[key] = replace(world.facts[key], at=world.now + ahead)
    world.append("resolved", step="a", callId="call-1", attempt=1, answer="retry", by="ana")
    world.go()
    assert world.starts[-1].events == (1,)
    world.park("a", unknown="call-1")
    world.facts[key] = replace(world.facts[key], at=world.now + ahead)
    assert world.go().waits_for_person and world.state("a") == "OutcomeUnknown"


@pytest.mark.parametrize("late", [False, True])
def test_whether_a_cancellation_came_too_late_is_said_by_who_recorded_it(late: bool) -> None:
    world = PlannerWorld(compiled(step("a"), **{"finally": [step("z")]}))
    world.go()
    world.succeed("a")
    world.go()
    world.now += 5.0 if not late else -5.0  # the clock of the node of z
    world.append("cancelled", late=late)
    world.succeed("z")
    world.go()
    assert world.ended["outcome"] == ("Succeeded" if late else "Cancelled")


def test_cancel_goes_before_suspend() -> None:
    world = PlannerWorld(compiled(step("a"), **{"finally": [step("z")]}))
    world.append("suspended")
    world.go()
    world.append("cancelled")
    world.go()
    assert world.running == ["z"]


def test_a_cancelled_run_still_asks_what_became_of_a_call() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.append("cancelled")
    world.go()
    world.park("a", unknown="call-1")
    asking = world.go()
    assert (asking.waits_for_person, asking.status["phase"]) == (True, "Stalled")
    assert "agentrun resolve RUN a" in asking.status["message"]
    world.resolve("a", "call-1")
    world.go()
    assert (world.starts[-1].drain, world.starts[-1].events) == (True, (2,))
    world.drain("a")
    world.go()
    assert world.ended["outcome"] == "Cancelled"


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_call_in_a_lost_attempt_is_not_forgotten_when_the_run_ends(how: str) -> None:
    """Its step was cancelled without a word though the call may have happened: only ``waiting`` records were asked."""
    world = PlannerWorld(compiled(step("a"), step("b", retry=ONCE)))
    world.go()
    world.lose("a", unknown="call-1")
    if how == "failed":
        world.fail("b")
    else:
        world.park("b")
        world.append("cancelled")
    world.go()
    assert world.running == ["a"]
    assert world.starts[-1].drain
    world.park("a", unknown="call-1")
    assert world.go().status["phase"] == "Stalled"


def test_the_call_of_an_item_is_settled_before_its_failed_fan_out_is() -> None:
    world = PlannerWorld(compiled(step("f", forEach={"items": [1, 2]}, retry=ONCE)))
    world.go()
    world.park("f[0]", unknown="call-1")
    world.fail("f[1]")
    assert world.go().waits_for_person
    world.resolve("f.0", "call-1", "happened")
    world.go()
    assert world.starts[-1].drain
    world.succeed("f[0]", "it happened")
    world.go()
    assert world.settled("f")["output"] == ["it happened", None]


def test_a_call_whose_outcome_is_known_again_goes_on() -> None:
    world = PlannerWorld(compiled(step("a")))
    world.go()
    world.park("a", unknown="call-1")
    assert world.go().status["conditions"][3] == {
        "type": "Stalled",
        "status": "True",
        "reason": "OutcomeUnknown",
        "message": "a: did it happen? (agentrun resolve RUN a --happened RESULT|--retry|--give-up)",
    }
    world.resolve("a", "call-2")
    assert world.go().waits_for_person  # another call's
    world.resolve("a", "call-1", "retry")
    world.go()
    assert (world.starts[-1].events, world.starts[-1].drain) == ((2,), False)


# -- clocks that are set back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "due"), [({"duration": "10m"}, 600.0), ({"signal": "s", "timeout": "10m"}, 600.0)])
def test_a_wait_begun_by_a_clock_that_was_ahead_lasts_no_longer(how: dict[str, Any], due: float) -> None:
    world = PlannerWorld(compiled(wait("w", **how)), now=10_000.0)
    world.go()
    world.now -= 7200.0  # the clock was two hours ahead, and is set right
    planned = world.go()
    assert planned.wake_at == world.now + due
    world.now += due
    world.go()
    assert "w" in {event.body["step"] for event in world.events if event.kind == "settled"}


@pytest.mark.parametrize("how", [{"duration": "7d"}, {"signal": "s", "timeout": "7d"}])
def test_a_wait_does_not_end_because_a_machine_woke_up_in_1970(how: dict[str, Any]) -> None:
    """Without a battery its clock begins anew. A wait begun by it was over when the clock was set right."""
    world = PlannerWorld(compiled(wait("w", **how)), now=1_800_000_000.0)
    world.go()
    for began in (1000.0, 50.0):
        world.now = began
        assert world.go().wake_at == began + 7 * 86400.0
    world.now = 1_800_003_600.0
    assert world.go().wake_at == 1_800_000_000.0 + 7 * 86400.0
    world.now = 1_800_000_000.0 + 7 * 86400.0
    world.go()
    assert "w" in {event.body["step"] for event in world.events if event.kind == "settled"}


def test_an_instant_that_a_person_gave_stays_whatever_clocks_do() -> None:
    world = PlannerWorld(compiled(wait("w", until="2027-01-31T09:00:00Z")), now=1_799_999_000.0)
    first = world.go()
    world.now -= 7200.0
    assert world.go().wake_at == first.wake_at
    assert len([event for event in world.events if event.kind == "waitStarted"]) == 1
