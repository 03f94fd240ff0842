"""A run as it stands in the store, and as an object in the shape that the cluster has."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentrun.api.canonical import digest_of
from agentrun.api.errors import AgentrunError
from agentrun.api.facts import ApprovalRequest, AttemptEnd, StepFact, StepKey
from agentrun.api.names import REQUESTED_BY
from agentrun.api.run import StepState
from agentrun.api.texts import quoted
from agentrun.api.workflow import API_VERSION
from agentrun.cli.failures import Refused
from agentrun.cli.options import Place
from agentrun.journal.fold import Folded
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog
from agentrun.journal.pinned import Pinned, program_of
from agentrun.journal.records import Damaged, Record
from agentrun.journal.run import Unreadable, as_events, list_runs, out_of_reach, read_manifest, read_states
from agentrun.local.lease import holder_of
from agentrun.plan.clocks import in_our_time
from agentrun.plan.events import EventIndex
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Execution, Plan, Start
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.runner.identity import surely_alive, surely_dead
from agentrun.store.protocol import Store
from agentrun.store.side_by_side import each
from agentrun.workflow.program import Program

if TYPE_CHECKING:
    from agentrun.plan.commands import NewEvent

_FIELDS = ("name", "namespace", "uid", "createdAt", "requestedBy", "workflow", "workflowDigest", "inputs")
"""What every ``run.json`` has."""


@dataclass(slots=True)
class _Content:
    """What the store holds of a run, before anything is made of it."""

    manifest: RunManifest
    states: dict[StepKey, Folded]
    log: EventLog
    driver: dict[str, Any] | None


@dataclass(slots=True)
class View:
    """A run at one moment, as the planner sees it."""

    store: Store
    pinned: Pinned
    states: dict[StepKey, Folded]
    log: EventLog
    driver: dict[str, Any] | None
    """The process that drives the run, unless it is known to be dead; None where there is none."""
    plan: Plan
    now: float

    @classmethod
    def read(cls, store: Store, run: RunPath) -> View:
        """Read it. Raises Damaged, StoreError."""
        return cls.of(store, run, _read(store, run), {})

    @classmethod
    def find(cls, place: Place, store: Store, name: str) -> View:
        """Read the run of that name. Raises NoSuchRun, Damaged, StoreError."""
        return cls.read(store, place.find(store, name))

    @classmethod
    def find_own(cls, place: Place, store: Store, name: str) -> View:
        """The same, of a run that a process of agentrun drives, and that is told things through its store.

        Raises:
            Refused: a cluster's operator drives it, which hears only what comes through the API server.
        """
        view = cls.find(place, store, name)
        if view.pinned.on_cluster:
            raise Refused(refusal(view.run))
        return view

    @classmethod
    def of(cls, store: Store, run: RunPath, content: _Content, compiled: dict[str, Program]) -> View:
        """Make it of what was read; ``compiled`` keeps the programs of the workflows that were met, by digest."""
        manifest = content.manifest
        if missing := [field for field in _FIELDS if field not in manifest]:
            raise Damaged(f"{run.manifest}: it has no {', '.join(missing)}; agentrun did not write this object")
        digest = digest_of(manifest["workflow"])
        if digest not in compiled:
            compiled[digest] = program_of(manifest["workflow"], run.manifest)
        pinned = Pinned(run, manifest, compiled[digest])
        now = time.time()
        executions = {
            key: Execution(state.attempt, state.intervals[-1][0])
            for key, state in content.states.items()
            if state.end is None
            and state.intervals
            # of a pod nothing can be told from here: the cluster's operator looks after it
            and (pinned.on_cluster or _runs(state.process, content.driver))
        }
        facts = {key: in_our_time(state.fact(), now) for key, state in content.states.items()}
        planned = plan(pinned.snapshot(now, facts, content.log.records, executions))
        if content.driver is None:
            _begin_nothing(planned)
        return cls(store, pinned, content.states, content.log, content.driver, planned, now)

    @property
    def run(self) -> RunPath:
        """Where the run stands in the store."""
        return self.pinned.run

    @property
    def name(self) -> str:
        """The run's name."""
        return self.pinned.run.name

    @property
    def program(self) -> Program:
        """The run's compiled workflow."""
        return self.pinned.program

    @property
    def events(self) -> list[Record]:
        """The run's own records."""
        return self.log.records

    @property
    def index(self) -> EventIndex:
        """The run's events by what they are about."""
        return EventIndex(self.pinned.snapshot(self.now, {}, self.events).events)

    @property
    def ended(self) -> Record | None:
        """The event that ended the run."""
        return next((r for r in self.events if r.kind == EventKind.ENDED), None)

    @property
    def driver_unseen(self) -> bool:
        """Whether nothing here tells if the driver lives: it ran on another host, or before a reboot of this one."""
        return self.driver is not None and not surely_alive(self.driver)

    @property
    def suspended(self) -> bool:
        """Whether the run starts nothing until it is resumed."""
        return self.index.suspended and self.index.cancelled is None

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the object."""
        return self.plan.status

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The status of each step by its label."""
        return {entry["name"]: entry for entry in self.status["steps"]}

    @property
    def finally_begun(self) -> bool:
        """Whether a step of ``finally`` has begun, by the journal: it was told how the run ends."""
        index = self.index
        begun = {key.name for key in self.states} | index.requested.keys() | index.waits.keys()
        return not begun.isdisjoint(self.program.finally_)

    def still_going(self) -> None:
        """Raise Refused where the run has ended."""
        if self.ended is not None:
            raise Refused(f"run {self.name} has ended: {self.status['phase']}; an ended run never changes")

    def fact(self, key: StepKey) -> StepFact | None:
        """What the journal of a step says; None: it has none."""
        return self.states[key].fact() if key in self.states else None

    def lost(self) -> Iterator[tuple[StepKey, int]]:
        """The steps that are parked because their attempts were lost too often, with the last attempt's number."""
        for name, entry in self.entries.items():
            if "resume" in entry.get("waitingFor", {}):
                key = StepKey.parse(name)
                yield key, self.states[key].attempt if key in self.states else 0

    def record(self, event: NewEvent, unless: Callable[[EventIndex], bool] = lambda _: False) -> bool:
        """Append the event unless it is recorded already, the run has ended, or ``unless`` holds of what is there by
        then; whether it was written.

        Raises:
            StoreError: it may be written or not; the same may be tried again.
        """
        from agentrun.plan.commands import already_recorded  # noqa: PLC0415  (lazy: ``list`` and ``show`` say nothing)

        def there(records: Sequence[Record]) -> bool:
            index = EventIndex(as_events(records))
            return already_recorded(event, index) or unless(index)

        return self.log.append(event.kind, event.body, unless=there)

    def key(self, text: str) -> StepKey:
        """The step that a person names. Raises Refused where the workflow has none of that name."""
        try:
            key = StepKey.parse(text)
        except ValueError as error:
            raise Refused(str(error)) from None
        names = [*self.program.steps, *self.program.finally_]
        if key.name not in names:
            raise Refused(f"run {self.name} has no step {quoted(key.name)}; it has {', '.join(names)}")
        return key

    def requests(self) -> Iterator[tuple[StepKey, ApprovalRequest]]:
        """Everything that people were asked and that is undecided, in the order of the steps."""
        index = self.index
        for name in (*self.program.steps, *self.program.finally_):
            event = index.requested.get(name)
            if event is not None and name not in index.settled:
                request = ApprovalRequest.from_json(event.body["request"])
                if index.tally(request, self.now).state == "Pending":
                    yield StepKey(name), request
            for key, state in sorted(self.states.items(), key=lambda item: (item[0].index or 0, item[0].path)):
                if key.name != name or state.end is not AttemptEnd.WAITING:
                    continue
                for request in state.fact().approvals:
                    if index.tally(request, self.now).state == "Pending":
                        yield key, request

    def to_json(self) -> dict[str, Any]:
        """The AgentRun."""
        m = self.pinned.manifest
        spec: dict[str, Any] = {"workflow": m["workflow"], "inputs": m["inputs"]}
        spec |= {k: m[k] for k in ("budget", "timeout", "source") if m.get(k)}
        spec |= {"suspend": self.suspended, "cancel": self.index.cancelled is not None}
        metadata = {
            "name": m["name"],
            "namespace": m["namespace"],
            "uid": m["uid"],
            "creationTimestamp": m["createdAt"][:19] + "Z",
            "labels": m.get("labels") or {},
            "annotations": {REQUESTED_BY: m["requestedBy"]} if m["requestedBy"] is not None else {},
        }
        status = {"observedGeneration": 1, "workflowDigest": m["workflowDigest"], **self.status}
        status["journal"] = f"{self.store.url.rstrip('/')}/{self.run}/"
        return {"apiVersion": API_VERSION, "kind": "AgentRun", "metadata": metadata, "spec": spec, "status": status}


def refusal(run: RunPath) -> str:
    """Why a run of a cluster is not driven, and told nothing, through its store."""
    return (
        f"run {run.name} is driven by the operator of a cluster, which vouches for who says what: give the command "
        f"there, kubectl agentrun VERB {run.name} -n {run.namespace}. Nothing was written"
    )


def read_all(store: Store, namespace: str | None) -> list[View | Unreadable]:
    """Every run of a namespace, or of all; in the place of one that cannot be read, why.

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


def _seen(store: Store, run: RunPath, content: _Content | Exception, compiled: dict[str, Program]) -> View | Unreadable:
    """The view of one run of many. Whatever is wrong with it, however it came there, must not hide the others."""
    try:
        if isinstance(content, Exception):
            raise content
        return View.of(store, run, content, compiled)
    except AgentrunError as error:
        return Unreadable(run.namespace, run.name, error)
    except Exception as error:  # noqa: BLE001  (show, which reads this one run, lets it out with its traceback)
        return Unreadable(run.namespace, run.name, Damaged(f"{run}: {type(error).__name__}: {error}"))


def _read(store: Store, run: RunPath) -> _Content:
    manifest = read_manifest(store, run)
    driver = _driver(store, run)
    # The states before the events: what ends a run is written after all that it says of the steps.
    states = read_states(store, run)
    log = EventLog(store, run, time.time)
    log.refresh()
    return _Content(manifest, states, log, driver)


def _driver(store: Store, run: RunPath) -> dict[str, Any] | None:
    process = holder_of(store, run)
    return process if process and not surely_dead(process) else None


def _runs(process: dict[str, Any], driver: dict[str, Any] | None) -> bool:
    """Whether the attempt in ``process`` goes on, as far as that can be told from here."""
    return surely_alive(process) or (driver is not None and not surely_dead(process))


def _begin_nothing(planned: Plan) -> None:
    """Nobody is there to begin what the plan would begin: show it as pending."""
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
