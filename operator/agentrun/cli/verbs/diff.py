"""``agentrun diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentrun.api.printable import printable
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit_list, table, tell
from agentrun.journal.log import read_step
from agentrun.query.difference import Difference, Side, differences
from agentrun.query.stored_run import StoredRun
from agentrun.query.texts import value

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R

SHOWN = 60
"""Characters shown of each side. ``-o json`` has all of it."""


@verb("diff")
@click.argument("left")
@click.argument("right")
def diff_command(backend: Backend[R], left: str, right: str) -> int:
    """Show where the runs LEFT and RIGHT differ: workflow, inputs, states, outputs, and the first differing records.

    Instants, identifiers and costs are not compared. Exits with 0 if nothing differs, otherwise with 1.
    """
    one, other = (StoredRun.read(*backend.journal(name)) for name in (left, right))
    found = list(differences(_side(one), _side(other)))
    if backend.place.output:
        emit_list(backend.place, [{"step": d.step, "what": d.what, "left": d.left, "right": d.right} for d in found])
    elif found:
        rows = [[printable(d.step or "·"), printable(d.what, 40), *_both(d)] for d in found]
        for line in table(["STEP", "WHAT", one.name, other.name], rows):
            tell(backend.place, line)
    else:
        tell(backend.place, f"{one.name} and {other.name} do not differ")
    return 1 if found else 0


def _both(difference: Difference) -> tuple[str, str]:
    """The texts of both sides. Long texts start shortly before the first difference."""
    one, other = (value(side, None) if side is not None else "-" for side in (difference.left, difference.right))
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    cut = max(0, same - SHOWN // 3) if max(len(one), len(other)) > SHOWN else 0
    return _from(one, cut), _from(other, cut)


def _from(text: str, cut: int) -> str:
    return printable(("…" if cut else "") + text[cut:], SHOWN)


def _side(run: StoredRun) -> Side:
    return Side(
        path=str(run.run),
        manifest=run.pinned.manifest,
        # A step that the planner has not reached yet has no entry.
        states=dict.fromkeys(run.step_names, "Pending") | {name: e["state"] for name, e in run.entries.items()},
        records={key: read_step(run.store, run.run, key, whole=True) for key in run.states},
        events=run.events,
    )
