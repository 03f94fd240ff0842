"""``agentrun list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from agentrun.api.run import StepState
from agentrun.cli.next_steps import driver_name
from agentrun.cli.options import AnyPlace, Place, verb
from agentrun.cli.output import emit_list, spell, table, tell
from agentrun.cli.printable import printable
from agentrun.cli.timeline import lasting
from agentrun.cli.view import View, read_all
from agentrun.journal.records import Damaged
from agentrun.journal.run import Unreadable


@verb("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="Runs of every namespace.")
def list_command(place: Place, all_namespaces: bool) -> int:
    """The runs of a namespace, newest first."""
    store = place.open()
    found = read_all(store, None if all_namespaces else place.namespace)
    views = [view for view in found if isinstance(view, View)]
    views.sort(key=lambda view: view.pinned.started, reverse=True)
    unread = [other for other in found if isinstance(other, Unreadable)]
    for other in unread:
        click.echo(f"agentrun: {printable(other.error)}", err=True)
    if place.output:
        emit_list(place, [view.to_json() for view in views])
    elif not found:
        where = "any namespace" if all_namespaces else f"namespace {place.namespace}"
        click.echo(f"there are no runs in {where} of {printable(store.url)}", err=True)
    else:
        rows = [(view.run.namespace, _row(view)) for view in views]
        rows += [(other.namespace, _row_of_unread(other)) for other in unread]
        print_rows(place, rows, all_namespaces=all_namespaces)
    return 0


def _row_of_unread(run: Unreadable) -> list[str]:
    phase = "Damaged" if isinstance(run.error, Damaged) else "Unreadable"
    why = str(run.error).partition(": ")[2] or str(run.error)  # the object is named on standard error
    return [printable(run.name, 63) or "-", phase, "-", printable(why, 70), "-", "-"]


def print_rows(place: AnyPlace, rows: Sequence[tuple[str, list[str]]], *, all_namespaces: bool) -> None:
    """Print the table of runs, each with its namespace."""
    head = ["NAME", "PHASE", "STEPS", "WAITING FOR", "COST", "AGE"]
    if all_namespaces:
        head = ["NAMESPACE", *head]
    cells = [[namespace, *row] if all_namespaces else row for namespace, row in rows]
    for line in table(head, cells, [head.index("PHASE")]):
        tell(place, line)


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
        spell(view.now - view.pinned.started),
    ]


def _names(view: View) -> list[str]:
    return [*view.program.steps, *view.program.finally_]


def waits(view: View) -> str:
    """What the run waits for, in a few words; ``-`` where it does not."""
    if view.ended is not None:
        return "-"
    moves = view.driver is not None or view.suspended or view.pinned.on_cluster
    otherwise = "-" if moves else "a driver (agentrun resume)"
    if view.driver_unseen and not view.pinned.on_cluster:
        otherwise = f"{driver_name(view)}, not seen from here"
    return waiting_for(view.status, suspended=view.suspended, otherwise=otherwise)


def waiting_for(status: Mapping[str, Any], *, suspended: bool, otherwise: str) -> str:
    """What a run that goes on waits for, by its status, in a few words."""
    waiting = [(entry["name"], entry["waitingFor"]) for entry in status.get("steps", ()) if "waitingFor" in entry]
    people = [f"{name}: {_what(what)}" for name, what in waiting]
    if suspended:
        people.insert(0, "resume")
    more = f" and {len(people) - 2} more" if len(people) > 2 else ""
    return printable(", ".join(people[:2]) + more, 70) or otherwise


def _what(waiting: dict[str, Any]) -> str:
    if "approval" in waiting:
        return "approval"
    if "signal" in waiting:
        return f"signal {waiting['signal']}"
    if "resolve" in waiting:
        return f"outcome of {waiting['tool']}"
    kind, detail = next(iter(waiting.items()))
    if kind == "until":
        return lasting(str(detail))
    return f"{kind} {detail}" if kind == "retry" else kind
