"""What must hold of a run's journal, whatever happened: every object of it is read and checked."""

from __future__ import annotations

from itertools import pairwise

from agentrun.api.keys import StepKey
from agentrun.journal.fold import fold
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.store.protocol import Store


def check_journal(store: Store, run: RunPath) -> None:
    """Raise AssertionError where an ended run's journal breaks a promise, Damaged where a chain does not hold."""
    events = EventLog(store, run, float)
    events.refresh()
    assert [r.seq for r in events.records] == list(range(1, len(events.records) + 1))
    assert [r.kind for r in events.records].count("ended") == 1, "a run ends once"
    assert events.records[-1].kind == "ended", "a terminal run never changes"
    _each_once(events.records, "settled")
    _each_once(events.records, "approvalRequested")
    heads = events.records[-1].body["heads"]
    for path in store.children(f"{run}/steps/"):
        records = read_step(store, run, StepKey.parse(path), whole=True)
        _check_step(path, records)
        state = fold(records)
        assert heads[path] == [state.seq, state.head], f"{path}: went on after the run's end"


def _each_once(events: list[Record], kind: str) -> None:
    about = [r.body["step"] for r in events if r.kind == kind]
    assert len(about) == len(set(about)), f"{kind} twice: {about}"


def _check_step(path: str, records: list[Record]) -> None:
    kinds = [r.kind for r in records]
    assert records[0].prev == "" and records[0].seq == 1
    assert kinds[0] == "opened", f"{path}: {kinds}"
    assert kinds.count("closed") == 1 and kinds[-1] == "closed", f"{path}: {kinds}"
    opened = [r.attempt for r in records if r.kind == "opened"]
    assert all(one < other for one, other in pairwise(opened)), f"{path}: attempts {opened}"
    writers = [r.body["writer"] for r in records if r.kind == "opened"]
    assert len(set(writers)) == len(writers), f"{path}: a writer opened twice"
    holder = 0
    for record in records:
        holder = record.attempt if record.kind == "opened" else holder
        assert record.attempt == holder, f"{path}: {record.seq} is of attempt {record.attempt}, not of {holder}"
    turns = [r.body["responseId"] for r in records if r.kind == "turn"]
    assert len(set(turns)) == len(turns), f"{path}: a model's answer was committed twice"
