"""``agentrun suspend`` and ``agentrun cancel``."""

from __future__ import annotations

import click

from agentrun.cli.next_steps import resume_command, tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable
from agentrun.cli.view import View
from agentrun.local.user import user
from agentrun.plan.commands import Author, Cancel, Suspend, event_for


@verb("suspend")
@click.argument("run")
def suspend_command(place: Place, run: str) -> int:
    """Let RUN start nothing new until it is resumed. What runs finishes its call, commits and leaves."""
    return _append(place, run, Suspend(), f"{run} is suspended")


@verb("cancel")
@click.argument("run")
def cancel_command(place: Place, run: str) -> int:
    """End RUN: what runs is asked to leave, then compensations and finally run, then it is Cancelled."""
    return _append(place, run, Cancel(), f"{run} is being cancelled")


def _append(place: Place, run: str, verb: Suspend | Cancel, done: str) -> int:
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()
    if isinstance(verb, Suspend):
        done += f"; go on with: {printable(resume_command(place, view))}"
    # A run that is being cancelled is not held up, so it is not suspended. (On a cluster it is: its spec says so.)
    event = event_for(verb, view, Author(user()))
    written = view.record(event, unless=lambda index: index.cancelled is not None)
    after = View.read(store, view.run)
    after.still_going()
    if after.index.cancelled is not None and isinstance(verb, Suspend):
        tell(place, f"{run} is being cancelled; that is not held up")
    else:
        tell(place, done if written else f"{done} (it was before)")
    if isinstance(verb, Cancel):
        tell_who_goes_on(place, after, otherwise="nobody drives it; finish it with")
    if place.output:
        emit(place, after.to_json())
    return 0
