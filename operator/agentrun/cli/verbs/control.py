"""``agentrun suspend`` and ``agentrun cancel``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit, tell
from agentrun.cli.what_next import spelled, tell_who_goes_on
from agentrun.plan.commands import Cancel, Suspend

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("suspend")
@click.argument("run")
def suspend_command(backend: Backend[R], run: str) -> int:
    """Let RUN start nothing new until it is resumed. What runs finishes its call, commits and leaves."""
    found = backend.find(run, to_tell=True)
    found.still_going()
    after, new = backend.give(found, Suspend())
    if after.cancelled:
        tell(backend.place, f"{run} is being cancelled; that is not held up")
    else:
        again = spelled(backend.place, backend.resume_command(found))
        tell(backend.place, f"{run} is suspended; go on with: {again}{_before(new)}")
    if backend.place.output:
        emit(backend.place, after.obj)
    return 0


@verb("cancel")
@click.argument("run")
def cancel_command(backend: Backend[R], run: str) -> int:
    """End RUN: what runs is asked to leave, then compensations and finally run, then it is Cancelled."""
    found = backend.find(run, to_tell=True)
    found.still_going()
    after, new = backend.give(found, Cancel())
    tell(backend.place, f"{run} is being cancelled{_before(new)}")
    tell_who_goes_on(backend, after, otherwise="nobody drives it; finish it with")
    if backend.place.output:
        emit(backend.place, after.obj)
    return 0


def _before(new: bool) -> str:
    return "" if new else " (it was before)"
