"""``agentrun run``, ``agentrun resume`` and ``agentrun drive``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentrun.api.run import AgentRun, AgentWorkflow
from agentrun.cli.failures import warn
from agentrun.cli.inputs import read_inputs
from agentrun.cli.options import verb
from agentrun.cli.what_next import report
from agentrun.documents.document import Document, load
from agentrun.workflow.pinning import pin, workflow_of

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R

F = TypeVar("F", bound=Callable[..., Any])


def secrets_option(command: F) -> F:
    """Add the option that names the Secrets of one machine."""
    return click.option(
        "--secrets",
        metavar="DIR",
        envvar="AGENTRUN_SECRETS",
        type=click.Path(exists=True, file_okay=False),
        help="Secrets as Kubernetes mounts them: DIR/NAME/KEY.",
    )(command)


def drive_options(command: F) -> F:
    """Add the options of every verb that begins or goes on with a run."""
    detach = click.option("--detach", is_flag=True, help="Drive the run in the background and return.")
    return secrets_option(detach(command))


@verb("run")
@click.argument("file")
@click.option("-i", "--input", "pairs", metavar="KEY=VALUE", multiple=True, help="An input; repeatable.")
@click.option("--inputs", "inputs_file", metavar="FILE", help="Inputs from a YAML or JSON file (- for standard input).")
@click.option("--name", help="The run's name; by default the file's, or a generated one.")
@drive_options
def run_command(
    backend: Backend[R],
    file: str,
    pairs: tuple[str, ...],
    inputs_file: str | None,
    name: str | None,
    detach: bool,
    secrets: str | None,
) -> int:
    """Run FILE (- for standard input) and follow it until it ends or waits for a person.

    FILE contains one AgentRun, with its workflow inside or beside it, or one AgentWorkflow alone. On a cluster this
    applies the AgentWorkflow beside it and creates the AgentRun, which may also refer to an AgentWorkflow that is
    already there.
    """
    if file == inputs_file == "-":
        raise click.UsageError("standard input can be the file or the inputs, not both")
    documents, namespace = backend.complete(load("-" if file == "-" else Path(file)))
    manifest = pin(
        documents,
        read_inputs(_inputs_schema(documents), pairs, inputs_file),
        name=name,
        namespace=namespace,
        now=time.time(),
        new_id=lambda: uuid.uuid4().hex,
        requested_by=backend.requester,
        cluster=backend.place.on_cluster,
        warn=warn,
    )
    return backend.start(manifest, documents, secrets, detach=detach)


def _inputs_schema(documents: Sequence[Document]) -> dict[str, Any]:
    """The schema of the run's inputs; empty if it is unclear which document will run. Then ``pin`` raises the error."""
    runs = [d for d in documents if isinstance(d.model, AgentRun)] or [
        d for d in documents if isinstance(d.model, AgentWorkflow)
    ]
    return workflow_of(documents, runs[0]).inputs if len(runs) == 1 else {}


@verb("resume")
@click.argument("run")
@drive_options
def resume_command(backend: Backend[R], run: str, detach: bool, secrets: str | None) -> int:
    """Continue RUN: drive it if its driver is gone, and free it if it is suspended or parked.

    Committed work is not done again.
    """
    found = backend.find(run, to_tell=True)
    return report(backend, found) if found.ended else backend.resume(found, secrets, detach=detach)


@verb("drive")
@click.argument("run")
@secrets_option
def drive_command(backend: Backend[R], run: str, secrets: str | None) -> int:
    """Drive RUN as it stands: what ``--detach`` starts. People use ``resume``."""
    return backend.drive(run, secrets)
