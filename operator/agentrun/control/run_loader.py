"""Makes a live run of an AgentRun: checks and pins it on the first visit, loads it from its journal later."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from agentrun.api.canonical import digest_of
from agentrun.api.decoding import UNREADABLE, decode
from agentrun.api.errors import InvalidDocument, Path, Problem, dotted
from agentrun.api.footprint import footprint
from agentrun.api.keys import StepKey
from agentrun.api.run import AgentRun, Reason, Source
from agentrun.api.texts import quoted
from agentrun.api.values import NAME_PATTERN
from agentrun.api.workflow import API_VERSION, WorkflowSpec
from agentrun.control.async_journal import Journal
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.program_size import program_footprint
from agentrun.control.run_state import RunState
from agentrun.control.thinking import Thinking
from agentrun.control.views import RunRef, RunView
from agentrun.documents.document import from_object
from agentrun.expressions.bounded_cache import Kept
from agentrun.journal.fork import ForkRefused
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.attempt_tracker import AttemptTracker
from agentrun.plan.planner import plan_slice
from agentrun.plan.snapshot import Plan, Snapshot
from agentrun.plan.work_budget import GLANCE, Work
from agentrun.records.manifest import RunManifest
from agentrun.workflow.lint import checked_program
from agentrun.workflow.pinning import NAME_MAX, Compiler, pin
from agentrun.workflow.program import Program, compile_program

T = TypeVar("T")

PROGRAMS = 64 * 1024 * 1024
"""Bytes that the cache of compiled workflows may take."""

OBJECT_MAX = 1_400_000
"""The largest AgentRun, in bytes of JSON, that is pinned. etcd takes 1.5 MiB by default, and the object needs room for
its status.
"""

CHECKED_AT_ONCE = 64 * 1024
"""Documents up to this many bytes in memory are checked on the event loop, within a few milliseconds. Larger ones are
checked in a thread.
"""

COMPILED_AT_ONCE = 2 * 1024
"""Workflows up to this many bytes of JSON are compiled on the event loop: in some 5 ms, at most 60."""

LOOK_AGAIN, LOOK_AGAIN_LARGE = 30.0, 600.0
"""Seconds until the next look for a missing object, in case no event reports its arrival. The second is for large runs:
each look reads the run again.
"""


class NotReady(Exception):
    """The run cannot begin. ``reason`` and ``message`` go into its status; ``again``: seconds until the next look."""

    def __init__(self, reason: Reason, message: str, again: float | None = None) -> None:
        self.reason, self.message, self.again = reason, message, again
        super().__init__(message)


class _Large(Exception):
    """The computation takes too long for the event loop."""


def path_of(run: RunView) -> RunPath:
    """The path of a run's journal. A uid has no hyphens there."""
    return RunPath(run.ref.namespace, run.ref.name, run.uid.replace("-", ""))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A workflow as it is pinned, and the program that it compiles to. ``bytes``: the size of both in memory. ``new``:
    whether it has passed the checks for new workflows. A workflow from a journal has not.
    """

    workflow: dict[str, Any]
    program: Program
    bytes: int
    new: bool

    @classmethod
    def of(cls, workflow: dict[str, Any], program: Program, *, new: bool) -> Compiled:
        """A compiled workflow, with its size computed."""
        return cls(workflow, program, program_footprint(workflow), new)


@dataclass(slots=True)
class RunLoader:
    """Makes runs live. Runs of one workflow share its program, which is most of a run's memory."""

    cluster: Cluster
    journal: Journal
    cache: Cache
    thinking: Thinking
    _compiled: Kept[str, Compiled] = field(default_factory=lambda: Kept(PROGRAMS))
    """The most recently used compiled workflows, by digest. Losing them costs only time."""

    async def open(self, run: RunView) -> RunState:
        """The live run of ``run``, which is pinned now if it was not before.

        Raises:
            NotReady: the run is not valid, or an object that it refers to does not exist.
            Damaged, StoreError: its journal cannot be read or written.
            Unavailable: the API server does not answer.
        """
        path = path_of(run)
        manifest = await self.journal.read_manifest(path) if run.begun else None
        fresh = False
        if manifest is None:
            try:
                proposed = await self._manifest(run)
            except NotReady:
                manifest = await self.journal.read_manifest(path)
                if manifest is None:
                    raise
                # Else a leader pinned the run and died before it wrote the status; a referred object is gone since.
            else:
                manifest = await self.journal.pin(path, proposed)
                fresh = manifest is proposed and not manifest.get("source")
        found = await self._program(run.ref.namespace, manifest["workflow"], manifest["workflowDigest"])
        pinned = PinnedRun(path, {**manifest, "workflow": found.workflow}, found.program)
        log = self.journal.events(path, pinned.manifest)
        if fresh:  # this call has just begun the journal, so nothing else can be in it
            return RunState(run.uid, pinned, log, AttemptTracker(), found.bytes, new=True)
        await self.journal.refresh(log)
        now = self.journal.clock()
        tracker = AttemptTracker(await self.journal.facts(path))
        tracker.as_of(now)
        return RunState(run.uid, pinned, log, tracker, found.bytes)

    async def _program(self, namespace: str, workflow: dict[str, Any], digest: str) -> Compiled:
        if (known := self._compiled.get(digest)) is not None:
            return known

        def compute() -> Compiled:
            program = compile_program(WorkflowSpec.model_validate(workflow), pinned=True)
            return Compiled.of(workflow, program, new=False)

        if len(json.dumps(workflow)) <= COMPILED_AT_ONCE:
            found = compute()
        else:
            found, _ = await self.thinking.run(namespace, compute)
        self._compiled.keep(digest, found, found.bytes)
        return found

    async def _thought(self, namespace: str, size: int, compute: Callable[[Compiler], T]) -> T:
        """The result of ``compute``, whose input has ``size`` bytes. It runs on the event loop if that takes a few
        milliseconds, else in the thread of ``thinking``.
        """
        if size <= CHECKED_AT_ONCE:
            try:
                return compute(partial(self._compile, at_once=True))
            except _Large:
                pass
        found, _ = await self.thinking.run(namespace, partial(compute, self._compile))
        return found

    def _compile(self, spec: WorkflowSpec, path: Path, *, at_once: bool = False) -> Program:
        """As ``checked_program``, but a workflow that was checked before is not checked again.

        Raises:
            InvalidDocument: the workflow is not valid.
            _Large: the workflow must be compiled, and is too large for that on the event loop (``at_once``).
        """
        workflow = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        digest = digest_of(workflow)
        found = self._compiled.get(digest)
        if found is None or not found.new:
            if at_once and len(json.dumps(workflow)) > COMPILED_AT_ONCE:
                raise _Large
            found = Compiled.of(workflow, checked_program(spec, path), new=True)
            self._compiled.keep(digest, found, found.bytes)
        return found.program

    async def _manifest(self, run: RunView) -> RunManifest:
        """The manifest to pin (``run.json``). Raises NotReady."""
        labels, spec = await self._written(run)
        objects: list[Mapping[str, Any]] = [_object("AgentRun", run.ref, spec, labels)]
        if name := _referred(spec):
            objects.append(await self._workflow(run, name))

        def compute(compiled: Compiler) -> tuple[RunManifest, Source | None]:
            documents = [from_object(obj) for obj in objects]
            assert isinstance(documents[0].model, AgentRun)
            manifest = pin(
                documents,
                {},
                name=None,
                namespace=run.ref.namespace,
                now=self.journal.clock(),
                new_id=lambda: run.uid.replace("-", ""),
                requested_by=run.requested_by,
                cluster=True,
                compiled=compiled,
            )
            return manifest, documents[0].model.spec.source

        try:
            size = sum(footprint(obj, CHECKED_AT_ONCE + 1) for obj in objects)
            manifest, source = await self._thought(run.ref.namespace, size, compute)
        except InvalidDocument as error:
            raise NotReady(Reason.INVALID_SPEC, said(error)) from error
        if source is not None:
            await self._fork(run, manifest, source.run, StepKey.parse(source.step), source.seq)
        return manifest

    async def _written(self, run: RunView) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Labels and spec of the run. Raises NotReady if they cannot be read whole or are too large; Conflict."""
        if not run.problem and run.written is not None:
            found = decode(run.written)
            return found["labels"], found["spec"]
        problem = run.problem
        if not problem:
            written = await self.cluster.get_written(run)
            problem = written.problem
            if not problem and written.size <= OBJECT_MAX:
                return written.labels, written.spec
        if not problem:
            problem = (
                f"the object has {written.size:,} bytes, more than {OBJECT_MAX:,}: this leaves no room for its status"
                " in the API server; keep data out of the spec"
            )
        raise NotReady(Reason.INVALID_SPEC, f"{problem}. {_ANOTHER}")

    async def _workflow(self, run: RunView, name: str) -> Mapping[str, Any]:
        namespace = run.ref.namespace
        found = await self.cluster.get_workflow(namespace, name)
        if found is None:
            message = f"there is no AgentWorkflow {quoted(name)} in namespace {namespace}: apply it, and the run begins"
            raise NotReady(Reason.WORKFLOW_NOT_FOUND, message, _look_again(run))
        if problem := found.get(UNREADABLE):
            unreadable = InvalidDocument([Problem((), problem)], f"AgentWorkflow {name}")
            raise NotReady(Reason.INVALID_SPEC, said(unreadable))
        return found

    async def _fork(self, run: RunView, manifest: RunManifest, name: str, at: StepKey, seq: int | None) -> None:
        source = self.cache.run(RunRef(run.ref.namespace, name))
        if source is None or await self.journal.read_manifest(path_of(source)) is None:
            where = f"in namespace {run.ref.namespace}"
            message = f"there is no run {quoted(name)} {where} to fork from: its AgentRun must exist"
            raise NotReady(Reason.SOURCE_NOT_FOUND, message, _look_again(run))
        loop = asyncio.get_running_loop()

        def planned(snapshot: Snapshot) -> Plan:
            # This runs in a thread of the journal. A plan that takes longer than a glance waits for its turn among the
            # long computations.
            work = Work()
            if found := plan_slice(snapshot, work, GLANCE, strict=True):
                return found
            turn = self.thinking.plan(run.ref.namespace, snapshot, work)
            return asyncio.run_coroutine_threadsafe(turn, loop).result()

        try:
            await self.journal.fork(path_of(source), manifest, at, seq, planned)
        except ForkRefused as error:
            raise NotReady(Reason.INVALID_SPEC, f"spec.source: {error}") from error


def _look_again(run: RunView) -> float:
    return LOOK_AGAIN if run.written is not None else LOOK_AGAIN_LARGE


def _referred(spec: Mapping[str, Any]) -> str:
    """The name of the AgentWorkflow that ``spec`` refers to; "" if there is none, or none that can be a name."""
    reference = spec.get("workflowRef")
    name = reference.get("name") if isinstance(reference, dict) else None
    return name if isinstance(name, str) and len(name) <= NAME_MAX and re.fullmatch(NAME_PATTERN, name) else ""


def said(error: InvalidDocument) -> str:
    """One text for a condition: the problems as ``validate`` words them, and what the user can do."""
    lines = [": ".join(part for part in (dotted(p.path), p.message) if part) for p in error.problems[:10]]
    more = f" (and {len(error.problems) - 10} more)" if len(error.problems) > 10 else ""
    where = f"{error.source}: " if error.source.startswith("AgentWorkflow") else ""
    return f"{where}{'; '.join(lines)}{more}. {_CORRECTED if where else _ANOTHER}"


_ANOTHER = "The spec of a run cannot be changed: delete the run and create another"
_CORRECTED = "Correct the AgentWorkflow, and the run begins automatically"


def _object(kind: str, ref: RunRef, spec: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": ref.name, "namespace": ref.namespace, "labels": dict(labels)}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}
