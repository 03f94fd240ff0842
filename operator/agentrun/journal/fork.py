"""A fork: a new run that takes over the past of another run (its source) and goes on from a point in it.

The fork has records of its own for everything that it takes over; each names the record it comes from, and its hash. So
the fork does not need its source, which may be deleted, and its journal is verified like any other. No authorization is
taken over: decisions were about the source's calls, so people are asked again about the fork's, and the fork has
idempotency keys of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from agentrun.api.canonical import digest_of, timestamp
from agentrun.api.errors import AgentrunError, InvalidDocument, Problem
from agentrun.api.facts import AttemptEnd, Usage
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.texts import quoted
from agentrun.api.workflow import WorkflowSpec
from agentrun.journal.fold import Folded, fold
from agentrun.journal.log import EventLog, Fenced, StepLog, read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.journal.repeats import repeated_calls
from agentrun.journal.runs import NoSuchRun, RunExists, create_run, find_run, read_states
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Plan, Snapshot
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind, SettledBody
from agentrun.records.step_records import CompactedBody, Kind
from agentrun.store.protocol import Store
from agentrun.store.side_by_side import each
from agentrun.workflow.json_schema import compile_schema
from agentrun.workflow.pinning import NAME_MAX
from agentrun.workflow.program import Program, compile_program
from agentrun.workflow.step_kinds import kind_of_document


class ForkRefused(AgentrunError):
    """A run cannot be forked at that point. Nothing was written."""


First = tuple[StepKey, int, Kind, Mapping[str, Any]]
"""Step, attempt, kind and body of a journal's first record."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork before it is written."""

    manifest: RunManifest
    records: tuple[First, ...]
    """The first record of each step log that the fork begins with."""
    settled: tuple[SettledBody, ...]
    """The ends of steps that have no log of their own."""
    done: frozenset[str]
    """The steps that are taken over whole."""
    again: tuple[str, ...]
    """One sentence for each ``Once`` call that the source began after this point: the fork may make it a second time.
    """


def forked_manifest(
    source: RunManifest,
    at: StepKey,
    seq: int | None,
    *,
    inputs: dict[str, Any],
    prompt: str | None,
    model: str | None,
    name: str | None,
    now: float,
    uid: str,
    requested_by: str,
) -> RunManifest:
    """The manifest of a fork: the manifest ``source`` with the changes that are given.

    Raises:
        ForkRefused: there is no step ``at``, a change does not fit it, or the workflow is not valid with the changes.
        InvalidDocument: the inputs or the workflow are not valid with the changes.
    """
    workflow = deepcopy(source["workflow"])
    step = next((s for s in [*workflow["steps"], *workflow.get("finally", [])] if s["name"] == at.name), None)
    if step is None:
        raise ForkRefused(f"run {source['name']} has no step {quoted(at.name)}")
    changes = {k: v for k, v in {"prompt": prompt, "model": model}.items() if v is not None}
    kind = kind_of_document(step)
    if foreign := [name for name in changes if name not in kind.forked_with]:
        raise ForkRefused(f"{at.name} is a step of kind {kind.name}: it has no {' and no '.join(foreign)} to change")
    step[kind.name] |= changes
    try:
        spec = WorkflowSpec.model_validate(workflow)
    except ValidationError as error:
        raise ForkRefused(
            f"the workflow is not valid with {' and '.join(changes)}: {error.errors()[0]['msg']}"
        ) from error
    compile_program(spec)
    merged = {**source["inputs"], **inputs}
    if errors := compile_schema(spec.inputs).errors(merged):
        raise InvalidDocument([Problem(("inputs",), error) for error in errors])
    return {
        **source,
        "name": name or f"{source['name'][: NAME_MAX - 6].rstrip('-')}-{uid[:5]}",
        "uid": uid,
        "createdAt": timestamp(now),
        "requestedBy": requested_by,
        "workflow": workflow,
        "workflowDigest": digest_of(workflow),
        "inputs": merged,
        "suspend": False,
        "cancel": False,
        "source": {"run": source["name"], "step": at.label} | ({"seq": seq} if seq is not None else {}),
    }


def plan_fork(
    store: Store,
    source: RunPath,
    manifest: RunManifest,
    at: StepKey,
    seq: int | None,
    *,
    now: float,
    planned: Callable[[Snapshot], Plan] = plan,
) -> Fork:
    """What the run of ``manifest`` takes over from ``source``: every step that is done and does not depend on ``at``.

    With ``seq``, it also takes over ``at`` itself, in its state after that record. The source may still be running.
    ``planned`` makes the plan that tells how the source's steps stand.

    Raises:
        ForkRefused: the run cannot be forked at that point; the message says at which one it can.
        Damaged, StoreError: the source cannot be read.
    """
    origin = PinnedRun.read(store, source)
    program = compile_program(WorkflowSpec.model_validate(manifest["workflow"]), pinned=True)
    _check_point(program, at, seq)
    states = read_states(store, source)
    events = EventLog(store, source, lambda: now)
    events.refresh()
    facts = {key: state.fact() for key, state in states.items()}
    status = planned(origin.snapshot(now, facts, events.records)).status
    found = {entry["name"]: StepState(entry["state"]) for entry in status["steps"]}
    done = _taken(program, at, found, states)
    keys = [key for key, state in states.items() if _is_taken(program, key, state, at, done)]
    closed = {key: read_step(store, source, key)[-1] for key in keys}
    records: list[First] = []
    for key, record in closed.items():
        # The source has paid for it: the fork's budget and costs begin at zero.
        body = {k: v for k, v in record.body.items() if k != "toolCalls"}
        records.append((key, record.attempt, Kind.CLOSED, body | {"source": _source(source, key, record)}))
    if seq is not None:
        records.append(_state_at(store, source, origin, program, manifest, at, seq, now))
    settled = list(_settled(source, events.records, done, at, found, closed.keys()))
    again = tuple(repeated_calls(store, source, origin.program, states.keys() - closed.keys(), at, seq))
    return Fork(manifest, tuple(records), tuple(settled), done, again)


def write_fork(store: Store, fork: Fork, clock: Callable[[], float]) -> RunPath:
    """Make the fork durable. Its name is written last: a crash half way leaves no run.

    Raises:
        RunExists: the name is taken.
        StoreError: the fork may exist or not.
    """
    manifest = fork.manifest
    run = RunPath(manifest["namespace"], manifest["name"], manifest["uid"])
    try:
        find_run(store, run.namespace, run.name)
    except NoSuchRun:
        pass
    else:
        raise RunExists(f"a run named {run.name} exists in {run.namespace}: give another name with --name")

    write_fork_records(store, fork, clock)
    return create_run(store, manifest)


def write_fork_records(store: Store, fork: Fork, clock: Callable[[], float]) -> None:
    """Write the records that the fork begins with, before anything makes it exist. May be repeated after a crash.

    Raises:
        StoreError: some of the records may be written.
    """
    run = RunPath(fork.manifest["namespace"], fork.manifest["name"], fork.manifest["uid"])

    def write(entry: First) -> None:
        key, attempt, kind, body = entry
        nothing = Record(str(run), key.path, 0, 0, 0.0, "", {}, "")
        try:
            StepLog(store, run, key, attempt, nothing, clock).append(kind, body)
        except Fenced:
            return  # an earlier try wrote it: nobody else writes here, because the run does not exist yet

    each(write, fork.records, remote=store.remote)
    log = EventLog(store, run, clock)
    for body in fork.settled:
        log.append(EventKind.SETTLED, body, partial(_is_settled, body["step"]))


def _is_settled(step: str, records: Sequence[Record]) -> bool:
    return any(record.body.get("step") == step for record in records)


def _check_point(program: Program, at: StepKey, seq: int | None) -> None:
    if at.compensate:
        raise ForkRefused(f"{at.label} undoes a step: fork from a step itself")
    if at.name not in program.steps and at.name not in program.finally_:
        names = ", ".join([*program.steps, *program.finally_])
        raise ForkRefused(f"there is no step {quoted(at.name)}; there are {names}")
    fan_out = program.step(at.name).items is not None
    if at.index is not None and not fan_out:
        raise ForkRefused(f"{at.name} has no forEach: name the step without an index")
    if seq is not None and fan_out and at.index is None:
        raise ForkRefused(f"{at.name} has a journal for each item: write {at.name}[INDEX]@{seq}")


def _taken(program: Program, at: StepKey, found: dict[str, StepState], states: dict[StepKey, Folded]) -> frozenset[str]:
    """The steps that are taken over whole: they ended well, were not undone, and all their ancestors are taken over.

    A failed or cancelled step is tried again, because a fork that took over a failure would have failed already. But a
    fork at a ``finally`` step is about the end of that very run: there, the steps of the workflow stay as they ended.
    """
    last = at.name in program.finally_
    undone = {key.name for key in states if key.compensate}
    taken: set[str] = set()
    for step in (*program.steps.values(), *program.finally_.values()):
        state = found.get(step.name)
        if step.name == at.name or state is None or not step.ancestors <= taken:
            continue
        well = state in (StepState.SUCCEEDED, StepState.SKIPPED) and step.name not in undone
        tolerated = state is StepState.FAILED and step.spec.continue_on_error
        if well or tolerated or (last and step.name in program.steps and state.final):
            taken.add(step.name)
    # An approval was given for what the source did next. If that is done again, people are asked again: the inputs or
    # the workflow may have changed, and the person who forks may not be an approver.
    before_the_new = {name for step in program.steps.values() if step.name not in taken for name in step.ancestors}
    return frozenset(name for name in taken if name not in before_the_new or not program.step(name).kind.permits)


def _is_taken(program: Program, key: StepKey, state: Folded, at: StepKey, done: frozenset[str]) -> bool:
    """Whether the log of ``key`` is taken over as closed."""
    if state.outcome is None:
        return False
    if key.name in done:
        return not key.compensate or at.name in program.finally_
    # The fork begins at one item of a fan-out: the items that succeeded beside it are taken over.
    sibling = key.name == at.name and at.index is not None and key.index != at.index and not key.compensate
    return sibling and state.outcome == StepState.SUCCEEDED


def _settled(
    source: RunPath,
    events: Iterable[Record],
    done: frozenset[str],
    at: StepKey,
    found: dict[str, StepState],
    closed: Iterable[StepKey],
) -> Iterator[SettledBody]:
    """The events that end steps without a log: copied, or made for skipped steps, which left no record at all."""
    missing = set(done) - {key.name for key in closed if key == StepKey(key.name)}
    for record in events:
        if record.kind != EventKind.SETTLED:
            continue
        key = StepKey.parse(record.body["step"])
        if key.name not in done or (key.compensate and at.name in done):
            continue
        missing.discard(record.body["step"])
        # ``signal`` is an event's number, and that number is another event's in the fork.
        body: Any = {k: v for k, v in record.body.items() if k != "signal"}
        body["source"] = {"run": str(source), "event": record.seq, "hash": record.hash}
        yield body
    for name in sorted(missing):
        yield {"step": name, "state": str(found[name]), "source": {"run": str(source)}}


def _state_at(
    store: Store,
    source: RunPath,
    origin: PinnedRun,
    program: Program,
    manifest: RunManifest,
    at: StepKey,
    seq: int,
    now: float,
) -> First:
    """The first record of the step ``at``: its state after record ``seq`` of the source."""
    records = read_step(store, source, at, whole=True)
    if not 1 <= seq <= len(records):
        have = f"its records are 1 to {len(records)}" if records else "it has no records"
        raise ForkRefused(f"{at.label} has no record {seq}; {have}")
    state = fold(records[:seq])
    if state.outcome is not None:
        raise ForkRefused(f"record {seq} of {at.label} closes it: choose an earlier one, or fork from a later step")
    if state.intent is not None:
        raise ForkRefused(
            f"after record {seq} of {at.label} the outcome of {state.intent['tool']} is unknown, and a fork would call "
            f"it again: choose an earlier record ({_before(records[:seq])}) or one after its result"
        )
    _check_kind(origin.program, program, at)
    changed = manifest["inputs"] != origin.manifest["inputs"] or _step(manifest, at) != _step(origin.manifest, at)
    # The step goes on as if its attempt had been asked to leave between two calls. Decisions and questions are not
    # taken over, because they are bound to the source's calls; nor is the usage, nor a process to wait for.
    state.end, state.waiting, state.process, state.caller = AttemptEnd.WAITING, {"interrupted": True}, {}, {}
    state.events, state.requests, state.failure = {}, {}, None
    state.failures = state.losses = 0
    state.usage = Usage().to_json()
    state.intervals, state.started, state.at = [], 0.0, round(now, 6)
    if changed:
        state.task = None  # rendered again when the step opens
    body: CompactedBody = {"reason": "fork", "state": state.to_json(), "source": _source(source, at, records[seq - 1])}
    if state.refused:
        body["refused"] = state.refused
    return at, state.attempt, Kind.COMPACTED, body


def _before(records: list[Record]) -> str:
    """The numbers of the records before the last intent, in words."""
    last = max(record.seq for record in records if record.kind == Kind.INTENT)
    return f"at most {last - 1}"


def _check_kind(before: Program, after: Program, at: StepKey) -> None:
    """Raise ForkRefused if only one of the two workflows' steps asks a model: the other has no use for the history.
    Another model is fine: it takes the history, whichever API it speaks.
    """
    one, other = before.step(at.name), after.step(at.name)
    if (one.model is None) != (other.model is None):
        raise ForkRefused(f"{at.name} is another kind of step now: fork from it without @SEQ")


def _step(manifest: RunManifest, at: StepKey) -> Any:
    workflow = manifest["workflow"]
    return next((s for s in [*workflow["steps"], *workflow.get("finally", [])] if s["name"] == at.name), None)


def _source(run: RunPath, key: StepKey, record: Record) -> dict[str, Any]:
    return {"run": str(run), "step": key.path, "seq": record.seq, "hash": record.hash}
