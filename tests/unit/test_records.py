"""The kinds and the forms of what the runtime writes: every reader and every writer knows all of them."""

from __future__ import annotations

from agentrun.api import status
from agentrun.plan import events
from agentrun.records.run_events import EVENT_BODIES, EventKind
from agentrun.records.step_records import STEP_BODIES, Kind
from agentrun.records.waits import DETAILS, WAITS, WaitingFor
from tests.unit.record_forms import fields


def test_the_planner_reads_every_event() -> None:
    assert set(EventKind) == events._TAKE.keys()


def test_every_kind_has_a_form() -> None:
    assert EVENT_BODIES.keys() == set(EventKind)
    assert STEP_BODIES.keys() == set(Kind)


def test_every_field_of_a_wait_is_a_kind_in_the_table_or_a_detail() -> None:
    assert fields(WaitingFor).keys() == WAITS.keys() | DETAILS
    assert not WAITS.keys() & DETAILS


def test_a_cluster_keeps_what_a_step_waits_for() -> None:
    schema = status.RUN_STATUS["properties"]["steps"]["items"]["properties"]["waitingFor"]["properties"]
    assert schema.keys() == fields(WaitingFor).keys() - {"work"}
