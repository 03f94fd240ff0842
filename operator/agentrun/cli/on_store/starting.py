"""Creates runs in a store, and resumes them. Every check that is possible comes before the first write."""

from __future__ import annotations

import os
import time

from agentrun.api.command import Resume
from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.run import StepState
from agentrun.api.workflow import WorkflowSpec
from agentrun.cli.failures import warn
from agentrun.cli.on_store.backend import StoreBackend
from agentrun.cli.on_store.driving import drive, drive_detached
from agentrun.cli.on_store.reach import check_connections, unreachable
from agentrun.cli.on_store.secrets import check_secrets, doubtful_keys, models, tools
from agentrun.cli.terminal.output import emit, tell
from agentrun.journal.fork import plan_fork, write_fork
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.journal.runs import create_run
from agentrun.journal.signatures import signing_key
from agentrun.local.lease import HolderWatch
from agentrun.local.user import user
from agentrun.plan.commands import Author, Cancel, NewRun, Suspend, Unsuspend, event_for
from agentrun.query.stored_run import StoredRun, process_name
from agentrun.records.manifest import RunManifest
from agentrun.workflow.program import Program, compile_program


def start(backend: StoreBackend, manifest: RunManifest, *, detach: bool) -> int:
    """Create the run and drive it. Returns the exit code.

    Raises:
        Refused, BadKey, RunExists: the run cannot be created from this manifest.
        StoreError: the store is out of reach or unfit.
    """
    store = backend.store  # an address that is none is refused before anything is looked at
    source = manifest.get("source")
    if source:
        at = StepKey.parse(source["step"])
        return start_fork(backend, backend.path(source["run"]), manifest, at, source.get("seq"), detach=detach)
    _check_outside(_program(manifest), backend.secrets)
    store.probe()
    return _begin(backend, create_run(store, manifest), manifest, detach=detach)


def start_fork(
    backend: StoreBackend, source: RunPath, manifest: RunManifest, at: StepKey, seq: int | None, *, detach: bool
) -> int:
    """The same for a run that goes on from a point of ``source``.

    Raises:
        ForkRefused: a run cannot be forked at that point.
    """
    fork = plan_fork(backend.store, source, manifest, at, seq, now=time.time())
    _check_outside(_program(manifest), backend.secrets, fork.done)
    backend.store.probe()
    run = write_fork(backend.store, fork, time.time)
    for line in fork.again:
        warn(line)
    return _begin(backend, run, manifest, detach=detach)


def resume(backend: StoreBackend, run: StoredRun, *, detach: bool) -> int:
    """Resume what is suspended or parked, and drive the run if its driver is gone. Returns the exit code."""
    watch = HolderWatch(run.store, run.run)
    alive = watch.decide(warn)
    if not alive and run.driver is not None:
        watch.clear()
        run = backend.again(run)
    if not alive:
        done = frozenset(name for name, entry in run.entries.items() if StepState(entry["state"]).final)
        _check_outside(run.program, backend.secrets, done)
    said = _free(run)
    for line in said:
        tell(backend.place, line)
    if not alive:
        return _go(backend, run.run, detach=detach)
    who = process_name(watch.process or {})
    if not said:
        follow = backend.place.command("logs", run.name, "-f")
        raise Refused(f"run {run.name} is driven by {who}: follow it with {follow}")
    tell(backend.place, f"{who} continues the run")
    if backend.place.output:
        emit(backend.place, backend.again(run).obj)
    return 0


def _free(run: StoredRun) -> list[str]:
    """Unsuspend the run, and resume the steps that were parked after lost attempts. Returns what was done, in words."""
    author = Author(user())
    said = [f"{run.name} is no longer suspended"] if run.record(event_for(Unsuspend(), run, author)) else []
    labels = [key.label for key, _ in run.lost()]
    events = ((label, event_for(Resume(step=label), run, author)) for label in labels)
    return said + [f"{label} is retried" for label, event in events if run.record(event)]


def _program(manifest: RunManifest) -> Program:
    return compile_program(WorkflowSpec.model_validate(manifest["workflow"]), pinned=True)


def _check_outside(program: Program, secrets: str | None, done: frozenset[str] = frozenset()) -> None:
    """Check the secrets and connections that the steps outside ``done`` need, and the key that signs the run's end.

    Raises Refused or BadKey, and warns of doubts.
    """
    check_secrets(program, secrets, done)
    signing_key(os.environ, warn)
    asked = models(program, done), tools(program, done)
    check_connections(*asked)
    for line in [*doubtful_keys(program, secrets, done), *unreachable(*asked)]:
        warn(f"warning: {line}; the run begins anyway")


def _begin(backend: StoreBackend, run: RunPath, manifest: RunManifest, *, detach: bool) -> int:
    tell(backend.place, run.name)
    verbs: dict[str, Suspend | Cancel] = {"suspend": Suspend(), "cancel": Cancel()}
    for field, verb in verbs.items():
        if manifest.get(field):
            event = event_for(verb, NewRun(), Author(manifest["requestedBy"]))
            EventLog(backend.store, run, time.time).append(event.kind, event.body)
    return _go(backend, run, detach=detach)


def _go(backend: StoreBackend, run: RunPath, *, detach: bool) -> int:
    if not detach:
        return drive(backend, run)
    drive_detached(backend, run)
    if backend.place.output:
        emit(backend.place, StoredRun.read(backend.store, run).obj)
    return 0
