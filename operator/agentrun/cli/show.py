"""``agentrun show``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from agentrun.api.canonical import moment, timestamp
from agentrun.api.facts import StepKey, Usage
from agentrun.api.texts import as_text
from agentrun.cli.next_steps import driver_name, next_steps
from agentrun.cli.options import Place, verb
from agentrun.cli.output import coloured, emit, spell, table, tell, width
from agentrun.cli.printable import document, printable, value
from agentrun.cli.timeline import Line, clock, lasting, since, spent, timeline
from agentrun.cli.view import View
from agentrun.journal.fold import Folded
from agentrun.journal.layout import RunPath
from agentrun.journal.log import read_step
from agentrun.journal.records import Record
from agentrun.records.step_records import Kind
from agentrun.store.protocol import Store

ROWS_MAX = 60
"""Steps that are listed one by one; the timeline has them all."""


@verb("show")
@click.argument("run")
@click.option("--step", metavar="STEP", help="Only this step (NAME or NAME[INDEX]).")
def show_command(place: Place, run: str, step: str | None) -> int:
    """How RUN stands, and its timeline: attempts, turns, tool calls, waits, decisions, cost."""
    store = place.open()
    view = View.find(place, store, run)
    only = view.key(step) if step else None
    records = records_of(store, view.run, view.states, only)
    if place.output:
        emit(place, view.to_json())
        return 0
    lines = lines_of(records, view.events, only)
    table_ = step_table(view.status, view.states, records, only, view.now)
    start = moment(view.pinned.manifest["createdAt"])
    for text in [*_head(view), "", *table_, "", *timeline_lines(start, lines)]:
        tell(place, text)
    if only is None and (todo := next_steps(place, view)):
        tell(place, "\n" + "\n".join(todo))
    return 0


def records_of(
    store: Store, run: RunPath, keys: Iterable[StepKey], only: StepKey | None
) -> dict[StepKey, list[Record]]:
    """Every record of the steps, in the order of their names."""
    wanted = (key for key in sorted(keys, key=lambda k: (k.name, k.index or 0, k.compensate)) if _wanted(key, only))
    return {key: read_step(store, run, key, whole=True) for key in wanted}


def lines_of(records: dict[StepKey, list[Record]], events: Iterable[Record], only: StepKey | None) -> list[Line]:
    """The timeline, of everything or of one step."""
    lines = timeline(records, events)
    return [line for line in lines if only is None or (line.step and _wanted(StepKey.parse(line.step), only))]


def _wanted(key: StepKey, only: StepKey | None) -> bool:
    return only is None or (key.name == only.name and only.index in (None, key.index))


def _head(view: View) -> list[str]:
    m, status = view.pinned.manifest, view.status
    ended = view.ended
    started = moment(m["createdAt"])
    usage = Usage.from_json(status["usage"])
    took = f"took {spell(ended.at - started)}" if ended else f"{spell(view.now - started)} ago"
    facts = [
        ("run", f"{printable(m['name'])} in {printable(m['namespace'])}"),
        ("phase", coloured(status["phase"]) + (f": {value(status['message'], None)}" if status.get("message") else "")),
        ("workflow", f"{printable(m['workflowDigest'])}"),
        ("requested", _requested(view)),
        ("started", f"{clock(started)}, {took}"),
        ("used", f"{usage.model_calls} model calls, {usage.tool_calls} tool calls, {spent(usage)}"),
        ("driver", _driver(view)),
        ("journal", printable(f"{view.store.url.rstrip('/')}/{view.run}/")),
    ]
    if source := m.get("source"):
        at = f"@{source['seq']}" if source.get("seq") else ""
        facts.insert(1, ("source", printable(f"forked from {source['run']} at {source['step']}{at}")))
    if m["inputs"]:
        facts.append(("inputs", value(m["inputs"], 300)))
    lines = [f"{name:<10} {text}" for name, text in facts if text]
    if ended and status["output"] is not None:
        whole = document(status["output"])
        lines.append(f"{'output':<10} {value(status['output'], None)}" if len(whole) < 100 else f"output\n{whole}")
    return lines


def _requested(view: View) -> str:
    by = view.pinned.manifest["requestedBy"]
    if by is None:
        return "by somebody unknown"
    return f"by {printable(by, 60)}" + ("" if view.pinned.on_cluster else " (unverified)")


def _driver(view: View) -> str:
    if view.ended is not None:
        return ""
    if view.pinned.on_cluster:
        return f"a cluster's operator: {printable(f'kubectl agentrun show {view.name} -n {view.run.namespace}')}"
    if view.driver is None:
        return "none: nothing moves by itself now"
    return driver_name(view) + (", not seen from here" if view.driver_unseen else "")


def step_table(
    status: Mapping[str, Any],
    states: Mapping[StepKey, Folded],
    records: Mapping[StepKey, list[Record]],
    only: StepKey | None,
    now: float,
) -> list[str]:
    """The steps of ``status``; with turns, calls and cost as far as ``states`` and ``records`` hold them.

    A step that the run's end cut short has no end of its own: its time ends with the run's.
    """
    rows = []
    end = status.get("completionTime", timestamp(now))
    for entry in status.get("steps", ()):
        key = StepKey.parse(entry["name"])
        if not _wanted(key, only):
            continue
        own = {k: r for k, r in records.items() if k == key or ("items" in entry and k.name == key.name)}
        usage = sum((Usage.from_json(states[k].usage) for k in own), Usage())
        turns = sum(1 for r in own.values() for record in r if record.kind == Kind.TURN)
        state = entry["state"]
        took = ""
        if "startedAt" in entry:
            took = spell(moment(entry.get("finishedAt", end)) - moment(entry["startedAt"]))
        rows.append(
            [
                entry["name"],
                state,
                str(entry.get("attempt", "")),
                str(turns or ""),
                str(usage.tool_calls or ""),
                f"{usage.tokens:,}" if usage.tokens else "",
                f"${usage.to_json()['costUSD']}" if usage.cost_usd else "",
                took,
                _why(entry),
            ]
        )
    more = [f"… and {len(rows) - ROWS_MAX} more steps"] if len(rows) > ROWS_MAX else []
    head = ["STEP", "STATE", "ATTEMPT", "TURNS", "CALLS", "TOKENS", "COST", "TIME", ""]
    return table(head, rows[:ROWS_MAX], [1]) + more


def _why(entry: dict[str, Any]) -> str:
    if "waitingFor" in entry:
        waiting = entry["waitingFor"]
        kind, detail = next(iter(waiting.items()))
        if kind == "until":
            return printable(lasting(str(detail)), 100)
        return f"{kind}: {value('; '.join(map(as_text, waiting.get('subjects') or [detail])), 100)}"
    if "failure" in entry:
        return value(entry["failure"]["message"], 100)
    if "items" in entry:
        return ", ".join(f"{n} {state}" for state, n in entry["items"].items())
    return ""


def timeline_lines(start: float, lines: list[Line]) -> list[str]:
    """The timeline of a run that began at ``start``, aligned."""
    label = max((width(line.place) for line in lines), default=0)
    return [
        f"{clock(line.at)[11:]}  {since(line.at, start):>8}  {line.place or '·':<{label}}  {line.text}"
        for line in lines
    ]
