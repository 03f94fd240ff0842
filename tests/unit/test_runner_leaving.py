"""An attempt that is told to leave while a call that another one began may have happened."""

from __future__ import annotations

import asyncio
from typing import Any

from agentrun.api.facts import Allowance
from agentrun.api.keys import StepKey
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import checkpoint, fold
from agentrun.journal.log import manifest_bytes, open_step, read_step
from agentrun.journal.paths import RunPath
from agentrun.plan.snapshot import Start
from agentrun.records.step_records import Kind
from agentrun.runner.attempt import Attempt, run_attempt
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from tests.harness.memory_store import MemoryStore
from tests.harness.planner_world import MODEL, TOOL, PlannerWorld, compiled, step

RUN, KEY = RunPath("n", "r", "u"), StepKey("a")


async def _nothing(attempt: Attempt) -> dict[str, Any]:
    raise AssertionError(f"{attempt.spec.start.key} was begun anew")


def test_a_question_is_not_lost_by_who_is_told_to_leave_before_it_is_asked() -> None:
    """While it waited until whoever made the call was surely dead, SIGTERM came: it left without the question, and the
    run was Cancelled without a word about a call that may have happened.
    """
    store = MemoryStore()
    workflow = {"tools": [TOOL], "models": [MODEL], "steps": [step("a")]}
    about = {"v": 1, "name": "r", "namespace": "n", "uid": "u", "requestedBy": "me", "inputs": {}, "cluster": True}
    store.create(RUN.manifest, manifest_bytes({**about, "workflow": workflow}))
    elsewhere = {"host": "another", "place": "p", "pid": 1, "started": 1}
    opening = {"writer": "w", "process": elsewhere, "task": {"args": {"a": "1"}}}
    log, _ = open_step(store, RUN, KEY, 1, lambda before: opening, lambda: 1000.0, checkpoint=checkpoint)
    log.append(Kind.INTENT, {"id": "call", "tool": "t", "args": {"a": "1"}, "key": "k"})  # and then its node is lost

    async def attempt() -> None:
        ports = Ports(clock=lambda: 1010.0, open_store=lambda url: store, send_within=0.01)
        await run_attempt(
            AttemptSpec("memory", RUN, Start(KEY, 2, {}, (), Allowance(), 3600.0)),
            ports,
            _nothing,
            Mailbox(asked_to_leave=True),
        )

    asyncio.run(attempt())
    world = PlannerWorld(compiled(step("a")), now=1100.0)
    world.facts[KEY] = fold(read_step(store, RUN, KEY)).fact()
    assert world.facts[KEY].unknown is not None
    world.append("cancelled")
    world.go()
    assert world.state("a") == "OutcomeUnknown"
    assert "ended" not in [event.kind for event in world.events]
