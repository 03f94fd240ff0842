"""The fold: what the records of a step amount to, from the start or from a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import deepcopy
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrun.api.facts import StepFact, Usage
from agentrun.api.keys import StepKey
from agentrun.journal.fold import Folded, apply, checkpoint, fold
from agentrun.journal.log import CHECKPOINT_EVERY, StepLog, open_step, read_step
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import Damaged, Record
from agentrun.records.step_records import Kind
from tests.harness.memory_store import Crash, LossyStore, MemoryStore

RUN = RunPath("support", "refund-4711", "c0ffee")
KEY = StepKey("triage")
PREFIX = RUN.step(KEY)


class Life:
    """An agent's step, driven by bytes: every byte is one thing that may happen to it next."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.log: StepLog | None = None
        self.state = Folded()
        self.attempt = 0
        self.now = 1000.0

    def clock(self) -> float:
        self.now += 0.5
        return self.now

    def open(self) -> None:
        self.attempt += 1
        body = {"writer": str(self.attempt), "process": {"pid": self.attempt}, "task": {"prompt": "go"}}
        if self.attempt % 3 == 0:
            body["events"] = {str(self.attempt): {"kind": "resolved", "callId": "c", "answer": "retry"}}
        self.log, records = open_step(
            self.store, RUN, KEY, self.attempt, lambda _: body, self.clock, checkpoint=checkpoint
        )
        self.state = fold(records)

    def commit(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """As the runner does it."""
        assert self.log is not None
        if self.log.checkpoint_due and (kind is not Kind.COMPACTED or "state" not in body):
            self.commit(Kind.COMPACTED, self.state.checkpoint())
        apply(self.state, self.log.append(kind, body))

    def happen(self, byte: int) -> None:
        state = self.state
        if self.log is None or state.end is not None:
            self.open()
            return
        match byte % 16:
            case 0:
                self.log = None  # lost without a word
            case 1:
                self.commit(Kind.WAITING, {"interrupted": True} if byte & 16 else {"budget": True})
            case 2:
                asked = {"callId": f"c{byte}", "tool": "t", "subject": "pay", "details": None, "digest": "sha256:d"}
                asked |= {"approvers": {"users": [], "groups": ["g"]}, "required": 1, "expiresAt": 5000.0}  # type: ignore[dict-item]
                self.commit(Kind.WAITING, {"approvals": [asked]})
            case 3:
                self.commit(Kind.FAILED, {"class": "Provider", "message": "overloaded"})
            case 4:
                self.commit(Kind.COMPACTED, {"history": state.history[-1:], "usage": Usage(1, 5, 0, 5).to_json()})
            case 5:
                self.commit(Kind.RESULT, {"repair": "say it as JSON"})
            case 6 | 7 if state.pending and state.intent is None:
                call = state.pending[0]
                self.commit(Kind.INTENT, {"id": call["id"], "tool": call["name"], "args": {}})
            case 8 if state.intent is not None:
                self.commit(Kind.RESULT, {"undone": state.intent["id"]})
            case _ if state.pending:
                done = state.pending[: 1 + byte % 2]
                told = {"output": "ok", "called": byte % 3 > 0}
                self.commit(
                    Kind.RESULT, {"results": [{"id": call["id"], "tool": call["name"]} | told for call in done]}
                )
            case _:
                calls = [{"id": f"{state.turns}.{n}", "callId": f"k{n}", "name": "t"} for n in range(byte % 4)]
                usage = Usage(1, byte, 1, 2).to_json()
                items = [{"type": "message", "text": str(byte)}]
                body: dict[str, Any] = {"items": items, "calls": calls, "usage": usage, "text": str(byte)}
                refused = (
                    {"refused": [f"m/{word}" for word in ("include", "store")[: byte % 3]]} if byte % 5 == 0 else {}
                )
                self.commit(Kind.TURN, body | refused)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32))
@example(22163487)  # the history is compacted where checkpoints are due
def test_a_fold_from_the_checkpoint_is_the_fold_from_the_start(seed: int) -> None:
    life = Life()
    for byte in Random(seed).randbytes(360):
        life.happen(byte)
    whole = read_step(life.store, RUN, KEY, whole=True)
    assert len(whole) > 128
    recent = read_step(life.store, RUN, KEY)
    assert len(recent) < len(whole)
    assert fold(recent) == fold(whole)
    assert fold(recent).fact() == fold(whole).fact()
    assert fold(whole) == (life.state if life.log else fold(whole))
    for boundary in range(CHECKPOINT_EVERY, len(whole) + 1, CHECKPOINT_EVERY):
        for tail in range(boundary - 1, min(boundary + 2, len(whole) + 1)):
            cut = MemoryStore(
                {entry(PREFIX, seq): life.store.objects[entry(PREFIX, seq)] for seq in range(1, tail + 1)}
            )
            assert fold(read_step(cut, RUN, KEY)) == fold(whole[:tail])


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=60))
def test_a_fact_survives_its_way_through_the_termination_message(happenings: bytes) -> None:
    life = Life()
    for byte in happenings:
        life.happen(byte)
        fact = life.state.fact()
        assert StepFact.from_json(fact.to_json()) == fact


def up_to(records: int) -> Life:
    """A step with so many records."""
    life = Life()
    life.open()
    assert life.log is not None
    while life.log.head.seq < records:
        if life.log.checkpoint_due and life.log.head.seq == records - 1:
            life.commit(Kind.COMPACTED, {"reason": "checkpoint", "state": life.state.to_json()})
            break
        life.commit(Kind.TURN, {"items": [{"n": life.log.head.seq}], "calls": [], "usage": Usage(1).to_json()})
    assert life.log.head.seq == records
    return life


def test_folding_twice_from_a_checkpoint_gives_the_same() -> None:
    """The first fold grew the lists in the checkpoint's own body, so the second one had every turn twice."""
    life = up_to(CHECKPOINT_EVERY + 5)
    records = read_step(life.store, RUN, KEY)
    before = deepcopy(records)
    first = fold(records)
    assert records == before
    assert fold(records) == first == life.state


@pytest.mark.parametrize("tail", [126, 127, 128, 129, 255, 256])
def test_a_resume_at_the_checkpoints_boundary(tail: int) -> None:
    life = up_to(tail)
    before = deepcopy(life.state)
    life.open()
    records = read_step(life.store, RUN, KEY, whole=True)
    compacted = [r.seq for r in records if r.kind == Kind.COMPACTED]
    assert compacted == list(range(CHECKPOINT_EVERY, len(records) + 1, CHECKPOINT_EVERY))
    assert fold(read_step(life.store, RUN, KEY)) == fold(records) == life.state
    assert life.state.history == before.history
    assert (life.state.attempt, life.state.usage) == (2, before.usage)


def test_a_shortened_history_on_the_checkpoints_number_is_not_taken_for_a_checkpoint() -> None:
    """A resume began at it, and had lost all that came before: the task, the calls without a result, the usage."""
    life = up_to(CHECKPOINT_EVERY - 1)
    life.commit(Kind.COMPACTED, {"history": [{"user": "in short"}], "usage": Usage(1).to_json()})
    life.commit(Kind.TURN, {"items": [], "calls": [], "usage": Usage(1).to_json()})
    resumed = fold(read_step(life.store, RUN, KEY))
    assert resumed == life.state
    assert resumed.task == {"prompt": "go"}


def test_a_death_between_the_checkpoint_and_opened() -> None:
    life = up_to(127)
    lossy = LossyStore(under=life.store, lost={0: "crash"})
    with pytest.raises(Crash):
        open_step(lossy, RUN, KEY, 2, lambda _: {"writer": "dies"}, life.clock, checkpoint=checkpoint)
    records = read_step(life.store, RUN, KEY, whole=True)
    assert [(r.seq, r.kind, r.attempt) for r in records[-1:]] == [(128, "compacted", 1)]
    life.attempt = 2
    life.open()
    assert life.log is not None
    assert (life.log.head.seq, life.log.head.attempt) == (129, 3)
    assert fold(read_step(life.store, RUN, KEY)) == fold(read_step(life.store, RUN, KEY, whole=True))


def test_a_resume_reads_a_bounded_number_of_records() -> None:
    life = up_to(1000)
    life.store.calls.clear()
    read_step(life.store, RUN, KEY)
    assert len(life.store.calls) == 1 + 1000 - 7 * CHECKPOINT_EVERY + 1


def turns(number: int) -> list[Record]:
    bodies: list[tuple[Kind, dict[str, Any]]] = [(Kind.OPENED, {"task": {}})]
    for n in range(number):
        calls = [{"id": f"{n}.{c}", "name": "t"} for c in range(2)]
        bodies.append((Kind.TURN, {"items": [], "calls": calls, "usage": Usage(1).to_json()}))
        bodies += [(Kind.RESULT, {"results": [{"id": c["id"], "called": True}]}) for c in calls]
    return [Record("r", "s", 1, n + 1, float(n), kind, body, "") for n, (kind, body) in enumerate(bodies)]


def test_the_fold_is_linear() -> None:
    """By counting calls, not time: twice the records, twice the calls."""

    def calls(records: list[Record]) -> int:
        count = 0

        def trace(_frame: FrameType, event: str, _arg: Any) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(trace)
        try:
            fold(records)
        finally:
            sys.setprofile(before)
        return count

    few, many = calls(turns(100)), calls(turns(200))
    assert few > 300
    assert many < 2.1 * few


# -- what the planner is told ----------------------------------------------------------------------------------------


def opened(attempt: int, seq: int) -> Record:
    return Record("r", "s", attempt, seq, float(seq), Kind.OPENED, {"task": {}}, "")


def test_attempts_that_are_lost_without_progress_are_counted() -> None:
    """They never were, since ``opened`` itself counted as progress: such a step was started again for ever."""
    state = fold([opened(n, n) for n in (1, 2, 3)])
    assert state.fact().losses == 2


def test_an_attempt_that_got_on_and_was_lost_begins_the_count_anew() -> None:
    """Only the attempt after it began anew: at the bound, a step that had got on was parked all the same."""
    turn = Record("r", "s", 3, 4, 4.0, Kind.TURN, {"items": [], "calls": [], "usage": Usage().to_json()}, "")
    assert fold([*(opened(n, n) for n in (1, 2, 3)), turn]).fact().losses == 0


def test_a_call_in_the_air_is_unknown_once_its_attempt_is_gone() -> None:
    """Nobody was asked about it where the run ended before another attempt opened the journal."""
    intent = Record("r", "s", 1, 2, 2.0, Kind.INTENT, {"id": "1.0", "tool": "pay", "args": {"amount": 5}}, "")
    unknown = fold([opened(1, 1), intent]).fact().unknown
    assert unknown is not None
    assert (unknown.call_id, unknown.tool, unknown.args) == ("1.0", "pay", {"amount": 5})
    result = Record("r", "s", 1, 3, 3.0, Kind.RESULT, {"results": [{"id": "1.0", "called": True}]}, "")
    assert fold([opened(1, 1), intent, result]).fact().unknown is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("turn", {}),
        ("turn", {"calls": 3, "items": [], "usage": {}}),
        ("intent", {"id": "c"}),
        ("result", {"results": [{}]}),
        ("waiting", {"approvals": [{}]}),
        ("waiting", {"approvals": [{"callId": "c"}]}),
        ("waiting", {"unknown": 3}),
        ("closed", {}),
        ("closed", {"outcome": "Splendid"}),
        ("compacted", {"history": []}),
        ("compacted", {"state": {"end": "x"}}),
        ("compacted", {"state": {"outcome": "Splendid"}}),
        ("compacted", {"state": {"intervals": 3}}),
        ("compacted", {"state": {"no_such_part": 3}}),
        ("compacted", {"state": []}),
    ],
)
def test_a_record_that_does_not_hold_what_its_kind_holds_is_damage(kind: str, body: dict[str, Any]) -> None:
    """A pod writes the journal of its step, so a hash that fits does not say that agentrun wrote the record."""
    record = Record(str(RUN), KEY.path, 1, 7, 1000.0, kind, body, "sha256:0", "sha256:1")
    with pytest.raises(Damaged, match="number 7"):
        fold([record]).fact()
