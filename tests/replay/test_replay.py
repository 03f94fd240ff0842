"""Journals that were recorded once, read by today's code: a change that reads them otherwise breaks runs in flight.

``parcels``: a fan-out with a skipped item, a ``Once`` call whose connection was lost (a person said that it happened),
a signal that did not come, a compensation and a finally step. ``refund``: the example, with an agent and an approval.
All others are of 0.1.0, and ``scenes`` says what each shows. ``facts``, ``status`` and ``moments`` (the phase after
each record, and what a driver does then) are the word of the code that recorded them. All came from the driver and the
runner on one machine, but for the names of the machine and its ports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.journal.fold import fold
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Damaged, Record, parse
from agentrun.journal.runs import list_runs, read_facts
from agentrun.plan.snapshot import Append, Start, Stop
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import Kind
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import planned
from tests.replay.scenes import SCENES

JOURNALS = sorted(Path(__file__).with_name("journals").glob("*.json"))

CHANGED = {
    "undone-fan-out": (
        'no white"}',
        'no white"}; these effects remain, because they were not undone: '
        'each[0] (HTTP 409 Conflict\\n{"error": "too late"})',
    )
}
"""What today's code says on purpose in other words than the release, by journal: the end of ``message``, then and now.

The message of a run names the effects that stay, and why (docs/reference/steps.md, Compensation); 0.1.0 left them out.
"""


class Recorded:
    """A recorded run and what it amounted to when it was recorded."""

    def __init__(self, path: Path) -> None:
        said: dict[str, Any] = json.loads(path.read_text())
        self.store = MemoryStore({key: text.encode() for key, text in said["objects"].items()})
        self.run = RunPath.parse(said["run"])
        self.facts: dict[str, Any] = said["facts"]
        self.status: dict[str, Any] = said["status"]
        self.moments: list[list[str]] | None = said.get("moments")
        for part in (self.status, *self.status["conditions"]) if path.stem in CHANGED else ():
            then, now = CHANGED[path.stem]
            assert part["message"].endswith(then)
            part["message"] = part["message"].removesuffix(then) + now
        log = EventLog(self.store, self.run, lambda: 0.0)
        log.refresh()
        self.events = log.records


def in_words(effect: Start | Stop | Append) -> str:
    """An effect as ``record`` writes it."""
    match effect:
        case Append(kind=kind, body=body):
            return f"Append {kind} {body.get('step', '')}"
        case Start(key=key, attempt=attempt) | Stop(key=key, attempt=attempt):
            return f"{type(effect).__name__} {key.path} {attempt}"


@pytest.fixture(params=JOURNALS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_there_are_recorded_journals() -> None:
    assert [path.stem for path in JOURNALS] == sorted(["parcels", "refund", *SCENES])


def test_every_kind_of_record_is_in_a_journal() -> None:
    objects = {key: text for path in JOURNALS for key, text in Recorded(path).store.objects.items()}
    kinds = {parse(data, key).kind for key, data in objects.items() if "/steps/" in key or "/events/" in key}
    assert kinds == {*Kind, *EventKind} - {EventKind.RESUMED, EventKind.TTL_CHANGED}


def test_the_run_is_found_with_its_facts(recorded: Recorded) -> None:
    assert list_runs(recorded.store, None) == [recorded.run]
    facts = {key.path: fact.to_json() for key, fact in read_facts(recorded.store, recorded.run).items()}
    assert json.loads(json.dumps(facts)) == recorded.facts


def test_the_run_ended_as_it_did(recorded: Recorded) -> None:
    facts = {StepKey.parse(name): StepFact.from_json(fact) for name, fact in recorded.facts.items()}
    pinned = PinnedRun.read(recorded.store, recorded.run)
    found = planned(pinned.snapshot(recorded.events[-1].at + 1, facts, recorded.events))
    assert found.ended
    assert found.status == recorded.status
    heads = {name: [fact["seq"], fact["head"]] for name, fact in recorded.facts.items()}
    assert recorded.events[-1].body["heads"] == heads


def test_the_same_records_have_the_same_bytes(recorded: Recorded) -> None:
    for key, data in recorded.store.objects.items():
        if "/steps/" in key or "/events/" in key:
            assert parse(data, key).sealed()[1] == data


def test_every_moment_of_the_run_has_a_plan(recorded: Recorded) -> None:
    """As another driver would have found it, had the first one died right after each record: it does the same."""
    pinned = PinnedRun.read(recorded.store, recorded.run)
    keys = [StepKey.parse(name) for name in recorded.facts]
    steps: dict[StepKey, list[Record]] = {key: read_step(recorded.store, recorded.run, key, whole=True) for key in keys}
    ends, moments = [], []
    for now in sorted(r.at for records in (*steps.values(), recorded.events) for r in records):
        facts = {key: fold(r for r in records if r.at <= now).fact() for key, records in steps.items()}
        begun = {key: fact for key, fact in facts.items() if fact.seq}
        found = planned(pinned.snapshot(now, begun, [r for r in recorded.events if r.at <= now]))
        ends.append(found.ended)
        moments.append([found.status["phase"], *map(in_words, found.effects)])
    assert recorded.moments in (None, moments)
    assert ends == sorted(ends)
    assert ends[-1]


def test_answers_recorded_without_their_attempt_are_heard() -> None:
    """``parcels`` is from when a resolution did not name the attempt that left the call unknown."""
    recorded = Recorded(next(path for path in JOURNALS if path.stem == "parcels"))
    answer = next(event for event in recorded.events if event.kind == "resolved")
    assert "attempt" not in answer.body
    pinned = PinnedRun.read(recorded.store, recorded.run)
    pay = StepKey.parse(answer.body["step"])
    records = [r for r in read_step(recorded.store, recorded.run, pay, whole=True) if r.at <= answer.at]
    told = [event for event in recorded.events if event.seq <= answer.seq]
    found = planned(pinned.snapshot(answer.at, {pay: fold(records).fact()}, told))
    assert [e for e in found.effects if isinstance(e, Start) and e.key == pay]


def test_a_fork_names_what_it_took_over() -> None:
    source, fork = (
        Recorded(Path(__file__).with_name("journals") / f"{name}.json") for name in ("every-wait", "forked")
    )
    theirs = {
        parse(data, key).hash for key, data in source.store.objects.items() if "/steps/" in key or "/events/" in key
    }
    ours = [parse(data, key) for key, data in fork.store.objects.items() if "/steps/" in key or "/events/" in key]
    taken = {record.body["source"]["hash"] for record in ours if "source" in record.body}
    assert len(taken) == 6
    assert taken <= theirs


def test_a_record_that_was_changed_is_found(recorded: Recorded) -> None:
    name, fact = next(iter(recorded.facts.items()))
    changed = entry(recorded.run.step(StepKey.parse(name)), fact["seq"])
    recorded.store.objects[changed] = recorded.store.objects[changed].replace(b"2026", b"2025", 1)
    with pytest.raises(Damaged, match=changed):
        read_facts(recorded.store, recorded.run)
