"""``agentrun list``."""

from __future__ import annotations

from typing import Any

import click

from agentrun.api.canonical import moment
from agentrun.api.run import StepState
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit_list, spell, table, tell
from agentrun.cli.printable import printable
from agentrun.cli.view import View, read_all
from agentrun.journal.records import Damaged


@verb("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of every namespace.")
def list_command(place: Place, all_namespaces: bool) -> int:
    """The runs of a namespace, newest first."""
    store = place.open()
    found = read_all(store, None if all_namespaces else place.namespace)
    views = [view for view in found if isinstance(view, View)]
    views.sort(key=lambda view: view.pinned.manifest["createdAt"], reverse=True)
    for damaged in found:
        if isinstance(damaged, Damaged):
            click.echo(f"agentrun: {printable(damaged)}", err=True)
    if place.output:
        emit_list(place, [view.to_json() for view in views])
    elif not views:
        where = "any namespace" if all_namespaces else f"namespace {place.namespace}"
        click.echo(f"there are no runs in {where} of {printable(store.url)}", err=True)
    else:
        head = ["NAME", "PHASE", "STEPS", "WAITING FOR", "COST", "AGE"]
        rows = [_row(view) for view in views]
        if all_namespaces:
            head = ["NAMESPACE", *head]
            rows = [[view.run.namespace, *row] for view, row in zip(views, rows, strict=True)]
        for line in table(head, rows, [head.index("PHASE")]):
            tell(place, line)
    return 0


def _row(view: View) -> list[str]:
    status = view.status
    steps = [entry for entry in status["steps"] if entry["name"] in _names(view)]
    done = sum(StepState(entry["state"]).final for entry in steps)
    return [
        view.name,
        status["phase"],
        f"{done}/{len(_names(view))}",
        waits(view),
        f"${status['usage']['costUSD']}",
        spell(view.now - moment(view.pinned.manifest["createdAt"])),
    ]


def _names(view: View) -> list[str]:
    return [*view.program.steps, *view.program.finally_]


def waits(view: View) -> str:
    """What the run waits for, in a few words; ``-`` where it does not."""
    if view.ended is not None:
        return "-"
    waiting = [(entry["name"], entry["waitingFor"]) for entry in view.status["steps"] if "waitingFor" in entry]
    people = [f"{name}: {_what(what)}" for name, what in waiting]
    if not people and view.driver is None and not view.suspended:
        return "a driver (agentrun resume)"
    if view.suspended:
        people.insert(0, "resume")
    more = f" and {len(people) - 2} more" if len(people) > 2 else ""
    return printable(", ".join(people[:2]) + more, 70) or "-"


def _what(waiting: dict[str, Any]) -> str:
    if "approval" in waiting:
        return "approval"
    if "signal" in waiting:
        return f"signal {waiting['signal']}"
    if "resolve" in waiting:
        return f"outcome of {waiting['tool']}"
    kind, detail = next(iter(waiting.items()))
    return f"{kind} {detail}" if kind in ("until", "retry") else kind
