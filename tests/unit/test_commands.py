"""What a person's verb becomes in the journal, on a cluster and on one machine, and when it is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

import agentrun
from agentrun.api.approval import Decision
from agentrun.api.command import Happened, Resolve, Resume, Signal
from agentrun.api.facts import AttemptEnd, StepFact, UnknownCall
from agentrun.api.keys import StepKey
from agentrun.plan.commands import (
    Author,
    Cancel,
    Decide,
    DecideApproval,
    KeepFor,
    NewEvent,
    Refusal,
    Suspend,
    Unsuspend,
    Verb,
    already_recorded,
    event_for,
)
from agentrun.plan.events import EventIndex
from agentrun.plan.snapshot import Event

A, B = StepKey("a"), StepKey("b", 3)
UNKNOWN = StepFact(
    attempt=2, seq=9, at=100.0, end=AttemptEnd.WAITING, unknown=UnknownCall("c1", "pay", {}, "no answer")
)

HERE = Author("ann")
THERE = Author("ann", verified=True, command="u1", on_cluster=True)
"""The author of an AgentCommand."""
SPEC = Author("ann", verified=True, on_cluster=True)
"""Who changed the spec, or decided."""


class Run:
    def __init__(self, *, finally_begun: bool = False) -> None:
        self.finally_begun = finally_begun

    def fact(self, key: StepKey) -> StepFact | None:
        return {A: UNKNOWN}.get(key)

    def lost(self) -> list[tuple[StepKey, int]]:
        return [(A, 2), (B, 6)]


RESOLVED = {"step": "a", "callId": "c1", "attempt": 2}
BODIES: list[tuple[Verb, Author, str, dict[str, Any]]] = [
    (Signal(name="go", payload=[1]), HERE, "signalled", {"name": "go", "payload": [1]}),
    (Signal(name="go"), THERE, "signalled", {"name": "go", "payload": None}),
    (Resume(step="b[3]"), HERE, "resumed", {"step": "b.3", "attempts": {"b.3": 6}}),
    (Resume(step="b[3]"), THERE, "resumed", {"step": "b.3", "attempts": {"a": 2, "b.3": 6}}),
    (Resume(), THERE, "resumed", {"attempts": {"a": 2, "b.3": 6}}),
    (Resolve(step="a", retry=True), HERE, "resolved", RESOLVED | {"answer": "retry", "result": None}),
    (Resolve(step="a", give_up=True), HERE, "resolved", RESOLVED | {"answer": "giveUp", "result": None}),
    (
        Resolve(step="a", call_id="c1", happened=Happened(result=7)),
        THERE,
        "resolved",
        RESOLVED | {"answer": "happened", "result": 7},
    ),
    (Suspend(), HERE, "suspended", {}),
    (Suspend(), SPEC, "suspended", {}),
    (Unsuspend(), HERE, "unsuspended", {}),
    (Unsuspend(), SPEC, "unsuspended", {}),
    (Cancel(), HERE, "cancelled", {}),
    (Cancel(), SPEC, "cancelled", {"late": False}),
    (KeepFor(60), SPEC, "ttlChanged", {"ttlSecondsAfterFinished": 60}),
    (
        Decide(B, "sha256:1", "Approved", "ok", ("ops",)),
        HERE,
        "decided",
        {"step": "b.3", "digest": "sha256:1", "groups": ["ops"], "decision": "Approved", "comment": "ok"},
    ),
    (
        DecideApproval("r-b", Decision("ann", "Rejected", "sha256:1", "no", 5.0)),
        SPEC,
        "decided",
        {"approval": "r-b", "digest": "sha256:1", "decision": "Rejected", "comment": "no", "at": 5.0},
    ),
]


def index(*events: tuple[str, dict[str, Any]]) -> EventIndex:
    return EventIndex([Event(n, float(n), kind, body) for n, (kind, body) in enumerate(events, 1)])


def made(verb: Verb, author: Author, run: Run | None = None) -> NewEvent:
    event = event_for(verb, run or Run(), author)
    assert isinstance(event, NewEvent)
    return event


@pytest.mark.parametrize(("verb", "author", "kind", "body"), BODIES)
def test_a_verb_becomes_an_event(verb: Verb, author: Author, kind: str, body: dict[str, Any]) -> None:
    signed: dict[str, Any] = {"by": "ann", "verified": author.verified}
    signed |= {"command": author.command} if author.command else {}
    event = made(verb, author)
    assert (event.kind, event.body) == (kind, signed | body)


def test_the_table_has_every_verb() -> None:
    assert {type(verb) for verb, *_ in BODIES} == set(get_args(Verb))


@pytest.mark.parametrize("author", [HERE, SPEC])
def test_a_cancellation_that_comes_after_finally_has_begun_says_so(author: Author) -> None:
    assert made(Cancel(), author, Run(finally_begun=True)).body["late"] is True


@pytest.mark.parametrize(("verb", "author", "kind", "body"), BODIES)
def test_what_is_recorded_is_not_recorded_twice(verb: Verb, author: Author, kind: str, body: dict[str, Any]) -> None:
    event = made(verb, author)
    fresh: list[tuple[str, dict[str, Any]]] = [("suspended", {})] if kind == "unsuspended" else []
    assert not already_recorded(event, index(*fresh))
    # Only a signal on one machine has nothing by which it is found again: each is another one.
    assert already_recorded(event, index(*fresh, (kind, event.body))) is ((kind, author) != ("signalled", HERE))
    assert already_recorded(event, index(*fresh, ("ended", {})))


def test_another_command_is_another_event() -> None:
    before = made(Resolve(step="a", retry=True), Author("bob", verified=True, command="u0", on_cluster=True))
    recorded = index((before.kind, before.body))
    assert not already_recorded(made(Resolve(step="a", retry=True), THERE), recorded)
    assert already_recorded(made(Resolve(step="a", retry=True), HERE), recorded), "the same call of the same attempt"


@pytest.mark.parametrize(("at", "there"), [(99.0, False), (101.0, True)])
def test_an_answer_of_the_first_journals_goes_by_the_instant(at: float, there: bool) -> None:
    answer = Event(1, at, "resolved", {"step": "a", "callId": "c1", "answer": "retry"})
    assert already_recorded(made(Resolve(step="a", retry=True), HERE), EventIndex([answer])) is there


def test_a_run_that_was_let_go_may_be_suspended_again() -> None:
    recorded = index(("suspended", {}), ("unsuspended", {}))
    assert not already_recorded(made(Suspend(), HERE), recorded)
    assert already_recorded(made(Unsuspend(), HERE), recorded)


@pytest.mark.parametrize(
    ("verb", "why"),
    [
        (Resolve(step="b", retry=True), "b has no call whose outcome is unknown: there is nothing to resolve"),
        (
            Resolve(step="a", call_id="c0", retry=True),
            "the call of a whose outcome is unknown is c1, not c0",
        ),
    ],
)
def test_there_is_nothing_to_resolve(verb: Resolve, why: str) -> None:
    assert event_for(verb, Run(), THERE) == Refusal(why)


def test_nobody_else_words_an_event_of_a_person() -> None:
    """Whoever signs a body himself has written a verb twice."""
    root = Path(agentrun.__file__).parent
    sources = [path for room in ("cli", "control", "local") for path in (root / room).rglob("*.py")]
    assert [path.name for path in sources if '"verified":' in path.read_text()] == []
