"""A run in a store: its journal, and the AgentRun object that the planner makes from it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentrun.api.canonical import digest_of
from agentrun.api.errors import AgentrunError
from agentrun.api.facts import ApprovalRequest, AttemptEnd, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.printable import printable
from agentrun.api.run import StepState
from agentrun.api.texts import person
from agentrun.api.workflow import API_VERSION
from agentrun.journal.fold import Folded
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun, program_of
from agentrun.journal.records import Damaged, Record
from agentrun.journal.runs import Unreadable, as_events, list_runs, out_of_reach, read_manifest, read_states
from agentrun.local.lease import holder_of
from agentrun.plan.clocks import in_our_time
from agentrun.plan.events import EventIndex
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Execution, Plan, Start
from agentrun.query.run_view import Mover, Question, RunView
from agentrun.query.timeline import call
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.runner.process_id import surely_alive, surely_dead
from agentrun.store.protocol import Store
from agentrun.store.side_by_side import each
from agentrun.workflow.program import Program

if TYPE_CHECKING:
    from agentrun.plan.commands import NewEvent

_FIELDS = ("name", "namespace", "uid", "createdAt", "requestedBy", "workflow", "workflowDigest", "inputs")
"""The fields that every ``run.json`` has."""


@dataclass(slots=True)
class _Content:
    """The data of a run that was read from the store, before the planner uses it."""

    manifest: RunManifest
    states: dict[StepKey, Folded]
    log: EventLog
    driver: dict[str, Any] | None


@dataclass
class StoredRun(RunView):
    """A run at one moment, as the planner sees it in its journal."""

    store: Store
    pinned: PinnedRun
    states: dict[StepKey, Folded]
    log: EventLog
    driver: dict[str, Any] | None
    """The process that drives the run; None if there is none, or if it is known to be dead."""
    plan: Plan
    now: float

    @classmethod
    def read(cls, store: Store, run: RunPath) -> StoredRun:
        """Read the run. Raises Damaged, StoreError."""
        return cls.of(store, run, _read(store, run), {})

    @classmethod
    def of(cls, store: Store, run: RunPath, content: _Content, compiled: dict[str, Program]) -> StoredRun:
        """Make the view from ``content``. ``compiled`` caches the programs of workflows, by digest. Raises Damaged."""
        manifest = content.manifest
        if missing := [field for field in _FIELDS if field not in manifest]:
            raise Damaged(f"{run.manifest}: it has no {', '.join(missing)}; agentrun did not write this object")
        digest = digest_of(manifest["workflow"])
        if digest not in compiled:
            compiled[digest] = program_of(manifest["workflow"], run.manifest)
        pinned = PinnedRun(run, manifest, compiled[digest])
        now = time.time()
        executions = {
            key: Execution(state.attempt, state.intervals[-1][0])
            for key, state in content.states.items()
            if state.end is None
            and state.intervals
            # Whether a pod runs cannot be seen from here, so it counts as running: the operator looks after it.
            and (pinned.on_cluster or _runs(state.process, content.driver))
        }
        facts = {key: in_our_time(state.fact(), now) for key, state in content.states.items()}
        planned = plan(pinned.snapshot(now, facts, content.log.records, executions))
        if content.driver is None:
            _begin_nothing(planned)
        obj = _object(store, pinned, content.log.records, planned)
        return cls(obj, store, pinned, content.states, content.log, content.driver, planned, now)

    def with_plan(self, planned: Plan) -> StoredRun:
        """The same run with the driver's last plan, which shows more than the journal does."""
        return replace(self, obj=_object(self.store, self.pinned, self.events, planned), plan=planned)

    @property
    def run(self) -> RunPath:
        """The run's path in the store."""
        return self.pinned.run

    @property
    def program(self) -> Program:
        """The run's compiled workflow."""
        return self.pinned.program

    @property
    def step_names(self) -> list[str]:
        """The names of its steps."""
        return [*self.program.steps, *self.program.finally_]

    @property
    def events(self) -> list[Record]:
        """The records of the run's own log."""
        return self.log.records

    @property
    def index(self) -> EventIndex:
        """The index of the run's events."""
        return EventIndex(self.pinned.snapshot(self.now, {}, self.events).events)

    @property
    def created(self) -> str:
        """When it was created, to the microsecond."""
        return self.pinned.manifest["createdAt"]

    @property
    def started(self) -> float:
        """When it was created, in seconds since the epoch."""
        return self.pinned.started

    @property
    def finished(self) -> float | None:
        """When it ended, in seconds since the epoch; None if it has not."""
        return next((r.at for r in self.events if r.kind == EventKind.ENDED), None)

    @property
    def requested(self) -> str:
        """Who created it, in words."""
        by = self.pinned.manifest["requestedBy"]
        if by is None:
            return f"by {person(None)}"
        return f"by {printable(by, 60)}" + ("" if self.pinned.on_cluster else " (unverified)")

    @property
    def ended(self) -> bool:
        """Whether the journal has the event that ends the run."""
        return self.finished is not None

    @property
    def waits_for_person(self) -> bool:
        """Whether the run makes no progress until a person does something."""
        return self.plan.waits_for_person and not self.ended

    @property
    def mover(self) -> Mover:
        """Who drives it."""
        if self.pinned.on_cluster:
            return Mover.ELSEWHERE
        if self.driver is None:
            return Mover.NOBODY
        return Mover.DRIVER if surely_alive(self.driver) else Mover.UNSEEN

    @property
    def driver_name(self) -> str:
        """The process that drives the run, in words; empty if there is none."""
        return process_name(self.driver) if self.driver is not None else ""

    def unknown_call(self, label: str) -> tuple[str, str] | None:
        """See ``RunView``: here with the call's arguments. A resolved call counts too until the step goes on."""
        fact = self.fact(StepKey.parse(label))
        if fact is None or fact.unknown is None or fact.end is not AttemptEnd.WAITING:
            return None
        return fact.unknown.call_id, call(fact.unknown.tool, fact.unknown.args)

    @property
    def finally_begun(self) -> bool:
        """Whether a step of ``finally`` has begun according to the journal. Such a step was given the run's outcome."""
        begun = {key.name for key in self.states} | self.index.beginnings.keys()
        return not begun.isdisjoint(self.program.finally_)

    def fact(self, key: StepKey) -> StepFact | None:
        """The step's fact from its journal; None if the step has no journal."""
        return self.states[key].fact() if key in self.states else None

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps that are parked because too many attempts were lost, each with the last attempt's number."""
        for label, waiting in self.waiting.items():
            if "resume" in waiting:
                key = StepKey.parse(label)
                yield key, self.states[key].attempt if key in self.states else 0

    def record(self, event: NewEvent, unless: Callable[[EventIndex], bool] = lambda _: False) -> bool:
        """Append the event, and return whether it was written. It is not written if it is recorded already, if the run
        has ended, or if ``unless`` is true for the events that are there by then.

        Raises:
            StoreError: the event may have been written or not. The same call may be repeated.
        """
        from agentrun.plan.commands import already_recorded  # noqa: PLC0415  (lazy: ``list`` and ``show`` only read)

        def there(records: Sequence[Record]) -> bool:
            index = EventIndex(as_events(records))
            return already_recorded(event, index) or unless(index)

        return self.log.append(event.kind, event.body, unless=there)

    def questions(self) -> Iterator[Question]:
        """All undecided requests for approval, in the order of the steps."""
        index = self.index
        for name in self.step_names:
            event = index.requested.get(name)
            if event is not None and name not in index.settled:
                request = ApprovalRequest.from_json(event.body["request"])
                if index.tally(request, self.now).state == "Pending":
                    yield Question(name, request)
            for key, state in sorted(self.states.items(), key=lambda item: (item[0].index or 0, item[0].path)):
                if key.name != name or state.end is not AttemptEnd.WAITING:
                    continue
                for request in state.fact().approvals:
                    if index.tally(request, self.now).state == "Pending":
                        yield Question(key.label, request)


def process_name(process: dict[str, Any]) -> str:
    """The words for a process that drives a run."""
    return printable(f"process {process.get('pid')} on {process.get('host')}", 100)


def _object(store: Store, pinned: PinnedRun, events: Sequence[Record], planned: Plan) -> dict[str, Any]:
    """The run as an AgentRun object."""
    m = pinned.manifest
    index = EventIndex(as_events(events))
    cancelled = index.cancelled is not None
    spec: dict[str, Any] = {"workflow": m["workflow"], "inputs": m["inputs"]}
    spec |= {k: m[k] for k in ("budget", "timeout", "source") if m.get(k)}
    spec |= {"suspend": index.suspended and not cancelled, "cancel": cancelled}
    metadata = {
        "name": m["name"],
        "namespace": m["namespace"],
        "uid": m["uid"],
        "creationTimestamp": m["createdAt"][:19] + "Z",
        "labels": m.get("labels") or {},
        "annotations": {REQUESTED_BY: m["requestedBy"]} if m["requestedBy"] is not None else {},
    }
    status = {"observedGeneration": 1, "workflowDigest": m["workflowDigest"], **planned.status}
    status["journal"] = f"{store.url.rstrip('/')}/{pinned.run}/"
    return {"apiVersion": API_VERSION, "kind": "AgentRun", "metadata": metadata, "spec": spec, "status": status}


def elsewhere(run: RunPath) -> str:
    """The message that a run of a cluster is neither driven nor given commands through its store."""
    return (
        f"run {run.name} is driven by the operator of a cluster, where the API server verifies who gives a command: "
        f"use kubectl agentrun VERB {run.name} -n {run.namespace}. Nothing was written"
    )


def read_all(store: Store, namespace: str | None) -> list[StoredRun | Unreadable]:
    """All runs of a namespace, or of all namespaces. A run that cannot be read is an ``Unreadable`` with the reason.

    Raises:
        StoreError: the store is out of reach, or the namespace cannot be read.
    """
    unread: list[Unreadable] = []
    runs = list_runs(store, namespace, unread.append)

    def content(run: RunPath) -> _Content | Exception:
        try:
            return _read(store, run)
        except Exception as error:
            if isinstance(error, AgentrunError) and out_of_reach(store, error):
                raise
            return error

    found = each(content, runs, remote=store.remote)
    compiled: dict[str, Program] = {}
    return [*(_seen(store, r, c, compiled) for r, c in zip(runs, found, strict=True)), *unread]


def _seen(
    store: Store, run: RunPath, content: _Content | Exception, compiled: dict[str, Program]
) -> StoredRun | Unreadable:
    """The view of one run of a list. Any error of this run becomes an ``Unreadable``, so that the others show."""
    try:
        if isinstance(content, Exception):
            raise content
        return StoredRun.of(store, run, content, compiled)
    except AgentrunError as error:
        return Unreadable(run.namespace, run.name, error)
    except Exception as error:  # noqa: BLE001  (``show`` of this one run raises it with its traceback)
        return Unreadable(run.namespace, run.name, Damaged(f"{run}: {type(error).__name__}: {error}"))


def _read(store: Store, run: RunPath) -> _Content:
    manifest = read_manifest(store, run)
    driver = _driver(store, run)
    # Read the states before the events: the event that ends a run is written after everything it says about steps.
    states = read_states(store, run)
    log = EventLog(store, run, time.time)
    log.refresh()
    return _Content(manifest, states, log, driver)


def _driver(store: Store, run: RunPath) -> dict[str, Any] | None:
    process = holder_of(store, run)
    return process if process and not surely_dead(process) else None


def _runs(process: dict[str, Any], driver: dict[str, Any] | None) -> bool:
    """Whether the attempt in ``process`` still runs, as far as this machine can tell."""
    return surely_alive(process) or (driver is not None and not surely_dead(process))


def _begin_nothing(planned: Plan) -> None:
    """Show the steps that the plan would start as Pending: there is no driver to start them."""
    entries = {entry["name"]: entry for entry in planned.status["steps"]}
    for effect in planned.effects:
        if not isinstance(effect, Start):
            continue
        entry, whole = entries.get(effect.key.label), entries.get(effect.key.name)
        if entry is not None and entry["state"] == StepState.RUNNING:
            entry["state"] = str(StepState.PENDING)
        if whole is not None and "items" in whole:
            counts = Counter(whole["items"])
            counts[StepState.RUNNING] -= 1
            counts[StepState.PENDING] += 1
            whole["items"] = {str(state): n for state, n in sorted(counts.items()) if n > 0}
            if not whole["items"].get(StepState.RUNNING) and whole["state"] == StepState.RUNNING:
                rest = (StepState.OUTCOME_UNKNOWN, StepState.WAITING, StepState.PENDING)
                whole["state"] = str(next(s for s in rest if whole["items"].get(s)))
