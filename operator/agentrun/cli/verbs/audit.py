"""``agentrun audit verify`` and ``agentrun audit export``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

import click

from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.cli.options import verb
from agentrun.cli.place import NAME
from agentrun.cli.terminal.output import emit, tell
from agentrun.journal.audit import Objects, Verdict, verify
from agentrun.journal.export import export, read_export
from agentrun.journal.paths import RunPath
from agentrun.journal.signatures import public_keys

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@click.group("audit")
def audit_command() -> None:
    """Verify or export the journal of a run."""


@verb("verify")
@click.argument("run")
@click.option(
    "--public-key", "files", metavar="FILE", multiple=True, help="The end of the run must be signed by a key of these."
)
def verify_command(backend: Backend[R], run: str, files: tuple[str, ...]) -> int:
    """Check that the journal of RUN was not changed after it was written.

    RUN may also be a file that audit export wrote, or - for standard input. Prints every object that was changed,
    dropped, inserted or cut off; exits with 1 if there is one. With --public-key, also a journal that was written anew
    as a whole is found.
    """
    keys = public_keys(map(Path, files)) if files else None
    with ExitStack() as closing:
        objects: Objects
        if NAME.fullmatch(run):
            objects, path = backend.journal(run)
        else:
            path, objects = read_export(closing.enter_context(_opened(run)))
        verdict = verify(objects, path, keys)
    if backend.place.output:
        found = [{"key": finding.key, "message": finding.message} for finding in verdict.findings]
        said = {"run": str(path), "records": verdict.records, "blobs": verdict.blobs, "signedBy": verdict.signed_by}
        emit(backend.place, said | {"ended": verdict.ended, "findings": found})
    for line in _said(path, verdict, checked=keys is not None):
        tell(backend.place, line)
    return 1 if verdict.findings else 0


@contextmanager
def _opened(run: str) -> Iterator[BinaryIO]:
    """The output of ``audit export`` in a file, or from standard input for ``-``. Raises Refused."""
    if run == "-":
        with TemporaryFile() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
            yield file
        return
    try:
        opened = Path(run).open("rb")  # noqa: SIM115  (closed below)
        if not opened.seekable():
            opened.close()
            raise Refused(f"{run} can be read once only: give it as standard input, with - as its name")
    except OSError as error:
        raise Refused(f"{run} is neither the name of a run nor a file that can be read: {error.strerror}") from error
    with opened:
        yield opened


def _said(run: RunPath, verdict: Verdict, *, checked: bool) -> list[str]:
    lines = [printable(f"{finding.key}: {finding.message}") for finding in verdict.findings]
    counts = f"{verdict.records} records, {verdict.blobs} blobs"
    if lines:
        lines.append(f"{printable(run.name)}: {counts}: {len(lines)} damaged")
        return lines
    if not verdict.ended:
        tail = "; the run has not ended, so records cut off at the end would not show"
    elif verdict.signed_by is None:
        tail = ""
    elif checked:
        tail = f"; signed by {verdict.signed_by}"
        tail += f", except {verdict.after_end} later events" if verdict.after_end else ""
    else:
        tail = "; signed (give --public-key to have that checked)"
    return [f"{printable(run.name)}: {counts} verified{printable(tail)}"]


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
