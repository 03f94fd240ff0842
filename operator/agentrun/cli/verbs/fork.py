"""``agentrun fork``."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import click

from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.texts import quoted
from agentrun.cli.inputs import read_inputs
from agentrun.cli.options import verb
from agentrun.cli.place import NAME
from agentrun.cli.verbs.run import drive_options
from agentrun.journal.fork import forked_manifest
from agentrun.query.run_view import parse_step
from agentrun.workflow.pinning import NAME_MAX

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("fork")
@click.argument("run")
@click.option("--from", "point", metavar="STEP[@SEQ]", required=True, help="The point of RUN to fork from.")
@click.option("-i", "--input", "pairs", metavar="KEY=VALUE", multiple=True, help="Change an input; repeatable.")
@click.option("--inputs", "inputs_file", metavar="FILE", help="Change inputs from a YAML or JSON file.")
@click.option("--prompt", metavar="TEXT", help="Use another prompt for STEP; ${…} works as in a file.")
@click.option("--model", metavar="NAME", help="Use another of the workflow's models for STEP.")
@click.option("--name", help="The new run's name; by default a generated one.")
@drive_options
def fork_command(
    backend: Backend[R],
    run: str,
    point: str,
    pairs: tuple[str, ...],
    inputs_file: str | None,
    prompt: str | None,
    model: str | None,
    name: str | None,
    detach: bool,
    secrets: str | None,
) -> int:
    """Start a new run from a point of RUN, and drive it.

    STEP and every step that depends on it run again; with @SEQ, STEP continues from its record SEQ (agentrun show
    prints the numbers). The new run takes over everything else that RUN has finished. RUN itself never changes.
    """
    at, seq = _point(point)
    if name is not None and (not NAME.fullmatch(name) or len(name) > NAME_MAX):
        raise click.BadParameter(
            f"{quoted(name)} is not a name: use lower-case letters, digits and '-', at most {NAME_MAX} characters"
        )
    source = backend.source(run)
    manifest = forked_manifest(
        source.manifest,
        at,
        seq,
        inputs=read_inputs(source.manifest["workflow"].get("inputs", {}), pairs, inputs_file),
        prompt=prompt,
        model=model,
        name=name,
        now=time.time(),
        uid=uuid.uuid4().hex,
        requested_by=backend.requester or "",
    )
    return backend.fork(source, manifest, at, seq, secrets, detach=detach)


def _point(text: str) -> tuple[StepKey, int | None]:
    """Parse ``STEP`` or ``STEP@SEQ``. Raises Refused if the text is neither."""
    step, at, number = text.partition("@")
    key = parse_step(step)
    if at and not (number.isascii() and number.isdigit() and int(number) > 0):
        raise Refused(f"{quoted(text)}: write STEP@SEQ with the number of a record of that step, 1 or more")
    return key, int(number) if at else None
