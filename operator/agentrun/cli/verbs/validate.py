"""``agentrun validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentrun.api.errors import InvalidDocument
from agentrun.api.printable import printable
from agentrun.api.run import AgentWorkflow
from agentrun.cli.failures import explain, warn
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit_list, tell
from agentrun.documents.document import Document, load
from agentrun.kube.errors import DENIED
from agentrun.workflow.pinning import check

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("validate")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
def validate_command(backend: Backend[R], files: tuple[str, ...]) -> int:
    """Check FILEs without running anything: their form, the graph, and the type of every expression.

    FILE may be - for standard input. Prints one line per problem as file:line: path: what is wrong. With a cluster, its
    API server checks the files too, in a dry run.
    """
    code = 0
    valid: list[Document] = []
    for name in files:
        try:
            documents = load("-" if name == "-" else Path(name))
            notes = check(documents, warn)
            for note in notes:
                tell(backend.place, printable(note))
            said = backend.check(documents)
        except (InvalidDocument, *DENIED) as error:
            code = explain(error) or code
            continue
        valid += documents
        tell(backend.place, printable(f"{name}: {said}: {', '.join(map(_described, documents))}"))
    if backend.place.output:
        emit_list(backend.place, [document.raw for document in valid])
    return code


def _described(document: Document) -> str:
    """The document in a few words: kind, name, and the number of steps."""
    meta = document.metadata
    name = meta.name or (f"{meta.generate_name}…" if meta.generate_name else "(unnamed)")
    if not isinstance(document.model, AgentWorkflow):
        return f"{document.kind} {name}"
    spec = document.model.spec
    steps = len(spec.steps) + len(spec.finally_)
    return f"{document.kind} {name} ({steps} step{'s' if steps != 1 else ''})"
