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
    """Suspend RUN: it starts nothing new until it is resumed.

    Running steps finish their current call, commit and stop.
    """
    found = backend.find(run, to_tell=True)
    found.still_going()
    after, new = backend.give(found, Suspend())
    if after.cancelled:
        tell(backend.place, f"{run} is being cancelled; a cancellation cannot be suspended")
    else:
        again = spelled(backend.place, backend.resume_command(found))
        tell(backend.place, f"{run} is suspended; continue with: {again}{_before(new)}")
    if backend.place.output:
        emit(backend.place, after.obj)
    return 0


@verb("cancel")
@click.argument("run")
def cancel_command(backend: Backend[R], run: str) -> int:
    """Cancel RUN: running steps are asked to stop, compensations and finally steps run, then the run is Cancelled."""
    found = backend.find(run, to_tell=True)
    found.still_going()
    after, new = backend.give(found, Cancel())
    tell(backend.place, f"{run} is being cancelled{_before(new)}")
    tell_who_goes_on(backend, after, otherwise="no driver is running; finish the run with")
    if backend.place.output:
        emit(backend.place, after.obj)
    return 0


def _before(new: bool) -> str:
    return "" if new else " (it was already)"
