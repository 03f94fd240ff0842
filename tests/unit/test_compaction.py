"""A history that the model does not take is made shorter, also where the window is smaller than the workflow says."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.journal.log import read_step
from agentrun.records.step_records import Kind
from agentrun.runner.budget import estimate
from agentrun.runner.compaction import HALVINGS
from agentrun.runner.models import Request, Turn, Usage
from agentrun.runner.ports import Ports
from agentrun.runner.tool_client import ToolOutput
from tests.harness.runner_scene import KEY, OVERFLOW, RUN, Scene, said

PAGE = "x" * 3_000
TURNS = 12


@pytest.fixture(autouse=True)
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "preload", lambda self: None)


def scene_of(*then: Turn | Exception) -> Scene:
    """An agent that has looked a dozen times, each time at a page, when its next question is answered by ``then``."""
    looks = [said(None, "look", usage=Usage()) for _ in range(TURNS)]
    return Scene(*looks, *then, tool=lambda: ToolOutput(200, PAGE, PAGE))


def size(request: Request) -> int:
    return estimate(list(request.history))


def summaries(scene: Scene) -> list[dict[str, Any]]:
    return [r.body for r in read_step(scene.store, RUN, KEY, whole=True) if r.kind == Kind.COMPACTED]


def test_what_is_kept_is_reckoned_from_the_request_that_was_too_long() -> None:
    """The workflow said 200,000 tokens and the endpoint takes 8,000: next to nothing was dropped."""
    scene = scene_of(OVERFLOW, said("summary"), said("done"))
    assert scene.attempt().outcome == "Succeeded"
    refused, _, last = scene.model.asked[TURNS:]
    assert size(refused) > 10_000
    assert size(last) < 0.4 * size(refused)
    assert summaries(scene)[0]["dropped"] > TURNS


def test_a_record_of_the_work_that_is_too_long_is_shown_in_part() -> None:
    scene = scene_of(OVERFLOW, *[OVERFLOW] * HALVINGS, said("summary"), said("done"))
    assert scene.attempt().outcome == "Succeeded"
    asked = [size(request) for request in scene.model.asked[TURNS + 1 : -1]]
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < asked[0] / 4
    assert scene.state.usage["modelCalls"] == TURNS + 2  # what was refused is no call


def test_a_model_that_takes_nothing_at_all_is_asked_a_bounded_number_of_times() -> None:
    scene = scene_of(*[OVERFLOW] * 100)
    fact = scene.attempt()
    assert fact.outcome == "Failed"
    assert fact.failure is not None and fact.failure.message == "too long"
    assert len(scene.model.asked) == TURNS + 2 + HALVINGS


def test_a_prompt_that_is_too_long_by_itself_is_not_summed_up() -> None:
    scene = Scene(OVERFLOW)
    fact = scene.attempt()
    assert fact.outcome == "Failed"
    assert len(scene.model.asked) == 1
