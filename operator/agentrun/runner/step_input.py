"""What an attempt reads from the journal before its first record: values, events and the step's task."""

from __future__ import annotations

from typing import Any

from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.attempt.spec import AttemptSpec
from agentrun.expressions.templates import ExpressionError, Values
from agentrun.journal.log import load_body, read_records
from agentrun.journal.paths import RunPath
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import Store
from agentrun.workflow.program import CompiledStep


def values_of(store: Store, spec: AttemptSpec, manifest: RunManifest, step: CompiledStep) -> dict[str, Any]:
    """The variables of the step's expressions. They are read from the journal, so they are what was committed."""
    run, key = spec.run, spec.start.key
    steps: dict[str, Any] = {}
    for name, ref in spec.start.refs.items():
        output = None
        if ref.event is not None:
            output = event_of(store, run, ref.event).get("output")
        elif ref.seq is not None:
            own = StepKey(name, key.index if name == key.name else None)
            [record] = read_records(store, run.step(own), [ref.seq])
            output = load_body(store, run, record).body.get("output")
        steps[name] = {"state": ref.state, "output": output}
        if name == key.name and ref.state != StepState.SUCCEEDED:
            # The step took effect but has no output. Without the key, a compensation that reads it fails: it must not
            # be called with null.
            del steps[name]["output"]
    about = {k: manifest[k] for k in ("name", "namespace", "requestedBy")} | {"outcome": spec.start.outcome}
    found: dict[str, Any] = {"inputs": manifest["inputs"], "run": about, "steps": steps}
    if key.index is not None and step.items is not None:
        found |= {"item": step.items.render(Values(found))[key.index], "index": key.index}
    return found


def event_of(store: Store, run: RunPath, seq: int) -> dict[str, Any]:
    """An event of the run, as the attempt's first record keeps it: the body, its kind and its time."""
    [record] = read_records(store, run.events, [seq])
    # A decision has its own ``at``: when the API server accepted it, which is before it was recorded.
    body: dict[str, Any] = load_body(store, run, record).body
    return {"at": record.at} | body | {"kind": record.kind}


def task_of(step: CompiledStep, key: StepKey, values: dict[str, Any]) -> dict[str, Any]:
    """Render the step's task. It is recorded once, so that every attempt works on the same task."""
    scope = Values(values)
    try:
        if key.compensate:
            assert step.compensation is not None
            return {"args": step.compensation.render(scope)}
        return {name: template.render(scope) for name, template in step.texts.items()}
    except ExpressionError as error:
        return {"error": str(error)}
