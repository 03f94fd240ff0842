"""``kubectl agentrun show``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import click

from agentrun.api.canonical import moment
from agentrun.api.facts import StepKey, Usage
from agentrun.cli.failures import Refused
from agentrun.cli.on_cluster.runs import Run, find, journal_of
from agentrun.cli.on_cluster.todo import todo
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import coloured, emit, spell, tell
from agentrun.cli.printable import document, printable, value
from agentrun.cli.show import lines_of, records_of, step_table, timeline_lines
from agentrun.cli.timeline import clock, spent
from agentrun.journal.fold import Folded
from agentrun.journal.log import EventLog
from agentrun.journal.records import Damaged, Record
from agentrun.journal.run import read_states
from agentrun.store.protocol import StoreError


@dataclass(frozen=True, slots=True)
class _Past:
    """What the journal adds to a status; nothing where it may not be read."""

    states: dict[StepKey, Folded] = field(default_factory=dict)
    records: dict[StepKey, list[Record]] = field(default_factory=dict)
    events: list[Record] = field(default_factory=list)


def show_verb(place: ClusterPlace, run: str, step: str | None) -> int:
    """How the run stands, by its status; and its timeline, by its journal."""
    client = place.open()
    found = find(place, client, run)
    if place.output:
        emit(place, found.obj)
        return 0
    only = _key(found, step) if step else None
    past = _past(found, only)
    now = time.time()
    for text in [*_head(found, now), "", *step_table(found.status, past.states, past.records, only, now)]:
        tell(place, text)
    if lines := lines_of(past.records, past.events, only):
        start = found.status.get("startTime") or found.obj["metadata"]["creationTimestamp"]
        tell(place, "\n" + "\n".join(timeline_lines(moment(start), lines)))
    if only is None and (lines_ := todo(place, client, found)):
        tell(place, "\n" + "\n".join(lines_))
    return 0


def _key(run: Run, step: str) -> StepKey:
    try:
        return StepKey.parse(run.step(step))
    except ValueError as error:
        raise Refused(str(error)) from None


def _past(run: Run, only: StepKey | None) -> _Past:
    if "journal" not in run.status:
        return _Past()
    try:
        store, path = journal_of(run)
        states = read_states(store, path)
        log = EventLog(store, path, time.time)
        log.refresh()
        return _Past(states, records_of(store, path, states, only), log.records)
    except (StoreError, Damaged, Refused) as error:
        said = printable(error, 300)
        click.echo(f"agentrun: without the timeline, since the journal cannot be read: {said}", err=True)
        return _Past()


def _head(run: Run, now: float) -> list[str]:
    status = run.status
    created = moment(run.obj["metadata"]["creationTimestamp"])
    started = moment(status["startTime"]) if "startTime" in status else created
    ended = moment(status["completionTime"]) if "completionTime" in status else None
    took = f"took {spell(ended - started)}" if ended is not None else f"{spell(now - started)} ago"
    usage = Usage.from_json(status["usage"]) if "usage" in status else Usage()
    said = f": {value(status['message'], None)}" if status.get("message") else ""
    reference = run.spec.get("workflowRef", {}).get("name", "")
    facts = [
        ("run", f"{run.name} in {run.namespace}"),
        ("source", _source(run.spec.get("source"))),
        ("phase", coloured(printable(run.phase, 40)) + said),
        ("workflow", " ".join(part for part in (reference, status.get("workflowDigest", "")) if part)),
        ("requested", f"by {printable(run.requester, 60)}" if run.requester else "by somebody unknown"),
        ("cancelled", f"by {printable(run.changer('cancel'), 60)}" if run.changer("cancel") else ""),
        ("started", f"{clock(started)}, {took}"),
        ("used", f"{usage.model_calls} model calls, {usage.tool_calls} tool calls, {spent(usage)}"),
        ("journal", status.get("journal", "")),
        ("inputs", value(run.spec["inputs"], 300) if run.spec.get("inputs") else ""),
    ]
    lines = [f"{name:<10} {printable(text) if name != 'phase' else text}" for name, text in facts if text]
    if status.get("output") is not None:
        whole = document(status["output"])
        lines.append(f"{'output':<10} {value(status['output'], None)}" if len(whole) < 100 else f"output\n{whole}")
    return lines


def _source(source: dict[str, Any] | None) -> str:
    if source is None:
        return ""
    at = f"@{source['seq']}" if source.get("seq") else ""
    return f"forked from {source['run']} at {source['step']}{at}"
