"""How two runs differ: in workflow, inputs, and for each step in its state, task, output and first differing record.

Records are compared without instants, identifiers and costs, which always differ. Checkpoints, and records of an
attempt's start or interruption, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, assert_never

from agentrun.api.keys import StepKey
from agentrun.journal.records import Record
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import Kind, step_kind


@dataclass(frozen=True, slots=True)
class Side:
    """One of two runs."""

    path: str
    """The run's path in the form that records use."""
    manifest: RunManifest
    states: Mapping[str, str]
    """The state of each step by its label, in the order of the workflow."""
    records: Mapping[StepKey, Sequence[Record]]
    events: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two runs. A side that does not have the value is None."""

    step: str
    """The step's label; empty for the run as a whole."""
    what: str
    left: Any
    right: Any


def differences(left: Side, right: Side) -> Iterator[Difference]:
    """All differences: first of the runs as a whole, then step by step."""
    if left.manifest["workflowDigest"] != right.manifest["workflowDigest"]:
        yield Difference("", "workflow", left.manifest["workflowDigest"], right.manifest["workflowDigest"])
    yield from _parts("", "inputs", left.manifest["inputs"], right.manifest["inputs"])
    labels = list(dict.fromkeys([*left.states, *right.states]))
    keys = {key.label: key for key in (*left.records, *right.records)}
    for label in dict.fromkeys([*labels, *sorted(keys)]):
        if left.states.get(label) != right.states.get(label):
            yield Difference(label, "state", left.states.get(label), right.states.get(label))
        key = keys.get(label)
        yield from _settled(left, right, label)
        if key is not None:
            yield from _step(left, right, key)


def _parts(step: str, what: str, left: Any, right: Any) -> Iterator[Difference]:
    """The differing fields of two objects. Values of other types are compared as a whole."""
    if not (isinstance(left, dict) and isinstance(right, dict)):
        if left != right:
            yield Difference(step, what, left, right)
        return
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name):
            yield Difference(step, f"{what}.{name}", left.get(name), right.get(name))


def _settled(left: Side, right: Side, label: str) -> Iterator[Difference]:
    """The differences of a step that has no log: its end is an event."""
    one, other = _settlement(left.events, label), _settlement(right.events, label)
    if one is not None and other is not None and one != other:
        yield from _parts(label, "output", one.get("output"), other.get("output"))
        yield from _parts(label, "failure", one.get("failure"), other.get("failure"))


def _settlement(events: Sequence[Record], label: str) -> dict[str, Any] | None:
    for record in events:
        if record.kind == EventKind.SETTLED and StepKey.parse(record.body["step"]).label == label:
            return {k: record.body.get(k) for k in ("output", "failure")}
    return None


def _step(left: Side, right: Side, key: StepKey) -> Iterator[Difference]:
    one, other = left.records.get(key, ()), right.records.get(key, ())
    asked = (_task(one), _task(other))
    if None not in asked:
        yield from _parts(key.label, "task", *asked)
    outputs = list(_parts(key.label, "output", _output(one), _output(other)))
    yield from outputs
    for mine, theirs in zip_longest(*_comparable(left, right, one, other)):
        before = None if mine is None else essence(mine)
        after = None if theirs is None else essence(theirs)
        if before != after:
            if outputs and mine and theirs and mine.kind == theirs.kind == Kind.CLOSED:
                return  # the two records differ in the output only, which was reported above
            seqs = " / ".join("-" if record is None else str(record.seq) for record in (mine, theirs))
            yield Difference(key.label, f"record {seqs}", before, after)
            return


def _output(records: Sequence[Record]) -> Any:
    last = records[-1] if records else None
    return last.body.get("output") if last is not None and last.kind == Kind.CLOSED else None


def _task(records: Sequence[Record]) -> Any:
    """The step's last task. A step has more than one if a fork rendered it again."""
    task = None
    for record in records:
        if record.kind == Kind.OPENED:
            task = record.body.get("task", task)
        elif record.kind == Kind.COMPACTED and "state" in record.body:
            task = record.body["state"]["task"]
    return task


def _comparable(
    left: Side, right: Side, one: Sequence[Record], other: Sequence[Record]
) -> tuple[list[Record], list[Record]]:
    """The records of both sides that can be compared one by one.

    A fork does not have the records of its source before the fork point, so they are removed from the source's side.
    """
    mine, theirs = _telling(one), _telling(other)
    for fork, past, source in ((one, theirs, right), (other, mine, left)):
        first = fork[0] if fork else None
        if first is None or "source" not in first.body:
            continue
        if first.kind == Kind.CLOSED:
            past[:] = past[-1:] if past and past[-1].kind == Kind.CLOSED else past
        elif first.body["source"]["run"] == source.path:
            past[:] = [record for record in past if record.seq > first.body["source"]["seq"]]
    return mine, theirs


def _telling(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if _tells(record)]


def _tells(record: Record) -> bool:
    match step_kind(record.kind):
        case Kind.OPENED:
            return False
        case Kind.WAITING:
            return not record.body.get("interrupted")
        case Kind.COMPACTED:
            return "state" not in record.body
        case Kind.TURN | Kind.INTENT | Kind.RESULT | Kind.FAILED | Kind.CLOSED | None:
            return True
        case unreachable:
            assert_never(unreachable)


def essence(record: Record) -> dict[str, Any]:
    """The content of ``record`` without the parts that differ in every run."""
    body = record.body
    match step_kind(record.kind):
        case Kind.TURN:
            said = _only(body, "text", "refusal", "incomplete")
            said["calls"] = [_only(call, "name", "args", "error") for call in body["calls"]]
        case Kind.INTENT:
            said = _only(body, "tool", "args")
        case Kind.RESULT:
            said = _only(body, "repair", "because")
            if "results" in body:
                said["results"] = [_only(r, "tool", "output", "isError", "called") for r in body["results"]]
        case Kind.WAITING:
            said = _only(body, "budget")
            if "approvals" in body:
                said["approvals"] = [_only(request, "subject", "details", "tool") for request in body["approvals"]]
            if "unknown" in body:
                said["unknown"] = _only(body["unknown"], "tool", "args", "message")
        case Kind.FAILED:
            said = _only(body, "class", "message")
        case Kind.CLOSED:
            said = _only(body, "outcome", "output", "failure")
        case Kind.COMPACTED:
            said = _only(body, "reason", "dropped")
        case Kind.OPENED | None:
            said = {}
        case unreachable:
            assert_never(unreachable)
    return {"kind": str(record.kind), **said}


def _only(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: body[name] for name in names if body.get(name) is not None}
