"""Attempts that end without a word on one machine: whoever is asked to resume is told how they ended."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.pinned import PinnedRun
from agentrun.local.driver import Driver, End
from agentrun.local.lease import Lease
from agentrun.local.processes import OnLine, Process, how_it_ended
from tests.harness.cli_store import LOOK_UP, Scene

ONE_CALL = {"tools": [LOOK_UP], "steps": [{"name": "a", "tool": {"name": "look_up"}}]}


class Ended:
    pid = 1

    def __init__(self, code: int) -> None:
        self._code = code

    async def ended(self) -> tuple[int, dict[str, Any] | None]:
        return self._code, None

    def stop(self) -> None:
        pass


class Lost:
    """Starts what ends at once without a word."""

    def __init__(self, code: int) -> None:
        self._code = code

    async def start(self, spec: AttemptSpec, on_line: OnLine) -> Process:
        return Ended(self._code)


class Hours:
    """A clock that is an hour further at each look, and a steady one that agrees with it."""

    def __init__(self, now: float) -> None:
        self._now = now

    def clock(self) -> float:
        self._now += 3600.0
        return self._now

    def elapsed(self) -> float:
        return self._now


def driver(scene: Scene, code: int) -> Driver:
    run = scene.run("r1", ONE_CALL)
    hours = Hours(scene.now)
    lease = Lease(scene.store, run, "w")
    pinned = PinnedRun.read(scene.store, run)
    return Driver(scene.store, pinned, Lost(code), lease, clock=hours.clock, elapsed=hours.elapsed)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (-signal.SIGKILL, "its process was killed (SIGKILL): perhaps the machine ran out of memory"),
        (-signal.SIGSEGV, "its process was ended by SIGSEGV"),
        (1, "its process left with exit code 1 (it crashed: agentrun logs has the trace)"),
        (2, "its process left with exit code 2"),
        (5, "its process left with exit code 5 (another attempt took over the step)"),
        (127, "its process left with exit code 127"),
    ],
)
def test_a_run_that_is_parked_says_how_its_attempts_were_lost(scene: Scene, code: int, why: str) -> None:
    driving = driver(scene, code)
    assert asyncio.run(driving.drive()) is End.WAITING
    assert driving.last is not None
    status = driving.last.status
    assert status["phase"] == "Stalled"
    assert f"a: 6 attempts in a row were lost: {why}" in status["message"]


@pytest.mark.parametrize("code", [-64, -1, 0, 3, 4, 255])
def test_every_end_of_a_process_has_words(code: int) -> None:
    assert how_it_ended(code).startswith("its process ")
