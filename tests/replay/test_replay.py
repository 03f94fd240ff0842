"""Journals that were recorded once, read by today's code: a change that reads them otherwise breaks runs in flight.

``parcels``: a fan-out with a skipped item, a ``Once`` call whose connection was lost (a person said that it happened),
a signal that did not come, a compensation and a finally step. ``refund``: the example, with an agent and an approval.
Both came from the driver and the runner on one machine, but for the names of the machine and its ports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrun.api.facts import StepFact, StepKey
from agentrun.journal.fold import fold
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.pinned import Pinned
from agentrun.journal.records import Damaged, Record, parse
from agentrun.journal.run import list_runs, read_facts
from agentrun.plan.snapshot import Start
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import planned

JOURNALS = sorted(Path(__file__).with_name("journals").glob("*.json"))


class Recorded:
    """A recorded run and what it amounted to when it was recorded."""

    def __init__(self, path: Path) -> None:
        said: dict[str, Any] = json.loads(path.read_text())
        self.store = MemoryStore({key: text.encode() for key, text in said["objects"].items()})
        self.run = RunPath.parse(said["run"])
        self.facts: dict[str, Any] = said["facts"]
        self.status: dict[str, Any] = said["status"]
        log = EventLog(self.store, self.run, lambda: 0.0)
        log.refresh()
        self.events = log.records


@pytest.fixture(params=JOURNALS, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def test_there_are_recorded_journals() -> None:
    assert [path.stem for path in JOURNALS] == ["parcels", "refund"]


def test_the_run_is_found_with_its_facts(recorded: Recorded) -> None:
    assert list_runs(recorded.store, None) == [recorded.run]
    facts = {key.path: fact.to_json() for key, fact in read_facts(recorded.store, recorded.run).items()}
    assert json.loads(json.dumps(facts)) == recorded.facts


def test_the_run_ended_as_it_did(recorded: Recorded) -> None:
    facts = {StepKey.parse(name): StepFact.from_json(fact) for name, fact in recorded.facts.items()}
    pinned = Pinned.read(recorded.store, recorded.run)
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
    """As another driver would have found it, had the first one died right after each record."""
    pinned = Pinned.read(recorded.store, recorded.run)
    keys = [StepKey.parse(name) for name in recorded.facts]
    steps: dict[StepKey, list[Record]] = {key: read_step(recorded.store, recorded.run, key, whole=True) for key in keys}
    ends = []
    for now in sorted(r.at for records in (*steps.values(), recorded.events) for r in records):
        facts = {key: fold(r for r in records if r.at <= now).fact() for key, records in steps.items()}
        begun = {key: fact for key, fact in facts.items() if fact.attempt}
        found = planned(pinned.snapshot(now, begun, [r for r in recorded.events if r.at <= now]))
        ends.append(found.ended)
    assert ends == sorted(ends)
    assert ends[-1]


def test_answers_recorded_without_their_attempt_are_heard() -> None:
    """``parcels`` is from when a resolution did not name the attempt that left the call unknown."""
    recorded = Recorded(next(path for path in JOURNALS if path.stem == "parcels"))
    answer = next(event for event in recorded.events if event.kind == "resolved")
    assert "attempt" not in answer.body
    pinned = Pinned.read(recorded.store, recorded.run)
    pay = StepKey.parse(answer.body["step"])
    records = [r for r in read_step(recorded.store, recorded.run, pay, whole=True) if r.at <= answer.at]
    told = [event for event in recorded.events if event.seq <= answer.seq]
    found = planned(pinned.snapshot(answer.at, {pay: fold(records).fact()}, told))
    assert [e for e in found.effects if isinstance(e, Start) and e.key == pay]


def test_a_record_that_was_changed_is_found(recorded: Recorded) -> None:
    changed = recorded.run.step(StepKey.parse(next(iter(recorded.facts)))) + "00000002.json"
    recorded.store.objects[changed] = recorded.store.objects[changed].replace(b"2026", b"2025", 1)
    with pytest.raises(Damaged, match=changed):
        read_facts(recorded.store, recorded.run)
