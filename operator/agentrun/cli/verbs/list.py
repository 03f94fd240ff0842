"""``agentrun list``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from agentrun.api.canonical import moment
from agentrun.api.printable import printable
from agentrun.api.run import StepState
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit_list, table, tell
from agentrun.journal.records import Damaged
from agentrun.journal.runs import Unreadable
from agentrun.query.run_view import Mover, RunView
from agentrun.query.texts import lasting, spell

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("list")
@click.option("-A", "--all-namespaces", is_flag=True, help="List the runs of every namespace.")
def list_command(backend: Backend[R], all_namespaces: bool) -> int:
    """List the runs of a namespace, newest first."""
    found = backend.runs(all_namespaces=all_namespaces)
    runs = [run for run in found if not isinstance(run, Unreadable)]
    runs.sort(key=lambda run: (run.created, run.name), reverse=True)
    unread = [other for other in found if isinstance(other, Unreadable)]
    for other in unread:
        click.echo(f"agentrun: {printable(other.error)}", err=True)
    if backend.place.output:
        emit_list(backend.place, [run.obj for run in runs])
    elif not found:
        click.echo(f"there are no runs in {backend.where(all_namespaces=all_namespaces)}", err=True)
    else:
        rows = [[run.namespace, *_row_of(run)] for run in runs]
        rows += [[other.namespace, *_row_of_unread(other)] for other in unread]
        head = ["NAMESPACE", "NAME", "PHASE", "STEPS", "WAITING FOR", "COST", "AGE"]
        if not all_namespaces:
            head, rows = head[1:], [row[1:] for row in rows]
        for line in table(head, rows, [head.index("PHASE")]):
            tell(backend.place, line)
    return 0


def _row_of(run: RunView) -> list[str]:
    """The row of one run. Everybody with write access controls its content, which must not hide the other runs."""
    said = run.unreadable
    if said is None:
        return _row(run)
    click.echo(
        f"agentrun: run {printable(run.name, 63)} in {printable(run.namespace, 63)}: {printable(said)}", err=True
    )
    return [printable(run.name, 63), "Unreadable", "-", printable(said, 70), "-", "-"]


def _row_of_unread(run: Unreadable) -> list[str]:
    phase = "Damaged" if isinstance(run.error, Damaged) else "Unreadable"
    why = str(run.error).partition(": ")[2] or str(run.error)  # the full message, with the object, is on standard error
    return [printable(run.name, 63) or "-", phase, "-", printable(why, 70), "-", "-"]


def _row(run: RunView) -> list[str]:
    names = run.step_names
    steps = [entry for name, entry in run.entries.items() if name in names]
    done = sum(StepState(entry["state"]).final for entry in steps)
    return [
        run.name,
        printable(run.phase, 40),
        f"{done}/{len(names)}",
        "-" if run.ended else _waits(run),
        f"${run.status.get('usage', {}).get('costUSD', '0')}",
        spell(time.time() - moment(run.created)),
    ]


def _waits(run: RunView) -> str:
    """What a run waits for, in a few words; ``-`` if it goes on by itself."""
    waits = [f"{label}: {_what(waiting)}" for label, waiting in run.waiting.items()]
    if run.suspended:
        waits.insert(0, "resume")
    more = f" and {len(waits) - 2} more" if len(waits) > 2 else ""
    return printable(", ".join(waits[:2]) + more, 70) or _whom(run)


def _whom(run: RunView) -> str:
    """Whom a run waits for if none of its steps waits."""
    if run.mover is Mover.UNSEEN:
        return f"{run.driver_name}, not visible from here"
    return "a driver (agentrun resume)" if run.mover is Mover.NOBODY else "-"


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
