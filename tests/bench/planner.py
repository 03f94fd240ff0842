"""Planning and checking a workflow of 1,000 steps: what the driver does whenever something happens, and once.

All of it is computation, so what is measured is CPU time: on a machine that is shared the clock says little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import AgentRun, StepState
from agentrun.documents.document import Document, parse
from agentrun.expressions.cel import forget
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Execution, Snapshot
from agentrun.workflow.program import Program, compile_program
from tests.bench.parts import MODEL, Parts
from tests.bench.table import Row, Series

STEPS = 1_000
REPEATS = 25
PLAN_BAR = 0.010
CHECK_BAR = 1.0
NOW = 1_700_000_000.0
DONE = StepFact(
    attempt=1,
    seq=4,
    head="sha256:0",
    started=NOW - 60,
    at=NOW - 50,
    end=AttemptEnd.CLOSED,
    intervals=((NOW - 60, NOW - 50),),
    outcome=StepState.SUCCEEDED,
    output={"score": 3, "text": "an answer of some length that another step will read"},
)

Step = dict[str, Any]


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for checking a file, and for planning in several shapes."""
    chain, fan_out = _chain(), [_step(0, forEach={"items": list(range(STEPS)), "maxParallel": 100})]
    free = [_step(i) for i in range(STEPS)]
    conditions = [_step(i, dependsOn=["s0"] if i else [], **_when(i)) for i in range(STEPS)]
    for name, steps in {"a chain": chain, "independent": free, "each with when": conditions}.items():
        yield from _checking(name, steps)
    half = {StepKey(f"s{i}"): DONE for i in range(STEPS // 2)}
    yield _planning("a chain, half done", chain, half, {StepKey(f"s{STEPS // 2}"): _running(1)})
    yield _planning("independent, none begun", free, {}, {})
    items = {StepKey("s0", i): DONE for i in range(STEPS // 2)}
    busy = {StepKey("s0", STEPS // 2 + i): _running(1) for i in range(100)}
    yield _planning("one fan-out, half done", fan_out, items, busy)
    asked = [fan_out[0] | {"when": "item % 3 > 0 && inputs.about != 'none'"}]
    yield _planning("one fan-out, when per item, none begun", asked, {}, {})
    yield _planning("each with when, one done", conditions, {StepKey("s0"): DONE}, {})


def _step(i: int, **more: Any) -> Step:
    return {"name": f"s{i}", "agent": {"prompt": f"Judge part {i} of ${{inputs.about}}."}, **more}


def _chain() -> list[Step]:
    steps = [_step(0)]
    for i in range(1, STEPS):
        prompt = f"Go on from ${{steps.s{i - 1}.output.text}}."
        steps.append({"name": f"s{i}", "dependsOn": [f"s{i - 1}"], "agent": {"prompt": prompt}})
    return steps


def _when(i: int) -> Step:
    return {"when": f"steps.s0.output.score > {i % 7} && inputs.about != 'none'"} if i else {}


def _running(attempt: int) -> Execution:
    return Execution(attempt, NOW - 5)


def _checking(name: str, steps: Sequence[Step]) -> Iterator[Row]:
    text = _document(steps)
    yaml, compiled = [], []
    for _ in range(5):
        forget()  # a person checks a file in a process of its own
        began = time.thread_time()
        document = parse(text, "bench.yaml")
        between = time.thread_time()
        _compile(document)
        yaml.append(between - began)
        compiled.append(time.thread_time() - between)
    both = [a + b for a, b in zip(yaml, compiled, strict=True)]
    parts = f"of which {Series(compiled, 'ms').median * 1000:.0f} ms compile"
    yield Row(f"check a file of {STEPS} steps, {name}", Series(both, "s"), against=parts, bar=CHECK_BAR)


def _document(steps: Sequence[Step]) -> bytes:
    workflow = {
        "inputs": {"type": "object", "properties": {"about": {"type": "string"}}},
        "models": [{"name": "main", "model": MODEL}],
        "steps": list(steps),
    }
    document = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"name": "bench"},
        "spec": {"workflow": workflow, "inputs": {"about": "the harbour"}},
    }
    return _as_yaml(document)


def _as_yaml(document: Mapping[str, Any]) -> bytes:
    """Block style, as people write it: its reader has more to do than with JSON."""
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False).encode()


def _compile(documents: Sequence[Document]) -> Program:
    model = documents[0].model
    assert isinstance(model, AgentRun) and model.spec.workflow is not None
    return compile_program(model.spec.workflow, ("spec", "workflow"))


def _planning(
    name: str, steps: Sequence[Step], facts: Mapping[StepKey, StepFact], running: Mapping[StepKey, Execution]
) -> Row:
    snapshot = Snapshot(
        program=_compile(parse(_document(steps), "bench.yaml")),
        run={"name": "bench", "namespace": "default", "requestedBy": "somebody", "uid": "0"},
        inputs={"about": "the harbour"},
        started=NOW - 100,
        now=NOW,
        facts=facts,
        executions=running,
    )
    return Row(f"plan() of {STEPS} steps, {name}", Series(_times(lambda: plan(snapshot)), "ms"), bar=PLAN_BAR)


def _times(call: Callable[[], object]) -> list[float]:
    found = []
    for turn in range(REPEATS + 1):
        began = time.thread_time()
        call()
        if turn:
            found.append(time.thread_time() - began)
    return found
