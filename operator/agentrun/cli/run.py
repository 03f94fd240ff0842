"""``agentrun run`` and ``agentrun resume``: make a run, drive it, follow it, say how it ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from agentrun.api.command import Resume
from agentrun.api.document import Document, load
from agentrun.api.facts import StepKey
from agentrun.api.run import AgentRun, AgentWorkflow, StepState, cluster_only
from agentrun.api.workflow import WorkflowSpec
from agentrun.cli.driving import drive, drive_detached, report
from agentrun.cli.failures import Refused, warn
from agentrun.cli.inputs import read_inputs
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable
from agentrun.cli.reach import check_connections, unreachable
from agentrun.cli.secrets import check_secrets, doubtful_keys, models, tools
from agentrun.cli.view import View
from agentrun.journal.fork import plan_fork, write_fork
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog
from agentrun.journal.run import create_run
from agentrun.local.lease import HolderWatch
from agentrun.local.user import user
from agentrun.plan.commands import Author, Cancel, NewRun, Suspend, Unsuspend, event_for
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import Store
from agentrun.workflow.pinning import pin, workflow_of
from agentrun.workflow.program import Program, compile_program

F = TypeVar("F", bound=Callable[..., Any])


def drive_options(command: F) -> F:
    """The options of every verb that drives a run."""
    secrets = click.option(
        "--secrets",
        metavar="DIR",
        envvar="AGENTRUN_SECRETS",
        type=click.Path(exists=True, file_okay=False),
        help="Secrets as Kubernetes mounts them: DIR/NAME/KEY.",
    )
    return secrets(click.option("--detach", is_flag=True, help="Drive it in the background and return.")(command))


@verb("run")
@click.argument("file")
@click.option("-i", "--input", "pairs", metavar="KEY=VALUE", multiple=True, help="An input; repeatable.")
@click.option("--inputs", "inputs_file", metavar="FILE", help="Inputs from a YAML or JSON file (- for standard input).")
@click.option("--name", help="The run's name; else the file's, or one that is made up.")
@drive_options
def run_command(
    place: Place,
    file: str,
    pairs: tuple[str, ...],
    inputs_file: str | None,
    name: str | None,
    detach: bool,
    secrets: str | None,
) -> int:
    """Run FILE (- for standard input) and follow it until it ends or waits for a person.

    FILE holds one AgentRun, with its workflow inside or beside it, or one AgentWorkflow alone. On a cluster this makes
    the AgentRun, after applying the AgentWorkflow beside it, and the run may refer to one that is there already.
    """
    if file == inputs_file == "-":
        raise click.UsageError("standard input can be the file or the inputs, not both")
    documents = load("-" if file == "-" else Path(file))
    if ignored := cluster_only(*(document.model.spec for document in documents)):
        click.echo(f"agentrun: only a cluster obeys {', '.join(ignored)}; here it means nothing", err=True)
    schema = inputs_schema(documents)
    inputs = read_inputs(schema, pairs, inputs_file)
    manifest = pin(
        documents,
        inputs,
        name=name,
        namespace=place.given_namespace,
        now=time.time(),
        new_id=lambda: uuid.uuid4().hex,
        requested_by=user(),
        warn=warn,
    )
    return start(place, manifest, secrets, detach=detach)


def inputs_schema(documents: Sequence[Document]) -> dict[str, Any]:
    """The schema of the inputs of what will run; an empty one where that cannot be told: ``pin`` says why."""
    runs = [d for d in documents if isinstance(d.model, AgentRun)] or [
        d for d in documents if isinstance(d.model, AgentWorkflow)
    ]
    return workflow_of(documents, runs[0]).inputs if len(runs) == 1 else {}


def start(place: Place, manifest: RunManifest, secrets: str | None, *, detach: bool) -> int:
    """Check all that can be checked, make the run, drive it; the exit code. Nothing is written before all is checked.

    Raises:
        Refused, RunExists: it cannot be run as it is.
        StoreError: the store is out of reach or unfit.
    """
    store = place.open()
    place = Place(place.url, manifest["namespace"], place.output)
    source = manifest.get("source")
    if source:
        at = StepKey.parse(source["step"])
        origin = place.find(store, source["run"])
        return start_fork(place, store, origin, manifest, at, source.get("seq"), secrets, detach=detach)
    _check_outside(compile_program(WorkflowSpec.model_validate(manifest["workflow"]), pinned=True), secrets)
    store.probe()
    return _begin(place, store, create_run(store, manifest), manifest, secrets, detach=detach)


def start_fork(
    place: Place,
    store: Store,
    source: RunPath,
    manifest: RunManifest,
    at: StepKey,
    seq: int | None,
    secrets: str | None,
    *,
    detach: bool,
) -> int:
    """The same for a run that goes on from a point of ``source``.

    Raises:
        ForkRefused: there is no going on from that point.
    """
    fork = plan_fork(store, source, manifest, at, seq, now=time.time())
    _check_outside(compile_program(WorkflowSpec.model_validate(manifest["workflow"]), pinned=True), secrets, fork.done)
    store.probe()
    run = write_fork(store, fork, time.time)
    for line in fork.again:
        click.echo(printable(f"agentrun: {line}"), err=True)
    return _begin(place, store, run, manifest, secrets, detach=detach)


def _check_outside(program: Program, secrets: str | None, done: frozenset[str] = frozenset()) -> None:
    """Look whether what the steps that are not ``done`` need of the outside is there. Raises Refused."""
    check_secrets(program, secrets, done)
    asked = models(program, done), tools(program, done)
    check_connections(*asked)
    for line in [*doubtful_keys(program, secrets, done), *unreachable(*asked)]:
        warn(f"warning: {line}; the run begins all the same")


def _begin(
    place: Place, store: Store, run: RunPath, manifest: RunManifest, secrets: str | None, *, detach: bool
) -> int:
    tell(place, run.name)
    verbs: dict[str, Suspend | Cancel] = {"suspend": Suspend(), "cancel": Cancel()}
    for field, verb_ in verbs.items():
        if manifest.get(field):
            event = event_for(verb_, NewRun(), Author(manifest["requestedBy"]))
            EventLog(store, run, time.time).append(event.kind, event.body)
    return _go(place, store, run, secrets, detach=detach)


def _go(place: Place, store: Store, run: RunPath, secrets: str | None, *, detach: bool) -> int:
    if not detach:
        return drive(place, store, run, secrets)
    drive_detached(place, store, run, secrets)
    if place.output:
        emit(place, View.read(store, run).to_json())
    return 0


@verb("resume")
@click.argument("run")
@drive_options
def resume_command(place: Place, run: str, detach: bool, secrets: str | None) -> int:
    """Go on with RUN: drive it where its driver is gone, let it go where it is suspended or parked.

    What was committed is not done again.
    """
    store = place.open()
    view = View.find_own(place, store, run)
    if view.ended is not None:
        return report(place, store, view.run)
    watch = HolderWatch(store, view.run)
    alive = watch.decide(lambda text: click.echo(f"agentrun: {printable(text)}", err=True))
    if not alive and view.driver is not None:
        watch.clear()
        view = View.read(store, view.run)
    done = frozenset(name for name, entry in view.entries.items() if StepState(entry["state"]).final)
    if not alive:
        _check_outside(view.program, secrets, done)
    said = [*_unsuspend(view), *_unpark(view)]
    for line in said:
        tell(place, line)
    if not alive:
        return _go(place, store, view.run, secrets, detach=detach)
    process = watch.process or {}
    who = f"process {process.get('pid')} on {printable(process.get('host'), 60)}"
    if not said:
        raise Refused(f"run {run} is driven by {who}: follow it with {place.command('logs', run, '-f')}")
    tell(place, f"{who} goes on with it")
    if place.output:
        emit(place, View.read(store, view.run).to_json())
    return 0


def _unsuspend(view: View) -> list[str]:
    written = view.record(event_for(Unsuspend(), view, Author(user())))
    return [f"{view.name} is no longer suspended"] if written else []


def _unpark(view: View) -> list[str]:
    """Let the steps go on whose attempts were lost too often."""
    labels = [key.label for key, _ in view.lost()]
    events = ((label, event_for(Resume(step=label), view, Author(user()))) for label in labels)
    return [f"{label} is tried again" for label, event in events if view.record(event)]


@verb("drive")
@click.argument("run")
@drive_options
def drive_command(place: Place, run: str, detach: bool, secrets: str | None) -> int:
    """Drive RUN as it stands: what ``--detach`` starts. People use ``resume``."""
    store = place.open()
    return _go(place, store, place.find(store, run), secrets, detach=detach)
