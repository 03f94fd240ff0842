"""``agentrun suspend`` and ``agentrun cancel``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from agentrun.cli.next_steps import resume_command, tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable
from agentrun.cli.view import View
from agentrun.journal.records import Record
from agentrun.journal.run import as_events
from agentrun.local.user import user
from agentrun.plan.events import EventIndex
from agentrun.records.run_events import EventKind


@verb("suspend")
@click.argument("run")
def suspend_command(place: Place, run: str) -> int:
    """Let RUN start nothing new until it is resumed. What runs finishes its call, commits and leaves."""
    return _append(place, run, EventKind.SUSPENDED, f"{run} is suspended")


@verb("cancel")
@click.argument("run")
def cancel_command(place: Place, run: str) -> int:
    """End RUN: what runs is asked to leave, then compensations and finally run, then it is Cancelled."""
    return _append(place, run, EventKind.CANCELLED, f"{run} is being cancelled")


def _append(place: Place, run: str, kind: EventKind, done: str) -> int:
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()

    def there(records: Sequence[Record]) -> bool:
        index = EventIndex(as_events(records))
        said = index.cancelled is not None or (kind is EventKind.SUSPENDED and index.suspended)
        return index.ended is not None or said

    if kind is EventKind.SUSPENDED:
        done += f"; go on with: {printable(resume_command(place, view))}"
    body: dict[str, object] = {"by": user(), "verified": False}
    if kind is EventKind.CANCELLED and view.finally_begun:
        body["late"] = True  # else the instants say it, of what begins while this is written
    written = view.log.append(kind, body, unless=there)
    after = View.read(store, view.run)
    after.still_going()
    if after.index.cancelled is not None and kind is EventKind.SUSPENDED:
        tell(place, f"{run} is being cancelled; that is not held up")
    else:
        tell(place, done if written else f"{done} (it was before)")
    if kind is EventKind.CANCELLED:
        tell_who_goes_on(place, after, otherwise="nobody drives it; finish it with")
    if place.output:
        emit(place, after.to_json())
    return 0
