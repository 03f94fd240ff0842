"""A few of the same points with nothing shared between processes: each driver and runner starts its own Python."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crash.bench import asks_again
from tests.crash.conftest import ROOT
from tests.crash.harness import World
from tests.crash.points import Point, Strike
from tests.crash.workflows import Refund
from tests.crash.zygote import SOCKET_VARIABLE, Zygote

POINTS = [
    Point("runner triage", "store", 5, "before", "create steps/triage/00000004.json turn"),
    Point("runner refund", "tool", 1, "during", "pay_refund"),
    Point("runner refund", "store", 5, "after", "closed"),
    Point("driver", "store", 5, "after", "approvalRequested"),
    Point("driver", "poll", 4, "before", "list events/"),
]


@dataclass
class Started:
    """A driver of its own."""

    process: subprocess.Popen[bytes]

    def exit(self) -> int:
        return self.process.wait(60)


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_process_with_an_interpreter_of_its_own(
    point: Point, tmp_path: Path, nursery: Zygote, record_property: Any
) -> None:
    with World(tmp_path / "undisturbed", nursery, Refund) as world:
        world.carry()
        undisturbed = world.outcome()
    with World(tmp_path / "world", nursery, Refund) as world:

        def start(strike: Strike | None) -> Started:
            environment = {k: v for k, v in world.environment(strike).items() if k != SOCKET_VARIABLE}
            with (world.folder / "driver.out").open("wb") as out, (world.folder / "driver.err").open("ab") as err:
                command = [sys.executable, "-m", "tests.crash.roles", "driver"]
                return Started(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=err))

        world.carry(Strike(point), start)
        assert world.trace.fired(), "the point was never reached"
        world.check(undisturbed, asked_again=int(asks_again(Strike(point))))
        pids = {line["pid"] for line in world.trace.lines()}
        assert len(pids) >= 4
        world.wait_for(lambda: not any(_lives(pid) for pid in pids))
    record_property("struck", 1)


def _lives(pid: int) -> bool:
    """Whether the process runs; one that an init without manners has not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
