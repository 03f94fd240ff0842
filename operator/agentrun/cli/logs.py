"""``agentrun logs``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from typing import Any

import click

from agentrun.api.facts import StepKey
from agentrun.cli.failures import Refused
from agentrun.cli.options import AnyPlace, Place, verb
from agentrun.cli.printable import printable, value
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog
from agentrun.journal.run import is_step, read_manifest
from agentrun.local.lease import HolderWatch
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import Store

_PART = re.compile(r"/[0-9]+\.[0-9]+\.log$")

POLL = 0.5
"""Seconds between looks at what is new."""


@verb("logs")
@click.argument("run")
@click.argument("step", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs_command(place: Place, run: str, step: str | None, follow: bool) -> int:
    """What the processes of RUN's steps logged; of one STEP (NAME or NAME[INDEX]) or of all of them.

    Logs say what happened, not what was said: contents are in agentrun show. With -o json each line is an object.
    """
    store = place.open()
    path = place.find(store, run)
    only = _key(step, store, path)
    log = EventLog(store, path, time.time)
    seen: set[str] = set()
    watch = HolderWatch(store, path)
    told = False
    while True:
        log.refresh()
        ended = any(record.kind == EventKind.ENDED for record in log.records)
        # Read after the look for the end: what stood in the logs by then is printed before this stops.
        for at, key, line in sorted(new_lines(store, path, only, seen), key=lambda found: found[0]):
            print_line(place, at, key, line)
        if ended or not follow:
            break
        life = watch.look()
        if not told and life == "dead":
            click.echo(f"agentrun: nobody drives {path.name} now; waiting for {place.command('resume', run)}", err=True)
        told = life == "dead"
        time.sleep(POLL)
    if not seen and not follow:
        click.echo(f"agentrun: there are no logs of {printable(f'{run} {step}' if step else run)} yet", err=True)
    return 0


def _key(step: str | None, store: Store, run: RunPath) -> StepKey | None:
    if not step:
        return None
    try:
        key = StepKey.parse(step)
    except ValueError as error:
        raise Refused(str(error)) from None
    workflow = read_manifest(store, run)["workflow"]
    names = [found["name"] for found in (*workflow["steps"], *workflow.get("finally", ()))]
    if key.name not in names:
        raise Refused(f"{run.name} has no step {key.name}; it has {printable(', '.join(names), 300)}")
    return key


def new_lines(
    store: Store,
    run: RunPath,
    only: StepKey | None,
    seen: set[str],
    elsewhere: Collection[tuple[str, int]] = (),
) -> list[tuple[str, StepKey, dict[str, Any] | str]]:
    """Every line of the parts that are not in ``seen``, which gets them; with its time, which lines sort by.

    Attempts (``StepKey.path`` and number) that are in ``elsewhere`` are left out.
    """
    found: list[tuple[str, StepKey, dict[str, Any] | str]] = []
    for name in filter(is_step, store.children(run.logs())):
        key = StepKey.parse(name)
        if only is not None and (key.name != only.name or only.index not in (None, key.index)):
            continue
        at = ""
        for part in filter(_PART.search, store.list(run.logs(key))):
            if part in seen or (name, int(part.rpartition("/")[2].partition(".")[0])) in elsewhere:
                continue
            seen.add(part)
            for text in store.get(part).decode(errors="replace").splitlines():
                line = parsed(text)
                at = str(line.get("at", at)) if isinstance(line, dict) else at
                found.append((at, key, line))
    return found


def parsed(text: str) -> dict[str, Any] | str:
    """A line as an object; the text itself where it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return line if isinstance(line, dict) else text


def print_line(place: AnyPlace, at: str, key: StepKey, line: dict[str, Any] | str) -> None:
    """Print a line for a person, or as an object."""
    if place.output:
        found = line if isinstance(line, dict) else {"event": "output", "text": line}
        click.echo(json.dumps({"step": key.label, **found}))
        return
    click.echo(f"{printable(at[11:19])}  {key.label}  {said(line)}")


def said(line: dict[str, Any] | str) -> str:
    """A line of progress in words."""
    if isinstance(line, str):
        return printable(line)
    rest = {k: v for k, v in line.items() if k not in ("at", "event")}
    text = rest.pop("text", rest.pop("trace", rest.pop("message", None)))
    tail = f": {printable(text, lines='trace' in line)}" if text is not None else ""
    fields = " ".join(f"{printable(k, 40)}={value(v, 200)}" for k, v in rest.items())
    return " ".join(part for part in (printable(line.get("event", "?"), 40), fields) if part) + tail
