"""How attempts end, by the one bookkeeping of both drivers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.facts import AttemptEnd, FailureInfo, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason
from agentrun.api.workflow import FailureClass
from agentrun.control.run_state import RunState
from agentrun.control.views import PodView, RunRef
from agentrun.journal.pinned import PinnedRun
from agentrun.local.driver import Driver
from agentrun.local.lease import Lease
from agentrun.plan.attempt_tracker import AttemptTracker
from tests.harness.cli_store import LOOK_UP, Scene

A = StepKey("a")
WHY = (Reason.RETRYING, "killed")
NOW = 1_800_000_000.0

How = Literal["unopened", "lost", "failed", "waiting"]
HOWS: list[How] = ["unopened", "lost", "failed", "waiting"]


def fact_of(number: int, how: How) -> StepFact:
    """What the step's journal says once attempt ``number``, which opened it, has ended."""
    failure = FailureInfo(FailureClass.TIMEOUT, "no") if how == "failed" else None
    end = AttemptEnd(how) if how in ("failed", "waiting") else None
    return StepFact(attempt=number, seq=10 * number, at=NOW - 60, started=NOW - 90, end=end, failure=failure)


@dataclass
class Sequence:
    """Attempts of one step, one after the other, numbered as the planner numbers them."""

    tracker: AttemptTracker = field(default_factory=AttemptTracker)
    now: float = NOW

    def next(self) -> int:
        known = self.tracker.facts.get(A, StepFact())
        return known.attempt + self.tracker.unopened.get(A, 0) + 1

    def ends(self, how: How) -> None:
        number, known = self.next(), self.tracker.facts.get(A, StepFact())
        fact = known if how == "unopened" else fact_of(number, how)
        self.tracker.record_end(A, number, fact, self.now, WHY)
        self.now += 1


@given(st.lists(st.sampled_from(HOWS), max_size=12))
def test_where_each_end_is_seen_once_and_in_order_unopened_ones_are_counted(hows: list[How]) -> None:
    """So it was reckoned on one machine: one more for each start that came to nothing, none after one that opened."""
    sequence, count, lost_at = Sequence(), 0, None
    for how in hows:
        count, lost_at = (count + 1, sequence.now) if how == "unopened" else (0, None)
        sequence.ends(how)
        assert sequence.tracker.unopened.get(A, 0) == count
        assert sequence.tracker.lost_at.get(A) == lost_at
        assert sequence.tracker.troubles.get(A) == (WHY if how in ("unopened", "lost") else None)


@dataclass(frozen=True)
class Parting:
    """Ends that a count gets wrong: (number of the attempt, what the journal says by then)."""

    ends: list[tuple[int, StepFact]]
    unopened: int
    counted: int
    """What a count of the ends would give."""


PARTINGS = {
    "a new leader meets the third pod alone": Parting([(3, StepFact())], unopened=3, counted=1),
    "the tenth pod is seen to end before the ninth, which opened": Parting(
        [(10, fact_of(9, "lost")), (9, fact_of(9, "lost"))], unopened=1, counted=0
    ),
    "a driver before left an attempt that opened after ours came to nothing": Parting(
        [(1, StepFact()), (2, fact_of(1, "lost"))], unopened=1, counted=2
    ),
}


@pytest.mark.parametrize("parting", PARTINGS.values(), ids=PARTINGS.keys())
def test_the_next_number_is_the_one_after_the_last(parting: Parting) -> None:
    """A count repeats the number of an attempt that was there, or leaves one out."""
    sequence, counted = Sequence(), 0
    for number, fact in parting.ends:
        sequence.tracker.record_end(A, number, fact, NOW, WHY)
        counted = counted + 1 if fact.attempt < number else 0
    assert (sequence.tracker.unopened.get(A, 0), counted) == (parting.unopened, parting.counted)
    assert sequence.next() == max(number for number, _ in parting.ends) + 1


@given(st.permutations([1, 2, 3, 4]), st.integers(0, 4))
def test_the_order_of_ends_does_not_matter(order: list[int], opened: int) -> None:
    tracker = AttemptTracker()
    for number in order:
        tracker.record_end(A, number, fact_of(opened, "lost") if opened else StepFact(), NOW, WHY)
    assert tracker.unopened == ({A: 4 - opened} if opened < 4 else {})


def test_a_step_that_is_over_stays_as_it_ended() -> None:
    over = StepFact(attempt=2, seq=9, end=AttemptEnd.FAILED)
    tracker = AttemptTracker({A: over})
    tracker.record_end(A, 1, StepFact(attempt=1, seq=4), NOW, WHY)
    assert tracker.facts == {A: over}


def test_what_was_not_seen_to_end_is_adrift_until_a_later_attempt_opens() -> None:
    tracker = AttemptTracker({A: fact_of(1, "lost")})
    assert tracker.adrift() == {A}, "nobody has seen its process end"
    tracker.mark_gone(A, 1)
    assert tracker.adrift() == frozenset()
    tracker.mark_adrift(A, 1)  # another process of this number, which does not leave
    tracker.record_end(A, 2, fact_of(1, "lost"), NOW, WHY)
    tracker.mark_gone(A, 2)
    assert tracker.adrift() == {A}
    tracker.mark_gone(A, 3)
    tracker.record_end(A, 3, fact_of(3, "lost"), NOW, WHY)
    assert tracker.adrift() == frozenset(), "the third has fenced it"


def on_one_machine(folder: Path, hows: list[How]) -> AttemptTracker:
    scene = Scene(folder, now=NOW)
    run = scene.run(workflow={"tools": [LOOK_UP], "steps": [{"name": "a", "tool": {"name": "look_up"}}]})
    no_processes: Any = None
    driver = Driver(
        scene.store, PinnedRun.read(scene.store, run), no_processes, Lease(scene.store, run, "w"), clock=lambda: NOW
    )

    async def drive() -> None:
        for how in hows:
            number = Sequence(driver._attempts).next()
            word = None if how == "unopened" else fact_of(number, how).to_json()
            await driver._gone(A, number, word, WHY[1])

    asyncio.run(drive())
    return driver._attempts


def on_a_cluster(hows: list[How]) -> AttemptTracker:
    live = RunState("u", None, None, AttemptTracker())  # type: ignore[arg-type]
    for how in hows:
        number = Sequence(live.tracker).next()
        fact = live.tracker.facts.get(A, StepFact()) if how == "unopened" else fact_of(number, how)
        lost = how in ("unopened", "lost")
        uid = str(number)
        pod = PodView(uid, "n", uid, 1, RunRef("n", "r"), "u", A, number, "Ended", trouble=WHY if lost else None)
        live.take(A, number, pod, fact, NOW)
    return live.tracker


@pytest.mark.parametrize(
    "hows",
    [
        ["unopened"],
        ["lost"],
        ["unopened", "unopened", "lost", "unopened"],
        ["failed", "unopened", "waiting", "lost", "lost"],
        ["lost", "unopened", "unopened", "failed"],
    ],
    ids="-".join,
)
def test_a_machine_and_a_cluster_reckon_the_same(tmp_path: Path, hows: list[How]) -> None:
    here, there = on_one_machine(tmp_path, hows), on_a_cluster(hows)
    assert (here.facts, here.unopened, here.lost_at) == (there.facts, there.unopened, there.lost_at)
    assert (here.troubles, sorted(here.lost())) == (there.troubles, sorted(there.lost()))
    assert here.adrift() == there.adrift() == frozenset()
