"""Who holds what of a live run: its state, the status writer's memory, and the memory of its questions."""

from __future__ import annotations

import gc
import re
from dataclasses import fields
from pathlib import Path

from agentrun import control
from agentrun.control.run_state import RunState
from agentrun.control.views import RunRef
from tests.harness.cluster_world import ClusterWorld
from tests.harness.planner_world import TOOL, step

SHARED = {"uid", "pinned", "log", "tracker", "program_bytes", "work", "outputs"}
"""What a live run is made of, and what it hands to the planner and to the weighing. The rest is its own."""


def test_other_modules_use_methods_of_a_live_run() -> None:
    own = {f.name for f in fields(RunState)} - SHARED
    assert all(name.startswith("_") for name in own), own
    for path in Path(control.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert not re.search(r"\blive\._", text), f"{path.name} reaches into a live run"
        assert not re.search(r"\blive\.\w+(\[[^]]*\])? [-+|&]?= ", text), f"{path.name} sets a field of a live run"


def test_what_is_remembered_of_a_run_goes_with_it(world: ClusterWorld) -> None:
    world.api.apply_run("r", {"workflow": {"tools": [TOOL], "steps": [step("a")]}})
    operator = world.operator()
    world.settle()
    people, status = operator.reconciler.people, operator.reconciler.status
    assert len(people._memories) == len(status._memories) == 1
    operator.reconciler.live.pop(RunRef("n", "r"))
    gc.collect()
    assert len(people._memories) == len(status._memories) == 0
