"""``agentrun show``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from agentrun.api.canonical import moment, timestamp
from agentrun.api.facts import Usage
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.texts import as_text
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import coloured, emit, table, tell, width
from agentrun.cli.what_next import what_next
from agentrun.query.past import Past
from agentrun.query.run_view import Mover, RunView, wanted
from agentrun.query.texts import clock, document, lasting, since, spell, value
from agentrun.query.timeline import Line, spent
from agentrun.records.step_records import Kind

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R

ROWS_MAX = 60
"""Steps that the table lists. The timeline has all of them."""


@verb("show")
@click.argument("run")
@click.option("--step", metavar="STEP", help="Only this step (NAME or NAME[INDEX]).")
def show_command(backend: Backend[R], run: str, step: str | None) -> int:
    """Show the status of RUN and its timeline: attempts, turns, tool calls, waits, decisions, cost."""
    found = backend.find(run)
    only = found.key(step) if step else None
    if backend.place.output:
        emit(backend.place, found.obj)
        return 0
    past = backend.past(found, only)
    now = time.time()
    for text in [*_head(found, now), "", *step_table(found.status, past, only, now)]:
        tell(backend.place, text)
    if lines := past.lines(only):
        tell(backend.place, "\n" + "\n".join(_timeline(found.started, lines)))
    if only is None and (todo := what_next(backend, found)):
        tell(backend.place, "\n" + "\n".join(todo))
    return 0


def _head(run: RunView, now: float) -> list[str]:
    status, spec = run.status, run.spec
    took = (
        f"took {spell(run.finished - run.started)}" if run.finished is not None else f"{spell(now - run.started)} ago"
    )
    usage = Usage.from_json(status["usage"]) if "usage" in status else Usage()
    said = f": {value(status['message'], None)}" if status.get("message") else ""
    reference = spec.get("workflowRef", {}).get("name", "")
    cancelled = run.changer("cancel")
    facts = [
        ("run", printable(f"{run.name} in {run.namespace}")),
        ("source", printable(_source(spec["source"])) if spec.get("source") else ""),
        ("unreadable", printable(run.unreadable or "", 300)),
        ("phase", coloured(printable(run.phase, 40)) + said),
        ("workflow", printable(" ".join(part for part in (reference, status.get("workflowDigest", "")) if part))),
        ("requested", run.requested),
        ("cancelled", f"by {printable(cancelled, 60)}" if cancelled else ""),
        ("started", f"{clock(run.started)}, {took}"),
        ("used", f"{usage.model_calls} model calls, {usage.tool_calls} tool calls, {spent(usage)}"),
        ("driver", "" if run.ended else _driver(run)),
        ("journal", printable(status.get("journal", ""))),
        ("inputs", value(spec["inputs"], 300) if spec.get("inputs") else ""),
    ]
    lines = [f"{name:<10} {text}" for name, text in facts if text]
    if status.get("output") is not None:
        whole = document(status["output"])
        lines.append(f"{'output':<10} {value(status['output'], None)}" if len(whole) < 100 else f"output\n{whole}")
    return lines


def _source(source: Mapping[str, Any]) -> str:
    at = f"@{source['seq']}" if source.get("seq") else ""
    return f"forked from {source['run']} at {source['step']}{at}"


def _driver(run: RunView) -> str:
    match run.mover:
        case Mover.OPERATOR:
            return ""
        case Mover.ELSEWHERE:
            return f"a cluster's operator: {printable(f'kubectl agentrun show {run.name} -n {run.namespace}')}"
        case Mover.NOBODY:
            return "none: the run does not go on by itself"
        case Mover.UNSEEN:
            return f"{run.driver_name}, not visible from here"
        case Mover.DRIVER:
            return run.driver_name


def step_table(status: Mapping[str, Any], past: Past, only: StepKey | None, now: float) -> list[str]:
    """The table of the steps of ``status``. ``past`` has their turns, calls and cost.

    The time of a step without its own end ends with the run.
    """
    rows = []
    end = status.get("completionTime", timestamp(now))
    for entry in status.get("steps", ()):
        key = StepKey.parse(entry["name"])
        if not wanted(key, only):
            continue
        own = {k: r for k, r in past.records.items() if k == key or ("items" in entry and k.name == key.name)}
        usage = sum((Usage.from_json(past.states[k].usage) for k in own), Usage())
        turns = sum(1 for r in own.values() for record in r if record.kind == Kind.TURN)
        took = ""
        if "startedAt" in entry:
            took = spell(moment(entry.get("finishedAt", end)) - moment(entry["startedAt"]))
        rows.append(
            [
                entry["name"],
                entry["state"],
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


def _timeline(start: float, lines: list[Line]) -> list[str]:
    """The aligned lines of the timeline of a run that began at ``start``."""
    label = max((width(line.place) for line in lines), default=0)
    return [
        f"{clock(line.at)[11:]}  {since(line.at, start):>8}  {line.place or '·':<{label}}  {line.text}"
        for line in lines
    ]
