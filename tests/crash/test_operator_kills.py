"""The operator dies at every call that it makes to the API server and to the store, before and after it is done.

The API server is a model, the store is in memory, and time is virtual, so that each of some hundred deaths takes
milliseconds; the journal, the planner and the whole control loop are the real ones.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.crash.operator_points import Outcome, Point, Trial

Record = Any


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Outcome, list[Point]]:
    trial = Trial(None)
    outcome = trial.carry()
    return outcome, trial.points


def test_undisturbed_run_does_what_it_should(undisturbed: tuple[Outcome, list[Point]]) -> None:
    outcome, points = undisturbed
    assert outcome.phase == "Succeeded"
    assert outcome.effects == {"triage": 1, "refund": 1, "letter.0": 1, "letter.1": 1, "note": 1}
    assert outcome.events["decided"] == 2
    kinds = {point.what.split()[0] for point in points}
    assert {"create_pod", "create_approval", "settle_approval", "answer_command", "patch_status", "store"} <= kinds


def test_operator_killed_at_every_call(undisturbed: tuple[Outcome, list[Point]], record_property: Record) -> None:
    outcome, points = undisturbed
    broken = []
    for point in points:
        trial = Trial(point)
        try:
            assert trial.carry() == outcome
            assert trial.fired, "the point was never reached"
        except AssertionError as error:
            broken.append(f"{point}: {error}")
    assert not broken, f"{len(broken)} of {len(points)} points broke:\n" + "\n".join(broken)
    record_property("struck", len(points))
