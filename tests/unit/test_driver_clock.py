"""The driver of one machine, and a wall clock that jumps; a machine that has no process to give."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.pinned import PinnedRun
from agentrun.local.driver import Driver, End, NoProcess, Watcher
from agentrun.local.lease import Lease
from agentrun.local.processes import OnLine
from agentrun.plan.snapshot import Execution
from agentrun.store.folder import FolderStore
from tests.harness.cli_store import LOOK_UP, Scene

HOUR = 3600.0
CALLS = {"tools": [LOOK_UP], "steps": [{"name": "a", "tool": {"name": "look_up"}}]}


@dataclass
class Clocks:
    """A wall clock that jumps and one that does not."""

    wall: float = 1_800_000_000.0
    steady: float = 0.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@dataclass
class NoRoom:
    """Processes of a machine that has none to give, ``count`` times; then they end at once, having done nothing."""

    error: int
    count: int
    asked: int = 0

    async def start(self, spec: AttemptSpec, on_line: OnLine) -> Ended:
        self.asked += 1
        if self.asked <= self.count:
            raise OSError(self.error, os.strerror(self.error))
        return Ended()


class Ended:
    pid = 1

    async def ended(self) -> tuple[int, dict[str, Any] | None]:
        fact = StepFact(attempt=1, seq=2, end=AttemptEnd.CLOSED, outcome=StepState.SUCCEEDED, output=7)
        return 0, fact.to_json()

    def stop(self) -> None:
        pass


@dataclass
class Stage:
    """A run of one step in a folder, and its driver."""

    folder: Path
    clocks: Clocks = field(default_factory=Clocks)
    said: list[str] = field(default_factory=list)

    def driver(self, processes: Any = None, workflow: dict[str, Any] = CALLS) -> Driver:
        scene = Scene(self.folder, now=self.clocks.wall)
        run = scene.run(workflow=workflow)
        store = FolderStore(self.folder)
        return Driver(
            store,
            PinnedRun.read(store, run),
            processes or NoRoom(errno.EMFILE, 0),
            Lease(store, run, uuid.uuid4().hex),
            Watcher(tell=self.said.append),
            clock=lambda: self.clocks.wall,
            elapsed=lambda: self.clocks.steady,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("jump", [-2 * HOUR, 2 * HOUR])
def test_a_jump_of_the_clock_makes_no_attempt_overdue_and_no_pause_longer(stage: Stage, jump: float) -> None:
    driver = stage.driver()
    a, b = StepKey("a"), StepKey("b")
    driver._running = {a: Execution(1, stage.clocks.wall)}
    driver._attempts.lost_at = {b: stage.clocks.wall}
    driver._attempts.facts = {b: StepFact(attempt=1, at=stage.clocks.wall, started=stage.clocks.wall - 5)}
    stage.clocks.passes(10)
    stage.clocks.wall += jump
    now = driver._now()
    assert driver._running[a].started == pytest.approx(now - 10)
    assert driver._attempts.lost_at[b] == pytest.approx(now - 10)
    assert driver._attempts.facts[b].at <= now


def test_what_lies_in_the_future_is_as_of_now_and_then_grows_old(stage: Stage) -> None:
    """Else a pause that began by a clock that was ahead would begin anew at each look, and never end."""
    driver = stage.driver()
    key = StepKey("a")
    driver._attempts.facts = {
        key: StepFact(attempt=1, at=stage.clocks.wall + HOUR, started=stage.clocks.wall + HOUR - 5)
    }
    first = driver._now()
    assert driver._attempts.facts[key].at == first
    stage.clocks.passes(30)
    assert driver._now() - driver._attempts.facts[key].at == pytest.approx(30)
    assert driver._attempts.facts[key].at - driver._attempts.facts[key].started == pytest.approx(5)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM])
async def test_a_machine_without_room_is_no_lost_attempt(stage: Stage, error: int) -> None:
    processes = NoRoom(error, 2)
    driver = stage.driver(processes)
    driver.elapsed = _hurried(stage.clocks)
    assert await driver.drive() is End.SUCCEEDED
    assert processes.asked == 3
    assert driver._attempts.unopened == {}
    [told] = [line for line in stage.said if "no process can be started" in line]
    assert os.strerror(error) in told


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOENT])
async def test_a_machine_that_never_has_room_ends_the_driver_with_a_reason(stage: Stage, error: int) -> None:
    driver = stage.driver(NoRoom(error, 10**6))
    driver.elapsed = _hurried(stage.clocks)
    with pytest.raises(NoProcess, match=r"no process can be started for step a: .*agentrun resume r1"):
        await driver.drive()
    assert driver._attempts.facts == {}, "nothing was begun, so nothing was lost"


def _hurried(clocks: Clocks) -> Callable[[], float]:
    """A steady clock on which each look is ten seconds later, the wall clock with it."""

    def look() -> float:
        clocks.passes(10)
        return clocks.steady

    return look
