"""The log under every interleaving of its writers, with answers that are lost and processes that die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.keys import StepKey
from agentrun.journal.fold import checkpoint
from agentrun.journal.log import EventLog, Fenced, StepLog, open_step, read_blob, read_records, read_step
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import INLINE_MAX, Damaged, Record
from agentrun.records.step_records import Kind
from agentrun.store.protocol import StoreUnavailable
from tests.harness.memory_store import Crash, LossyStore, MemoryStore, ScheduledStore, Scheduler, every_path

RUN = RunPath("support", "refund-4711", "c0ffee")
KEY = StepKey("triage")
PREFIX = RUN.step(KEY)


def ticking() -> Callable[[], float]:
    ticks = count(1000)
    return lambda: float(next(ticks))


CLOCK = ticking()


def open_log(store: Any, attempt: int, writer: str) -> tuple[StepLog, list[Record]]:
    return open_step(store, RUN, KEY, attempt, lambda _: {"writer": writer}, CLOCK, checkpoint=checkpoint)


def note(text: str) -> dict[str, Any]:
    return {"repair": text}


@dataclass
class Writers:
    """Attempts that open the log and append; what they were told is kept."""

    store: Any
    said: dict[str, list[Record]] = field(default_factory=dict)
    """Every record that an append returned, by writer."""
    saw: dict[str, list[Record]] = field(default_factory=dict)
    """The records that an open returned, ``opened`` included."""

    def program(
        self, name: str, attempt: int, appends: int, *, close: bool = False, again: int = 0
    ) -> Callable[[], None]:
        """``again``: how often each append is tried again where the store does not answer."""

        def run() -> None:
            log, records = open_log(self.store, attempt, name)
            self.saw[name] = records
            if records[-1].kind == Kind.CLOSED:
                return
            said = self.said.setdefault(name, [records[-1]])
            for number in range(appends):
                said.append(self._append(log, Kind.RESULT, note(f"{name} {number}"), again))
            if close:
                said.append(self._append(log, Kind.CLOSED, {"outcome": "Succeeded"}, again))

        return run

    def _append(self, log: StepLog, kind: Kind, body: dict[str, Any], again: int) -> Record:
        for left in range(again, -1, -1):
            try:
                return log.append(kind, body)
            except StoreUnavailable:
                if not left:
                    raise
        raise AssertionError

    def check(self, objects: dict[str, bytes]) -> list[Record]:
        """What has to hold of the log however it came to be; its records."""
        store = MemoryStore(dict(objects))
        keys = store.list(PREFIX)
        assert keys == [entry(PREFIX, seq) for seq in range(1, len(keys) + 1)]
        records = read_records(store, PREFIX, range(1, len(keys) + 1), "")
        assert [r.attempt for r in records] == sorted(r.attempt for r in records)  # nobody wrote after a successor
        opened = [r.attempt for r in records if r.kind == Kind.OPENED]
        assert opened == sorted(set(opened))
        assert all(r.kind != Kind.CLOSED for r in records[:-1])
        for said in self.said.values():
            assert all(r in records for r in said)
        for saw in self.saw.values():
            assert records[: len(saw)] == saw  # an attempt that opened had seen everything before it
        return records


def test_two_writers_under_every_interleaving() -> None:
    ends = set()
    for path in every_path():
        scheduler = Scheduler(path)
        store = ScheduledStore(scheduler=scheduler)
        writers = Writers(store)
        scheduler.run({"a": writers.program("a", 1, 2), "b": writers.program("b", 2, 1)})
        records = writers.check(store.under.objects)
        assert "b" not in scheduler.errors
        assert len(writers.said["b"]) == 2
        error = scheduler.errors.get("a")
        assert error is None or isinstance(error, Fenced)
        assert (error is None) == (len(writers.said.get("a", ())) == 3)
        ends.add(tuple(r.attempt for r in records))
    assert ends == {(2, 2), (1, 2, 2), (1, 1, 2, 2), (1, 1, 1, 2, 2)}


def test_of_twins_one_opens_and_the_other_is_fenced_under_every_interleaving() -> None:
    for path in every_path():
        scheduler = Scheduler(path)
        store = ScheduledStore(scheduler=scheduler)
        writers = Writers(store)
        scheduler.run({"a": writers.program("a", 1, 1), "b": writers.program("b", 1, 1)})
        assert len(writers.check(store.under.objects)) == 2
        [error] = scheduler.errors.values()
        assert isinstance(error, Fenced)


def test_a_closed_log_never_grows_under_every_interleaving() -> None:
    ends = set()
    for path in every_path():
        scheduler = Scheduler(path)
        store = ScheduledStore(scheduler=scheduler)
        writers = Writers(store)
        scheduler.run({"a": writers.program("a", 1, 0, close=True), "b": writers.program("b", 2, 0, close=True)})
        records = writers.check(store.under.objects)
        assert records[-1].kind == Kind.CLOSED
        assert writers.saw["b"][-1].kind in (Kind.CLOSED, Kind.OPENED)
        ends.add(records[-1].attempt)
    assert ends == {1, 2}


LOST = st.dictionaries(
    st.integers(0, 12), st.sampled_from(["unavailable", "not written", "exists", "crash"]), max_size=3
)


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(st.integers(0, 2), max_size=40), lost=LOST, again=st.integers(0, 2))
def test_three_writers_lost_answers_and_crashes(turns: list[int], lost: dict[int, str], again: int) -> None:
    left = iter(turns)
    scheduler = Scheduler(lambda live: live[next(left, 0) % len(live)])
    store = ScheduledStore(scheduler=scheduler, lost=lost)
    writers = Writers(store)
    scheduler.run(
        {
            "a": writers.program("a", 1, 3, again=again),
            "b": writers.program("b", 2, 2, again=again),
            "c": writers.program("c", 3, 1, again=again, close=True),
        }
    )
    writers.check(store.under.objects)
    for error in scheduler.errors.values():
        assert isinstance(error, (Fenced, StoreUnavailable, Crash))
    if not lost:
        assert "c" not in scheduler.errors


# -- one writer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["unavailable", "not written", "exists"])
def test_an_append_whose_answer_was_lost_is_tried_again_and_written_once(how: str) -> None:
    """The second try had another instant in it, so the writer took its own record for a stranger's and was fenced."""
    store = LossyStore(lost={1: how})
    writers = Writers(store)
    writers.program("a", 1, 2, again=1)()
    records = writers.check(store.under.objects)
    assert [r.body.get("repair") for r in records] == [None, "a 0", "a 1"]


def test_another_append_after_a_lost_answer_is_not_taken_for_the_same() -> None:
    store = LossyStore(lost={1: "unavailable"})
    log, _ = open_log(store, 1, "a")
    with pytest.raises(StoreUnavailable):
        log.append(Kind.RESULT, note("one"))
    with pytest.raises(Fenced):
        log.append(Kind.RESULT, note("two"))


def test_after_a_successor_opened_the_next_append_is_fenced() -> None:
    store = MemoryStore()
    old, _ = open_log(store, 1, "a")
    _, seen = open_log(store, 2, "b")
    assert [r.attempt for r in seen] == [1, 2]
    with pytest.raises(Fenced, match=entry(PREFIX, 2)):
        old.append(Kind.RESULT, note("too late"))


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_stale_start_is_fenced_and_writes_nothing(attempt: int) -> None:
    store = MemoryStore()
    open_log(store, 1, "a")
    open_log(store, 3, "c")
    before = dict(store.objects)
    with pytest.raises(Fenced, match="attempt 3 has already opened"):
        open_log(store, attempt, "b")
    assert store.objects == before


def test_a_first_attempt_opens_with_one_call() -> None:
    store = MemoryStore()
    open_log(store, 1, "a")
    assert store.calls == [("create", entry(PREFIX, 1))]


def test_a_closed_log_is_returned_and_not_opened() -> None:
    store = MemoryStore()
    log, _ = open_log(store, 1, "a")
    log.append(Kind.CLOSED, {"outcome": "Succeeded"})
    for attempt in (1, 2):
        _, records = open_log(store, attempt, "b")
        assert [r.kind for r in records] == ["opened", "closed"]
    assert len(store.objects) == 2


# -- damage ----------------------------------------------------------------------------------------------------------


def three(store: MemoryStore) -> None:
    log, _ = open_log(store, 1, "a")
    for text in ("one", "two"):
        log.append(Kind.RESULT, note(text))


def test_a_missing_record_is_named() -> None:
    store = MemoryStore()
    three(store)
    del store.objects[entry(PREFIX, 2)]
    with pytest.raises(Damaged, match=entry(PREFIX, 2)):
        read_step(store, RUN, KEY)


def test_a_moved_record_is_named() -> None:
    store = MemoryStore()
    three(store)
    store.objects[entry(PREFIX, 2)] = store.objects[entry(PREFIX, 3)]
    with pytest.raises(Damaged, match=f"{entry(PREFIX, 2)}.*number 3"):
        read_step(store, RUN, KEY)


def test_a_record_of_another_history_is_named() -> None:
    store, other = MemoryStore(), MemoryStore()
    three(store)
    log, _ = open_log(other, 1, "somebody else")
    log.append(Kind.RESULT, note("one"))
    store.objects[entry(PREFIX, 2)] = other.objects[entry(PREFIX, 2)]
    with pytest.raises(Damaged, match=f"{entry(PREFIX, 2)}: it does not follow"):
        read_step(store, RUN, KEY)


# -- blobs -----------------------------------------------------------------------------------------------------------


def test_a_large_body_is_a_blob_and_is_read_back() -> None:
    store = MemoryStore()
    log, _ = open_log(store, 1, "a")
    small, large = note("x" * (INLINE_MAX - 13)), note("x" * INLINE_MAX)
    assert log.append(Kind.RESULT, small).body == small
    assert log.append(Kind.RESULT, large).body == large
    blobs = store.list(f"{RUN}/blobs/")
    assert len(blobs) == 1
    assert [r.body for r in read_step(store, RUN, KEY)[1:]] == [small, large]
    assert len(store.objects[entry(PREFIX, 3)]) < 1000


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_harmed_blob_is_named(harm: str) -> None:
    store = MemoryStore()
    log, _ = open_log(store, 1, "a")
    log.append(Kind.RESULT, note("x" * INLINE_MAX))
    [blob] = store.list(f"{RUN}/blobs/")
    if harm == "missing":
        del store.objects[blob]
    else:
        store.objects[blob] += b" "
    with pytest.raises(Damaged, match=blob):
        read_step(store, RUN, KEY)
    with pytest.raises(Damaged, match=blob):
        read_blob(store, RUN, "sha256:" + blob.rsplit("/", 1)[-1])


def test_the_same_large_body_twice_is_one_blob() -> None:
    store = MemoryStore()
    log, _ = open_log(store, 1, "a")
    for _ in range(2):
        log.append(Kind.RESULT, note("x" * INLINE_MAX))
    assert len(store.list(f"{RUN}/blobs/")) == 1


# -- the run's events ------------------------------------------------------------------------------------------------


def events(store: Any) -> EventLog:
    return EventLog(store, RUN, ticking())


def check_events(objects: dict[str, bytes]) -> list[Record]:
    store = MemoryStore(dict(objects))
    log = events(store)
    log.refresh()
    assert store.list(RUN.events) == [entry(RUN.events, seq) for seq in range(1, len(log.records) + 1)]
    return log.records


def settled(records: Any) -> bool:
    return any(r.kind == "settled" for r in records)


def speaker(store: Any, name: str, told: dict[str, list[bool]], appends: int) -> Callable[[], None]:
    def run() -> None:
        log = events(store)
        for number in range(appends):
            assert log.append("signalled", {"name": name, "payload": number})
        told[name] = [log.append("settled", {"step": "a", "state": "Failed", "by": name}, settled)]

    return run


def test_of_two_settlements_one_is_written_under_every_interleaving() -> None:
    for path in every_path():
        scheduler = Scheduler(path)
        store = ScheduledStore(scheduler=scheduler)
        told: dict[str, list[bool]] = {}
        scheduler.run({name: speaker(store, name, told, 1) for name in "ab"})
        assert not scheduler.errors
        records = check_events(store.under.objects)
        assert sorted(r.kind for r in records) == ["settled", "signalled", "signalled"]
        assert sorted(told.values()) == [[False], [True]]


@settings(max_examples=60, deadline=None)
@given(turns=st.lists(st.integers(0, 2), max_size=40), exists=st.sets(st.integers(0, 10), max_size=3))
def test_three_speakers_lose_nothing_and_repeat_nothing(turns: list[int], exists: set[int]) -> None:
    left = iter(turns)
    scheduler = Scheduler(lambda live: live[next(left, 0) % len(live)])
    store = ScheduledStore(scheduler=scheduler, lost=dict.fromkeys(exists, "exists"))
    told: dict[str, list[bool]] = {}
    scheduler.run({name: speaker(store, name, told, 2) for name in "abc"})
    assert not scheduler.errors
    records = check_events(store.under.objects)
    signals = [(r.body["name"], r.body["payload"]) for r in records if r.kind == "signalled"]
    assert sorted(signals) == [(name, number) for name in "abc" for number in range(2)]
    [winner] = [r.body["by"] for r in records if r.kind == "settled"]
    assert [name for name, said in told.items() if said == [True]] == [winner]


def test_an_event_whose_answer_was_lost_is_not_written_twice_where_it_says_unless() -> None:
    store = LossyStore(lost={0: "unavailable"})
    log = events(store)
    with pytest.raises(StoreUnavailable):
        log.append("settled", {"step": "a", "state": "Failed"}, settled)
    assert not log.append("settled", {"step": "a", "state": "Failed"}, settled)
    assert len(check_events(store.under.objects)) == 1


def test_refresh_reads_only_what_is_new() -> None:
    store = MemoryStore()
    writer, reader = events(store), events(store)
    assert not reader.refresh()
    writer.append("suspended", {})
    assert reader.refresh()
    writer.append("unsuspended", {})
    store.calls.clear()
    assert reader.refresh()
    assert store.calls == [("list", RUN.events), ("get", entry(RUN.events, 2))]
    assert not reader.refresh()
    assert reader.records == writer.records


@dataclass(frozen=True)
class Shelf:
    """The owner of a log that is no run."""

    namespace: str = "default"
    events: str = "default/shelves/one/"

    def blob(self, digest: str) -> str:
        return f"default/shelves/blobs/{digest.removeprefix('sha256:')}"

    def __str__(self) -> str:
        return "default/shelves/one"


def test_a_log_with_many_writers_needs_no_run() -> None:
    store, shelf = MemoryStore(), Shelf()
    one, other = EventLog(store, shelf, ticking()), EventLog(store, shelf, ticking())
    assert one.append("noted", {"text": "a"})
    assert other.append("noted", {"text": "b" * INLINE_MAX})
    assert one.refresh()
    assert [record.body["text"][0] for record in one.records] == ["a", "b"]
    assert {record.run for record in one.records} == {str(shelf)}
    assert all(key.startswith("default/shelves/") for key in store.list(""))
