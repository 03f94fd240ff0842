"""``agentrun show``."""

from __future__ import annotations

from typing import Any

import click

from agentrun.api.canonical import moment, timestamp
from agentrun.api.facts import StepKey, Usage
from agentrun.cli.next_steps import next_steps
from agentrun.cli.options import Place, verb
from agentrun.cli.output import coloured, emit, spell, table, tell, width
from agentrun.cli.printable import document, printable, value
from agentrun.cli.timeline import Line, clock, since, spent, timeline
from agentrun.cli.view import View
from agentrun.journal.log import read_step
from agentrun.journal.records import Kind, Record

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
    keys = [
        key for key in sorted(view.states, key=lambda k: (k.name, k.index or 0, k.compensate)) if _wanted(key, only)
    ]
    records = {key: read_step(store, view.run, key, whole=True) for key in keys}
    lines = timeline(records, view.events)
    if only is not None:
        lines = [line for line in lines if line.step and _wanted(StepKey.parse(line.step), only)]
    if place.output:
        emit(place, view.to_json())
        return 0
    for text in [*_head(view), "", *_steps(view, records, only), "", *_timeline(view, lines)]:
        tell(place, text)
    if only is None and (todo := next_steps(place, view)):
        tell(place, "\n" + "\n".join(todo))
    return 0


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
        ("requested", f"by {printable(m['requestedBy'], 60)} (unverified)"),
        ("started", f"{clock(started)}, {took}"),
        ("used", f"{usage.model_calls} model calls, {usage.tool_calls} tool calls, {spent(usage)}"),
        ("driver", _driver(view)),
        ("journal", printable(f"{view.store.url.rstrip('/')}/{view.run}/")),
    ]
    if m.get("source"):
        source = m["source"]
        at = f"@{source['seq']}" if source.get("seq") else ""
        facts.insert(1, ("source", printable(f"forked from {source['run']} at {source['step']}{at}")))
    if m["inputs"]:
        facts.append(("inputs", value(m["inputs"], 300)))
    lines = [f"{name:<10} {text}" for name, text in facts if text]
    if ended and status["output"] is not None:
        whole = document(status["output"])
        lines.append(f"{'output':<10} {value(status['output'], None)}" if len(whole) < 100 else f"output\n{whole}")
    return lines


def _driver(view: View) -> str:
    if view.ended is not None:
        return ""
    if view.driver is None:
        return "none: nothing moves by itself now"
    return printable(f"process {view.driver.get('pid')} on {view.driver.get('host')}", 100)


def _steps(view: View, records: dict[StepKey, list[Record]], only: StepKey | None) -> list[str]:
    rows = []
    for entry in view.status["steps"]:
        key = StepKey.parse(entry["name"])
        if not _wanted(key, only):
            continue
        own = {k: r for k, r in records.items() if k == key or ("items" in entry and k.name == key.name)}
        usage = sum((Usage.from_json(view.states[k].usage) for k in own), Usage())
        turns = sum(1 for r in own.values() for record in r if record.kind == Kind.TURN)
        state = entry["state"]
        took = ""
        if "startedAt" in entry:
            took = spell(
                moment(entry["finishedAt"] if "finishedAt" in entry else timestamp(view.now))
                - moment(entry["startedAt"])
            )
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
        subjects = waiting.get("subjects") or [next(iter(waiting.values()))]
        return f"{next(iter(waiting))}: {value('; '.join(map(str, subjects)), 100)}"
    if "failure" in entry:
        return value(entry["failure"]["message"], 100)
    if "items" in entry:
        return ", ".join(f"{n} {state}" for state, n in entry["items"].items())
    return ""


def _timeline(view: View, lines: list[Line]) -> list[str]:
    start = moment(view.pinned.manifest["createdAt"])
    label = max((width(line.place) for line in lines), default=0)
    return [
        f"{clock(line.at)[11:]}  {since(line.at, start):>8}  {line.place or '·':<{label}}  {line.text}"
        for line in lines
    ]
