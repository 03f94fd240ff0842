"""What a person can do now: each reason stands with its own commands."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.api.facts import ApprovalRequest
from agentrun.api.tools import Approvers
from agentrun.query.next_steps import Command, NextStep, next_steps
from agentrun.query.run_view import Mover, Question, RunView, signals_of

RESUME = Command(("resume", "r"))


class Run(RunView):
    """A run that this machine or an operator drives, by its name."""

    by: Mover = Mover.OPERATOR

    @property
    def mover(self) -> Mover:
        return self.by


def run_of(mover: Mover, *waits: dict[str, Any], **spec: Any) -> Run:
    steps = [{"name": f"s{n}", "state": "Waiting", "waitingFor": waiting} for n, waiting in enumerate(waits)]
    found = Run({"metadata": {"name": "r"}, "spec": spec, "status": {"phase": "Waiting", "steps": steps}})
    found.by = mover
    return found


def commands(steps: list[NextStep]) -> list[list[str]]:
    return [[" ".join([*c.words, c.rest]).strip() for c in step.commands] for step in steps]


def question(step: str, subject: str) -> Question:
    return Question(step, ApprovalRequest(subject, None, f"sha256:{subject}", Approvers(groups=["ops"]), 1, 2e9))


@pytest.mark.parametrize("mover", [Mover.OPERATOR, Mover.NOBODY])
def test_of_two_parked_steps_each_has_the_command_that_frees_it(mover: Mover) -> None:
    steps = next_steps(run_of(mover, {"resume": "lost"}, {"resume": "lost"}), [], RESUME)
    assert commands(steps) == [["logs r s0", "resume r"], ["logs r s1", "resume r"]]


@pytest.mark.parametrize("mover", [Mover.OPERATOR, Mover.DRIVER])
def test_of_two_waits_for_one_signal_each_has_the_command_that_ends_it(mover: Mover) -> None:
    steps = next_steps(run_of(mover, {"signal": "go"}, {"signal": "go"}), [], RESUME)
    assert commands(steps) == [["signal r go [PAYLOAD]"]] * 2


def test_a_suspended_run_with_a_parked_step_says_how_each_goes_on() -> None:
    steps = next_steps(run_of(Mover.OPERATOR, {"resume": "lost"}, suspend=True), [], RESUME)
    assert commands(steps) == [["logs r s0", "resume r"], ["resume r"]]


def test_several_questions_of_a_step_have_their_commands_once_on_a_cluster() -> None:
    asked = [question("a", "one"), question("a", "two"), question("b", "three")]
    steps = next_steps(run_of(Mover.OPERATOR), asked, RESUME)
    assert commands(steps) == [["approve r a", "reject r a"], [], ["approve r b", "reject r b"]]
    steps = next_steps(run_of(Mover.DRIVER), asked[:1], RESUME)
    assert commands(steps) == [["approve r a --as-group ops", "reject r a --as-group ops"]]


def test_who_may_not_read_what_is_asked_is_told_its_subject() -> None:
    (step,) = next_steps(run_of(Mover.OPERATOR, {"approval": "r-s0", "subjects": ["Go?"]}), None, RESUME)
    assert step.why == "s0 waits for approval: Go?" and len(step.commands) == 2


def test_a_wait_whose_signal_is_null_waits_for_none() -> None:
    waits = [{"name": "a", "wait": {"until": "2030-01-01T00:00:00Z", "signal": None}}, {"name": "b", "agent": {}}]
    assert signals_of({"steps": waits, "finally": [{"name": "c", "wait": {"signal": "go"}}]}) == ["go"]
