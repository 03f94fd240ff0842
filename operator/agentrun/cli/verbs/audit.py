"""``agentrun audit verify`` and ``agentrun audit export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.cli.options import verb
from agentrun.cli.place import NAME
from agentrun.cli.terminal.output import emit, tell
from agentrun.journal.audit import Objects, Verdict, export, read_export, verify
from agentrun.journal.paths import RunPath

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@click.group("audit")
def audit_command() -> None:
    """Verify or export the journal of a run."""


@verb("verify")
@click.argument("run")
def verify_command(backend: Backend[R], run: str) -> int:
    """Check that the journal of RUN was not changed after it was written.

    RUN may also be a file that audit export wrote, or - for standard input. Prints every object that was changed,
    dropped, inserted or cut off; exits with 1 if there is one.
    """
    objects: Objects
    if NAME.fullmatch(run):
        objects, path = backend.journal(run)
    else:
        path, objects = _read_file(run)
    verdict = verify(objects, path)
    if backend.place.output:
        found = [{"key": finding.key, "message": finding.message} for finding in verdict.findings]
        said = {"run": str(path), "records": verdict.records, "blobs": verdict.blobs}
        emit(backend.place, said | {"ended": verdict.ended, "findings": found})
    for line in _said(path, verdict):
        tell(backend.place, line)
    return 1 if verdict.findings else 0


def _read_file(run: str) -> tuple[RunPath, Objects]:
    """Read the output of ``audit export`` from a file, or from standard input for ``-``. Raises Refused."""
    if run == "-":
        return read_export(sys.stdin.buffer)
    try:
        with Path(run).open("rb") as file:
            return read_export(file)
    except OSError as error:
        raise Refused(f"{run} is neither the name of a run nor a file that can be read: {error.strerror}") from error


def _said(run: RunPath, verdict: Verdict) -> list[str]:
    lines = [printable(f"{finding.key}: {finding.message}") for finding in verdict.findings]
    counts = f"{verdict.records} records, {verdict.blobs} blobs"
    if lines:
        lines.append(f"{printable(run.name)}: {counts}: {len(lines)} damaged")
        return lines
    tail = "" if verdict.ended else "; the run has not ended, so records cut off at the end would not show"
    return [f"{printable(run.name)}: {counts} verified{tail}"]


@verb("export")
@click.argument("run")
def export_command(backend: Backend[R], run: str) -> int:
    """Write the journal of RUN to standard output, one JSON object per line.

    The output is all that audit verify needs on another machine. Each decision in it says who made it, with which
    groups, and whether that was verified.
    """
    for line in export(*backend.journal(run)):
        click.echo(json.dumps(line, separators=(",", ":")))
    return 0


audit_command.add_command(verify_command)
audit_command.add_command(export_command)
