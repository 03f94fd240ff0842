"""Drivers that die, hang and meet, and the runners that they leave behind."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

from agentrun.api.keys import StepKey
from agentrun.journal.log import read_step
from tests.crash import roles
from tests.crash.harness import Outcome, World, start_spec
from tests.crash.points import Point, Strike
from tests.crash.workflows import Payment, Refund
from tests.crash.zygote import Zygote


def _undisturbed(folder: Path, nursery: Zygote) -> Outcome:
    with World(folder / "undisturbed", nursery, Payment) as world:
        world.carry()
        return world.outcome()


def test_second_driver_is_told_who_has_the_run_and_takes_over_from_the_dead(tmp_path: Path, nursery: Zygote) -> None:
    undisturbed = _undisturbed(tmp_path, nursery)
    with World(tmp_path / "world", nursery, Payment) as world:
        world.hold.clear()
        first = world.drive()
        assert world.arrived.wait(60)
        second = world.drive()
        assert second.exit() == roles.HELD
        assert f"process {first.pid} on {platform.node()}" in world.said()
        os.kill(first.pid, signal.SIGKILL)
        assert first.exit() == -signal.SIGKILL
        world.hold.set()
        world.carry()
        world.check(undisturbed)


def test_orphan_commits_its_call_and_the_next_driver_waits_for_it(tmp_path: Path, nursery: Zygote) -> None:
    """The driver dies while its runner is in a ``Once`` call: nobody need be asked, since the runner lives to say."""
    undisturbed = _undisturbed(tmp_path, nursery)
    with World(tmp_path / "world", nursery, Payment) as world:
        world.hold.clear()
        first = world.drive()
        assert world.arrived.wait(60)
        os.kill(first.pid, signal.SIGKILL)
        assert first.exit() == -signal.SIGKILL
        second = world.drive()
        world.wait_for(lambda: "left behind" in world.last_words("driver"))
        world.hold.set()
        assert second.exit() == 0
        assert world.said() == "SUCCEEDED"
        assert not world.unknown_asked()
        world.check(undisturbed)


def test_orphan_that_opens_after_the_next_driver_began_is_waited_for(tmp_path: Path, nursery: Zygote) -> None:
    """An attempt of the dead driver opens late, so that the new driver's own is fenced: the late one is at work.

    Starting yet another at once would fence it in the middle of its call, and a person would have to say what came
    of it.
    """
    undisturbed = _undisturbed(tmp_path, nursery)
    with World(tmp_path / "world", nursery, Payment) as world:
        world.hold.clear()
        # Stands for the late one: what the new driver starts, stopped before it opens, is fenced by it.
        strike = Strike(Point("runner pay", "store", 2, "before"), "stop")
        driver = world.drive(strike)
        stopped = world.wait_stopped()
        late = world.attempt(start_spec(world, 1))
        assert world.arrived.wait(60)
        os.kill(stopped, signal.SIGCONT)
        world.wait_for(lambda: "left behind" in world.last_words("driver"))
        world.hold.set()
        assert driver.exit() == 0
        assert late.exit() == 0
        assert not world.unknown_asked()
        world.check(undisturbed)


def test_orphan_that_hangs_does_not_hold_the_run_for_ever(tmp_path: Path, nursery: Zygote) -> None:
    undisturbed = _undisturbed(tmp_path, nursery)
    settings = {"orphan": 0.5}
    with World(tmp_path / "world", nursery, Payment, settings=settings) as world:
        hanging = world.attempt(start_spec(world, 1), Strike(Point("runner pay", "store", 3, "before"), "stop"))
        assert hanging.next() == {"stopped": signal.SIGSTOP}
        world.carry()
        assert "does not stop" in world.last_words("driver")
        os.kill(hanging.pid, signal.SIGCONT)
        assert hanging.exit() == 5
        world.check(undisturbed)


def test_runner_of_a_dead_driver_leaves_between_two_calls(tmp_path: Path, nursery: Zygote) -> None:
    """By its leash: it commits the answer that it waits for, and asks for no other that nobody would follow."""
    with World(tmp_path / "undisturbed", nursery, Refund) as world:
        world.carry()
        undisturbed = world.outcome()
    with World(tmp_path / "world", nursery, Refund) as world:
        world.hold.clear()
        driver = world.drive()
        assert world.arrived.wait(60)
        os.kill(driver.pid, signal.SIGKILL)
        assert driver.exit() == -signal.SIGKILL
        world.hold.set()
        world.exits()
        assert len(world.outside.model.ledger) == 1
        records = read_step(world.store, world.run, StepKey("triage"))
        assert [r.kind for r in records] == ["opened", "turn", "result", "waiting"]
        assert records[-1].body == {"interrupted": True}
        world.carry()
        world.check(undisturbed)
