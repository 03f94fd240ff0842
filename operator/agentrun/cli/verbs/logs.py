"""``agentrun logs``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.cli.options import verb
from agentrun.cli.place import AnyPlace
from agentrun.cli.terminal.board import said

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("logs")
@click.argument("run")
@click.argument("step", required=False)
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the run has ended.")
def logs_command(backend: Backend[R], run: str, step: str | None, follow: bool) -> int:
    """Print the logs of RUN's steps, or of one STEP (NAME or NAME[INDEX]).

    Logs say what happened; agentrun show has the contents. With -o json each line is an object.
    """
    printed = False
    for at, key, line in backend.logs(run, step, follow=follow):
        _print_line(backend.place, at, key, line)
        printed = True
    if not printed and not follow:
        click.echo(f"agentrun: there are no logs of {printable(f'{run} {step}' if step else run)} yet", err=True)
    return 0


def _print_line(place: AnyPlace, at: str, key: StepKey, line: dict[str, Any] | str) -> None:
    """Print a line of a log as text for a person, or as a JSON object."""
    if place.output:
        found = line if isinstance(line, dict) else {"event": "output", "text": line}
        click.echo(json.dumps({"step": key.label, **found}))
        return
    click.echo(f"{printable(at[11:19])}  {key.label}  {said(line)}")
