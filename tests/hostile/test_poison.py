"""The operator beside the worst objects that one tenant can write: each is named, and everybody else's runs go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrun.api.workflow import API_VERSION
from tests import poison
from tests.cluster.component import Component
from tests.hostile.tenant import MEMORY, TIMER, Tenant, memory

ROOT = Path(__file__).parents[2]
WIDE = "deep-and-wide"
SMALL = [name for name in poison.VALUES if name.startswith("deep") or name in ("keys", "text", "escapes", "key-twice")]
"""Values of which an API server can take many in a minute on a small machine."""


@pytest.mark.timeout(600)
def test_each_is_named_and_everybody_else_goes_on(operator: Component, eve: Tenant, ana: Tenant) -> None:
    deep = [
        eve.write("AgentRun", f"{place}-{name}", poison.written("AgentRun", f"{place}-{name}", spec, make()))
        for place, spec in poison.RUNS.items()
        for name, make in poison.VALUES.items()
        if name in ("deep-lists", "deep-maps", "deepest-mixed")
    ]
    for n in range(190):  # on one page with the others
        eve.run(f"neighbour-{n}", TIMER)
    others = [ana.run(f"early-{n}", TIMER) for n in range(20)]
    operator.start()

    def done(tenant: Tenant, names: list[str], phase: str) -> bool:
        phases = tenant.phases()
        return all(phases.get(name) == phase for name in names)

    operator.ready("the end of everybody else's runs", lambda: done(ana, others, "Succeeded"), 120)
    operator.ready("a word on each", lambda: done(eve, deep, "Stalled"), 120)
    operator.ready("the neighbours", lambda: done(eve, [f"neighbour-{n}" for n in range(190)], "Succeeded"), 120)
    row = eve.rows("AgentRun")["inputs-deep-lists"]
    assert any("spec.inputs nests deeper than 200 levels: make it flatter" in cell for cell in row), row

    # while it watches, and through every kind
    waits = eve.run("waits", {"name": "w", "wait": {"signal": "never"}})
    operator.ready("a run that waits", lambda: done(eve, [waits], "Waiting"), 60)
    inputs = poison.RUNS["inputs"]
    late = [
        eve.write("AgentRun", f"late-{name}", poison.written("AgentRun", f"late-{name}", inputs, poison.VALUES[name]()))
        for name in SMALL
    ]
    for place, spec in poison.commands(waits).items():
        for value in ("deep-lists", "deep-maps", "keys"):
            name = f"{place}-{value}"
            eve.write("AgentCommand", name, poison.written("AgentCommand", name, spec, poison.VALUES[value]()))
    for name in ("deep-lists", "deep-maps"):
        text = poison.written("AgentWorkflow", name, poison.WORKFLOWS["args"], poison.VALUES[name]())
        eve.write("AgentWorkflow", name, text)
        body = {"apiVersion": API_VERSION, "kind": "AgentRun", "metadata": {"name": f"refers-{name}"}}
        eve.write("AgentRun", name, json.dumps(body | {"spec": {"workflowRef": {"name": name}}}))
    others = [ana.run(f"late-{n}", TIMER) for n in range(20)]
    operator.ready("everybody else's later runs", lambda: done(ana, others, "Succeeded"), 120)
    words = {"Stalled", "Waiting"}
    operator.ready("a word on each later one", lambda: {eve.phases()[name] for name in late} <= words, 120)
    phases = eve.phases()
    assert {name for name in SMALL if phases[f"late-{name}"] == "Stalled"} == {n for n in SMALL if "deep" in n} - {WIDE}
    operator.ready("the end of all commands", lambda: not eve.rows("AgentCommand"), 60)
    refused = [note for reason, note in eve.events() if reason == "CommandRefused"]
    assert len(refused) == 6
    assert any("spec.signal nests deeper" in note for note in refused)
    operator.ready("the runs of workflows", lambda: done(eve, ["refers-deep-lists", "refers-deep-maps"], "Stalled"), 60)

    # a tenant is rid of one as of any other
    eve.patch("late-deep-lists", cancel=True)
    operator.ready("the end of a cancelled one", lambda: eve.phases()["late-deep-lists"] == "Cancelled", 60)
    for name in late:
        eve.delete("AgentRun", name)
    last = ana.run("last", TIMER)
    operator.ready("the last one", lambda: done(ana, [last], "Succeeded"), 60)
    assert memory(operator) < MEMORY


@pytest.mark.timeout(600)
def test_large_runs_are_refused_and_leave_the_memory(operator: Component, eve: Tenant, ana: Tenant) -> None:
    inputs = poison.RUNS["inputs"]
    for n in range(3):
        fat = poison.written("AgentRun", f"fat-{n}", inputs, poison.VALUES["objects"]())
        eve.write("AgentRun", f"fat-{n}", fat)
        text = poison.written("AgentRun", f"text-{n}", inputs, poison.text(1_200_000))
        eve.write("AgentRun", f"text-{n}", text)
    operator.start()
    ana.run("first", TIMER)
    operator.ready("the end of another's", lambda: ana.phases()["first"] == "Succeeded", 120)
    words = {f"{kind}-{n}": phase for n in range(3) for kind, phase in (("fat", "Stalled"), ("text", "Waiting"))}
    operator.ready("a word on each", lambda: eve.phases() == words, 120)
    assert memory(operator) < MEMORY
    operator.restart()
    operator.ready("its lead", lambda: "leading" in operator.said(), 60)
    ana.run("second", TIMER)
    operator.ready("the end of another's", lambda: ana.phases()["second"] == "Succeeded", 120)
    assert memory(operator) < MEMORY


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", [1_300_000, 1_450_000, 1_540_000, 1_555_000, 1_565_000, 1_570_000])
def test_a_run_too_big_for_a_status_begins_nothing_that_cannot_be_shown(
    operator: Component, eve: Tenant, size: int
) -> None:
    if not eve.taken("AgentRun", "big", poison.big(size)):
        return  # nobody has such a run
    operator.start()

    def told() -> bool:
        phase = eve.phases()["big"]
        return phase in ("Waiting", "Stalled") or any(reason == "StatusRefused" for reason, _ in eve.events())

    operator.ready("a word of it", told, 150)
    phase = eve.phases()["big"]
    # The API server writes defaults into each step, so that what it keeps is larger than what was sent.
    assert phase == ("Waiting" if size < 1_310_000 else "Stalled") or size > 1_569_000
