"""A runner that stops in the middle of its work (SIGSTOP), is succeeded, and wakes up: it does nothing new."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agentrun.api.keys import StepKey
from agentrun.attempt.exit_codes import Exit
from agentrun.journal.fold import fold
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.pinned import PinnedRun
from tests.crash.harness import OutsideFactory, World, start_spec
from tests.crash.points import Point, Strike
from tests.crash.workflows import FanOut, Payment
from tests.crash.zygote import Forked, Zygote

SHORT, LONG = {"send_within": 0.5}, {"send_within": 3600.0}
"""A process that was stopped after its intent sends nothing, and its successor asks people after half a second. A
process that shall make its call has an hour for that: on a busy machine half a second may be over.
"""

BEFORE_OPENED = ("store", 2, "before")
PAY = [BEFORE_OPENED, ("store", 2, "after"), ("store", 3, "before"), ("store", 3, "after"), ("store", 4, "before")]
"""Of a ``Once`` call: around ``opened``, around ``intent``, and before ``closed``, with the call behind it."""

PACK = [("store", 3, "before"), ("store", 5, "before"), ("store", 6, "before"), ("store", 7, "before")]
"""Of an agent: before its turn is committed, before an intent, before the result of a ``Once`` call, before a turn."""


def _stopped(world: World, role: str, kind: str, number: int, side: str) -> Forked:
    """The first attempt, stopped at a point."""
    step = role.split()[1]
    strike = Strike(Point(role, kind, number, side), "stop")
    zombie = world.attempt(start_spec(world, 1, step=step), strike)
    assert zombie.next() == {"stopped": signal.SIGSTOP}
    return zombie


def _succeed(world: World, step: str) -> None:
    """Attempts from the second on, until the step is closed; people answer by the ledger in between."""
    events: tuple[int, ...] = ()
    for attempt in range(2, 5):
        asks = fold(_records(world, step)).intent is not None and not events
        world.settings |= SHORT if asks else LONG
        code = world.attempt(start_spec(world, attempt, step=step, events=events)).exit()
        if code == Exit.CLOSED:
            return
        assert code == Exit.WAITING, world.last_words("runner")
        assert world.people() == 1
        log = EventLog(world.store, world.run, time.time)
        log.refresh()
        events = (log.records[-1].seq,)
    raise AssertionError("the step does not close")


def _records(world: World, step: str) -> list[Any]:
    return read_step(world.store, world.run, StepKey(step), whole=True)


@pytest.mark.parametrize(
    ("outside", "step", "point"),
    [(Payment, "pay", point) for point in PAY] + [(FanOut, "pack", point) for point in PACK],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "__name__", value),
)
def test_zombie_does_nothing_new(
    outside: OutsideFactory, step: str, point: tuple[str, int, str], tmp_path: Path, nursery: Zygote
) -> None:
    with World(tmp_path / "world", nursery, outside, settings=SHORT) as world:
        zombie = _stopped(world, f"runner {step}", *point)
        _succeed(world, step)
        records, effects, asked = _records(world, step), world.outside.effects(), len(world.outside.model.ledger)
        os.kill(zombie.pid, signal.SIGCONT)
        # One that had not opened finds the step closed: there is nothing to be fenced from.
        assert zombie.exit() == (Exit.CLOSED if point == BEFORE_OPENED else Exit.FENCED)
        assert _records(world, step) == records
        assert world.outside.effects() == effects
        assert len(world.outside.model.ledger) == asked
        assert sum(effects.values()) == 1, "the one Once call of this step happened once"


def test_zombie_in_the_middle_of_a_once_call(tmp_path: Path, nursery: Zygote) -> None:
    with World(tmp_path / "world", nursery, Payment, settings=LONG) as world:
        world.hold.clear()
        zombie = world.attempt(start_spec(world, 1))
        assert world.arrived.wait(60)
        os.kill(zombie.pid, signal.SIGSTOP)
        assert zombie.next() == {"stopped": signal.SIGSTOP}
        world.hold.set()
        _succeed(world, "pay")
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.exit() == Exit.FENCED
        assert sum(world.outside.effects().values()) == 1
        assert _records(world, "pay")[-1].body["resolvedBy"] == "fin"


def test_call_is_not_sent_when_the_process_slept_after_its_intent(tmp_path: Path, nursery: Zygote) -> None:
    """No successor is there to fence it: the time since its intent alone keeps the call from being sent."""
    with World(tmp_path / "world", nursery, Payment, settings={"send_within": 0.0}) as world:
        runner = _stopped(world, "runner pay", "store", 3, "after")
        os.kill(runner.pid, signal.SIGCONT)
        assert runner.exit() == Exit.FAILED
        assert not world.outside.effects()
        undone, failed = _records(world, "pay")[-2:]
        assert "undone" in undone.body
        assert "not sent" in failed.body["message"]


def test_people_are_not_asked_while_a_stopped_process_may_still_send(tmp_path: Path, nursery: Zygote) -> None:
    """Stopped between intent and call, succeeded, and awake again before ``send_within`` is over: it may still send.

    So the successor waits that long before it asks; by then what a person sees outside is how it stays.
    """
    with World(tmp_path / "world", nursery, Payment, settings={"send_within": 3600}) as world:
        zombie = _stopped(world, "runner pay", "store", 3, "after")
        world.settings["send_within"] = 5.0  # much longer than the zombie will take, so that the order is sure
        successor = world.attempt(start_spec(world, 2))
        world.wait_for(lambda: _records(world, "pay")[-1].attempt == 2)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.exit() == Exit.FENCED
        assert successor.exit() == Exit.WAITING
        assert sum(world.outside.effects().values()) == 1, "it had its call in time"
        assert world.people() == 1
        log = EventLog(world.store, world.run, time.time)
        log.refresh()
        assert log.records[-1].body["answer"] == "happened"
        last = world.attempt(start_spec(world, 3, events=(log.records[-1].seq,)))
        assert last.exit() == Exit.CLOSED
        assert sum(world.outside.effects().values()) == 1


def test_successor_that_waits_asks_before_it_leaves_on_sigterm(tmp_path: Path, nursery: Zygote) -> None:
    """Whoever ends the run next must know of the call: without the question it would be over, and nobody asked."""
    with World(tmp_path / "world", nursery, Payment, settings={"send_within": 1}) as world:
        zombie = _stopped(world, "runner pay", "store", 3, "after")
        successor = world.attempt(start_spec(world, 2))
        world.wait_for(lambda: _records(world, "pay")[-1].attempt == 2)
        os.kill(successor.pid, signal.SIGTERM)
        assert successor.exit() == Exit.WAITING
        assert "unknown" in _records(world, "pay")[-1].body
        os.kill(zombie.pid, signal.SIGKILL)
        assert zombie.exit() == -signal.SIGKILL


def test_twin_of_the_same_attempt_is_fenced(tmp_path: Path, nursery: Zygote) -> None:
    with World(tmp_path / "world", nursery, Payment) as world:
        one, other = (world.attempt(start_spec(world, 1)) for _ in range(2))
        # Fenced, or so late that the step was closed already.
        assert sorted((one.exit(), other.exit())) in ([Exit.CLOSED, Exit.FENCED], [Exit.CLOSED, Exit.CLOSED])
        assert sum(world.outside.effects().values()) == 1
        assert PinnedRun.read(world.store, world.run).run == world.run
