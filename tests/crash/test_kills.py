"""SIGKILL at every point of a run, one run for each point, and the delivery contract after each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.bench import Bench
from tests.crash.harness import OutsideFactory, World
from tests.crash.points import Strike
from tests.crash.workflows import FanOut, Refund
from tests.crash.zygote import Zygote

SURE_POLLS = {Refund: 5, FanOut: 6}
"""How often a driver surely looks for news: at its start and when a step ends; ends at the same time share a look."""

Record = Any


SAME = tuple(f".{item}" for item in (1, 2, 3))
"""Items of a fan-out for which the first one stands: what strikes one of them knows nothing of the others."""


def _counted(line: dict[str, Any], outside: OutsideFactory) -> bool:
    if line["kind"] == "poll":
        return bool(line["number"] <= SURE_POLLS[outside])  # type: ignore[index]
    return not line["role"].endswith(SAME)


def _writes(line: dict[str, Any]) -> bool:
    return bool(line["what"].startswith(("create", "swap")))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("outside", [Refund, FanOut])
@pytest.mark.parametrize("role", ["runner", "driver"])
def test_killed_at_every_call(
    role: str, outside: OutsideFactory, tmp_path: Path, nursery: Zygote, record_property: Record
) -> None:
    bench = Bench(tmp_path, nursery, outside)
    undisturbed = bench.record()
    points = undisturbed.points(role, ("before", "during", "after"), lambda line: _counted(line, outside))
    record_property("struck", bench.strike_all(undisturbed, [Strike(point) for point in points]))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("outside", [Refund, FanOut])
def test_sigterm_at_every_call_of_a_runner_commits_and_leaves(
    outside: OutsideFactory, tmp_path: Path, nursery: Zygote, record_property: Record
) -> None:
    bench = Bench(tmp_path, nursery, outside)
    undisturbed = bench.record()
    points = undisturbed.points("runner", ("before", "after"), lambda line: _counted(line, outside))
    strikes = [Strike(point, "term") for point in points]

    def nobody_was_asked(world: World) -> None:
        assert not world.unknown_asked(), "a call was given up that could have been committed"
        assert -15 not in world.exits(), "a runner did not handle SIGTERM"

    record_property("struck", bench.strike_all(undisturbed, strikes, nobody_was_asked))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("action", ["lost", "exists"])
@pytest.mark.parametrize("outside", [Refund, FanOut])
def test_every_write_that_succeeds_and_loses_its_answer(
    outside: OutsideFactory, action: str, tmp_path: Path, nursery: Zygote, record_property: Record
) -> None:
    bench = Bench(tmp_path, nursery, outside)
    undisturbed = bench.record()
    points = undisturbed.points("", ("after",), lambda line: _writes(line) and _counted(line, outside))
    strikes = [Strike(point, action) for point in points]

    def nothing_was_lost(world: World) -> None:
        # A store that tried again and met its own write has written: no attempt is over for that.
        assert action == "lost" or world.attempts() == 1, "an attempt was lost to a write that had succeeded"

    record_property("struck", bench.strike_all(undisturbed, strikes, nothing_was_lost))
