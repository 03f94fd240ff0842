"""``agentrun diff``."""

from __future__ import annotations

import click

from agentrun.cli.options import AnyPlace, Place, verb
from agentrun.cli.output import emit_list, table, tell
from agentrun.cli.printable import printable, value
from agentrun.cli.view import View
from agentrun.journal.difference import Difference, Side, differences
from agentrun.journal.log import read_step

SHOWN = 60
"""Characters of either side that are shown; ``-o json`` has the whole."""


@verb("diff")
@click.argument("left")
@click.argument("right")
def diff_command(place: Place, left: str, right: str) -> int:
    """Where the runs LEFT and RIGHT part: workflow, inputs, states, outputs, and the first records that differ.

    Instants, identifiers and costs are not compared. Exits with 0 where nothing differs, else with 1.
    """
    store = place.open()
    return compare(place, *(View.find(place, store, name) for name in (left, right)))


def compare(place: AnyPlace, left: View, right: View) -> int:
    """Say where two runs part; the exit code."""
    found = list(differences(_side(left), _side(right)))
    if place.output:
        emit_list(place, [{"step": d.step, "what": d.what, "left": d.left, "right": d.right} for d in found])
    elif found:
        rows = [[printable(d.step or "·"), printable(d.what, 40), *_both(d)] for d in found]
        for line in table(["STEP", "WHAT", left.name, right.name], rows):
            tell(place, line)
    else:
        tell(place, f"{left.name} and {right.name} say the same")
    return 1 if found else 0


def _both(difference: Difference) -> tuple[str, str]:
    """Both sides, each from where they part; JSON puts the same names first."""
    one, other = (value(side, None) if side is not None else "-" for side in (difference.left, difference.right))
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    cut = max(0, same - SHOWN // 3) if max(len(one), len(other)) > SHOWN else 0
    return _from(one, cut), _from(other, cut)


def _from(text: str, cut: int) -> str:
    return printable(("…" if cut else "") + text[cut:], SHOWN)


def _side(view: View) -> Side:
    return Side(
        path=str(view.run),
        manifest=view.pinned.manifest,
        # A step that the planner has not come to has no entry yet.
        states=dict.fromkeys([*view.program.steps, *view.program.finally_], "Pending")
        | {name: entry["state"] for name, entry in view.entries.items()},
        records={key: read_step(view.store, view.run, key, whole=True) for key in view.states},
        events=view.events,
    )
