"""The kinds and the forms of what the runtime writes: every reader and every writer knows all of them."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.api import status
from agentrun.api.canonical import canonical, digest_of
from agentrun.api.keys import StepKey
from agentrun.journal import fold as folding
from agentrun.journal.fold import fold
from agentrun.journal.records import parse
from agentrun.journal.runs import as_events
from agentrun.plan import events
from agentrun.plan.events import EventIndex
from agentrun.query.difference import essence
from agentrun.query.timeline import timeline
from agentrun.records.run_events import EVENT_BODIES, EventKind, event_kind
from agentrun.records.step_records import STEP_BODIES, Kind, step_kind
from agentrun.records.waits import DETAILS, WAITS, WaitingFor
from tests.unit.record_forms import fields


def test_the_planner_reads_every_event() -> None:
    assert set(EventKind) == events._TAKE.keys()


def test_the_fold_takes_every_record() -> None:
    assert set(Kind) == folding._TAKE.keys() | {Kind.OPENED}


def test_every_kind_has_a_form() -> None:
    assert EVENT_BODIES.keys() == set(EventKind)
    assert STEP_BODIES.keys() == set(Kind)


def test_every_field_of_a_wait_is_a_kind_in_the_table_or_a_detail() -> None:
    assert fields(WaitingFor).keys() == WAITS.keys() | DETAILS
    assert not WAITS.keys() & DETAILS


def test_a_cluster_keeps_what_a_step_waits_for() -> None:
    schema = status.RUN_STATUS["properties"]["steps"]["items"]["properties"]["waitingFor"]["properties"]
    assert schema.keys() == fields(WaitingFor).keys()


@pytest.mark.parametrize("kind", ["another", [], None, {}])
def test_a_record_of_an_unknown_kind_is_passed_over(kind: Any) -> None:
    value: dict[str, Any] = {"v": 1, "run": "r", "step": "s", "attempt": 1, "seq": 1, "body": {}, "prev": ""}
    value |= {"at": "2026-05-01T10:00:05Z", "kind": kind}
    record = parse(canonical(value | {"hash": digest_of(value)}), "key")
    assert step_kind(record.kind) is None and event_kind(record.kind) is None
    state = fold([record])
    assert (state.seq, state.end, state.attempt) == (1, None, 0)
    assert EventIndex(as_events([record])).ended is None
    step, event = timeline({StepKey("s"): [record]}, [record])
    assert step.text and event.text
    assert essence(record) == {"kind": record.kind}
