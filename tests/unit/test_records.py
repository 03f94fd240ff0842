"""The kinds and the forms of what the runtime writes: every reader and every writer knows all of them."""

from __future__ import annotations

from agentrun.plan import events
from agentrun.records.run_events import EventKind


def test_the_planner_reads_every_event_but_the_ones_about_time_to_live() -> None:
    assert set(EventKind) - events._TAKE.keys() == {EventKind.TTL_CHANGED}
