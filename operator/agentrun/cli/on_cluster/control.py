"""``kubectl agentrun suspend`` and ``cancel``."""

from __future__ import annotations

from agentrun.api.run import CHANGED_BY
from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.refusals import DENIED
from agentrun.cli.on_cluster.runs import Run, find
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable


def suspend_verb(place: ClusterPlace, run: str) -> int:
    """Let the run start nothing new until it is resumed."""
    return _set(place, run, "suspend", f"{run} is suspended; go on with: {printable(place.command('resume', run))}")


def cancel_verb(place: ClusterPlace, run: str) -> int:
    """End the run."""
    return _set(place, run, "cancel", f"{run} is being cancelled")


def change(client: Client, run: Run, field: str, *, value: bool) -> Run:
    """Set a field of the run's spec in the person's own name; the run after that.

    Only of the run that was looked at: another one may have its name by now. Where somebody else was first, it is left
    as it is, in their name.
    """
    metadata = {"uid": run.uid, "annotations": {CHANGED_BY[field]: client.user()}}
    try:
        return Run(client.patch(run.path, {"metadata": metadata, "spec": {field: value}}))
    except DENIED:
        now = Run(client.get(run.path))
        if now.uid != run.uid or bool(now.spec.get(field)) is not value:
            raise
        return now


def _set(place: ClusterPlace, run: str, field: str, done: str) -> int:
    client = place.open()
    found = find(place, client, run)
    found.still_going()
    before = bool(found.spec.get(field))
    if field == "suspend" and found.spec.get("cancel"):
        tell(place, f"{run} is being cancelled; that is not held up")
    else:
        if not before:
            found = change(client, found, field, value=True)
        tell(place, f"{done} (it was before)" if before else done)
    if place.output:
        emit(place, found.obj)
    return 0
