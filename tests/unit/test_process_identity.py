"""Whether a driver lives, as far as another process can tell: reboots, containers, reused ids, silent leases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentrun.journal.paths import RunPath
from agentrun.local.lease import LENGTH, HolderWatch
from agentrun.runner.process_id import life_of, this_process
from agentrun.store.folder import FolderStore

OTHER_BOOT = "11111111-2222-3333-4444-555555555555 pid:[4026531836]"
RUN = RunPath("default", "r", "0" * 32)


def test_a_process_that_runs_here_is_alive() -> None:
    assert life_of(this_process()) == "alive"


def test_a_process_that_ended_here_is_dead() -> None:
    script = "import json; from agentrun.runner.process_id import this_process; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert life_of(json.loads(done.stdout)) == "dead"


def test_a_reused_process_id_is_another_process() -> None:
    """A container that restarts has the same ids again; the start time differs."""
    assert life_of(this_process() | {"started": 1}) == "dead"


def test_a_zombie_is_dead() -> None:
    script = (
        "import json; from agentrun.runner.process_id import this_process; "
        "print(json.dumps(this_process()), flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        process = json.loads(child.stdout.read())
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it
        assert life_of(process) == "dead"


@pytest.mark.parametrize(
    "change",
    [
        {"place": OTHER_BOOT},
        {"place": OTHER_BOOT, "host": "another"},
        {"host": "another"},
        {"place": f"{this_process()['place'].split()[0]} pid:[1]"},
        {"place": ""},
        {"place": None},
        {"pid": None},
        {"pid": "7"},
        {"pid": 0},
        {"pid": -1},
        {"started": None},
    ],
    ids=str,
)
def test_what_ran_elsewhere_is_neither_alive_nor_dead(change: dict[str, Any]) -> None:
    assert life_of(this_process() | change) == "unknown"


@pytest.mark.parametrize("missing", ["host", "place", "pid", "started"])
def test_an_identity_without_a_part_says_nothing(missing: str) -> None:
    assert life_of({k: v for k, v in this_process().items() if k != missing}) == "unknown"


# -- signs of life ---------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A lease in a folder, and a watcher whose time a test moves."""

    folder: Path
    now: float = 0.0
    store: FolderStore = field(init=False)
    watch: HolderWatch = field(init=False)

    def __post_init__(self) -> None:
        self.store = FolderStore(self.folder)
        self.watch = HolderWatch(self.store, RUN, lambda: self.now)

    def renew(self, renewals: int, **change: Any) -> None:
        process = this_process() | {"place": OTHER_BOOT} | change
        data = json.dumps({"writer": "w", "process": process, "renewals": renewals}).encode()
        version = None if self.watch.version is None else self.store.read_version(RUN.lease)[1]
        self.store.swap(RUN.lease, data, version)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_holder_without_a_sign_of_life_is_dead_after_the_length_of_a_lease(watched: Watched) -> None:
    watched.renew(1)
    said: list[str] = []
    assert watched.watch.decide(said.append, watched.sleep) is False
    assert watched.now == LENGTH
    assert len(said) == 1 and "is still alive" in said[0]


def test_a_renewal_is_a_sign_of_life(watched: Watched) -> None:
    watched.renew(1)
    assert watched.watch.look() == "unknown"
    watched.sleep(LENGTH - 1)
    watched.renew(2)
    assert watched.watch.look() == "alive"
    watched.sleep(LENGTH - 1)
    assert watched.watch.look() == "unknown"
    watched.sleep(1)
    assert watched.watch.look() == "dead"


def test_no_lease_and_an_empty_one_are_nobodys(watched: Watched) -> None:
    assert watched.watch.look() == "dead"
    watched.store.create(RUN.lease, b"")  # a disk that was cut off while it wrote
    assert watched.watch.look() == "dead"


def test_a_dead_holders_lease_is_cleared_unless_it_was_renewed(watched: Watched) -> None:
    watched.renew(1)
    assert watched.watch.decide(lambda _: None, watched.sleep) is False
    watched.renew(2)  # it was only slow
    watched.watch.clear()
    assert json.loads(watched.store.get(RUN.lease))["renewals"] == 2
    assert watched.watch.look() == "alive"
    watched.sleep(LENGTH)
    assert watched.watch.look() == "dead"
    watched.watch.clear()
    assert watched.store.get(RUN.lease) == b"{}"
