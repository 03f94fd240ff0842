"""``agentrun audit verify`` and ``agentrun audit export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from agentrun.cli.failures import Refused
from agentrun.cli.options import NAME, AnyPlace, Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable
from agentrun.journal.audit import Objects, Verdict, export, read_export, verify
from agentrun.journal.layout import RunPath
from agentrun.store.protocol import Store


@click.group("audit")
def audit_command() -> None:
    """Verify or export the journal of a run."""


@verb("verify")
@click.argument("run")
def verify_command(place: Place, run: str) -> int:
    """Check that the journal of RUN is what was written. RUN may be a file that audit export wrote, or - .

    Names every object that was changed, dropped, inserted or cut off, and then exits with 1.
    """
    if NAME.fullmatch(run):
        store = place.open()
        return say_verdict(place, place.find(store, run), store)
    return say_verdict(place, *read_file(run))


def say_verdict(place: AnyPlace, path: RunPath, objects: Objects) -> int:
    """Verify a journal and say what was found; the exit code."""
    verdict = verify(objects, path)
    if place.output:
        found = [{"key": finding.key, "message": finding.message} for finding in verdict.findings]
        emit(
            place,
            {
                "run": str(path),
                "records": verdict.records,
                "blobs": verdict.blobs,
                "ended": verdict.ended,
                "findings": found,
            },
        )
    for line in _said(path, verdict):
        tell(place, line)
    return 1 if verdict.findings else 0


def read_file(run: str) -> tuple[RunPath, Objects]:
    """What ``audit export`` wrote to a file, or to standard input for ``-``. Raises Refused."""
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
def export_command(place: Place, run: str) -> int:
    """Write the journal of RUN to standard output, a JSON object in each line: all that audit verify needs elsewhere.

    Decisions are in it with who made them, as which groups, and whether anything vouched for that.
    """
    store = place.open()
    return write_export(store, place.find(store, run))


def write_export(store: Store, path: RunPath) -> int:
    """Write a journal to standard output."""
    for line in export(store, path):
        click.echo(json.dumps(line, separators=(",", ":")))
    return 0


audit_command.add_command(verify_command)
audit_command.add_command(export_command)
