"""Reads the logs of a run's processes from the parts in the store, and follows them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.cli.failures import warn
from agentrun.cli.place import Place
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.journal.runs import read_manifest
from agentrun.local.lease import HolderWatch
from agentrun.query.logs import LogLine, new_lines
from agentrun.query.run_view import parse_step
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import Store

POLL = 0.5
"""Seconds between two reads of the store."""


def lines(place: Place, store: Store, run: RunPath, step: str | None, *, follow: bool) -> Iterator[LogLine]:
    """The lines in the order of time. With ``follow``, wait for new lines until the run has ended."""
    only = _key(step, store, run)
    log = EventLog(store, run, time.time)
    seen: set[str] = set()
    watch = HolderWatch(store, run)
    told = False
    while True:
        log.refresh()
        ended = any(record.kind == EventKind.ENDED for record in log.records)
        # Read the logs after the check for the end, so that everything logged by then is printed before this stops.
        yield from sorted(new_lines(store, run, only, seen), key=lambda found: found[0])
        if ended or not follow:
            return
        life = watch.look()
        if not told and life == "dead":
            warn(f"no driver is running for {run.name}; waiting for {place.command('resume', run.name)}")
        told = life == "dead"
        time.sleep(POLL)


def _key(step: str | None, store: Store, run: RunPath) -> StepKey | None:
    """Parse the step that a person names. Reads the manifest only, so that logs of a damaged run can be read.

    Raises:
        Refused: the run has no such step.
    """
    if not step:
        return None
    key = parse_step(step)
    workflow = read_manifest(store, run)["workflow"]
    names = [found["name"] for found in (*workflow["steps"], *workflow.get("finally", ()))]
    if key.name not in names:
        raise Refused(f"{run.name} has no step {key.name}; it has {printable(', '.join(names), 300)}")
    return key
