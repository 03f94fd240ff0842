"""Prints errors for a person, and maps each error to an exit code."""

from __future__ import annotations

import click

from agentrun.api.errors import AgentrunError, InvalidDocument
from agentrun.api.printable import printable


class OutOfReach(AgentrunError):
    """The operator of a cluster does not answer, or this machine cannot start a process."""


def warn(text: str) -> None:
    """Print a warning to standard error: something is perhaps not meant, or may go wrong."""
    click.echo(f"agentrun: {printable(text)}", err=True)


def explain(error: Exception) -> int | None:
    """Print ``error`` to standard error, and return its exit code.

    Returns None, and prints nothing, if the error is a defect whose traceback is needed.
    """
    # lazy: only a failure needs them
    from agentrun.journal.records import Damaged  # noqa: PLC0415
    from agentrun.kube.errors import Unavailable  # noqa: PLC0415
    from agentrun.store.protocol import StoreError  # noqa: PLC0415

    match error:
        case InvalidDocument():
            for line in error.describe():
                click.echo(printable(line), err=True)
            return 2
        case StoreError() | OutOfReach() | Unavailable():
            code = 4
        case Damaged():
            code = 1
        case AgentrunError():
            code = 2
        case _:
            return None
    click.echo(f"agentrun: {printable(error, lines=True)}", err=True)
    return code
