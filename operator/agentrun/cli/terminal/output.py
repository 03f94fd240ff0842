"""Writes results: objects for programs, aligned columns for people.

Columns are plain text without boxes, so that they can be cut, searched and compared, and nothing is wrapped or lost if
standard output is not a terminal.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agentrun.cli.place import AnyPlace

_COLOURS = {
    "Succeeded": "green",
    "Failed": "red",
    "OutcomeUnknown": "red",
    "Stalled": "red",
    "Damaged": "red",
    "Unreadable": "red",
    "Waiting": "yellow",
    "Suspended": "yellow",
    "Running": "cyan",
}


def tell(place: AnyPlace, text: str = "") -> None:
    """Print ``text`` for a person: to standard output, or to standard error if standard output gets an object."""
    click.echo(text, err=place.output is not None)


def emit(place: AnyPlace, found: Any) -> None:
    """Write ``found`` as YAML or JSON, in ASCII, so that it has no control sequences for a terminal.

    ``managedFields`` are left out, as kubectl does.
    """
    found = _without_managers(found)
    if place.output == "yaml":
        import yaml  # noqa: PLC0415  (lazy: few commands need it)

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        click.echo(yaml.dump(found, Dumper=_plain(dumper), sort_keys=False, allow_unicode=False, width=120), nl=False)
    else:
        click.echo(json.dumps(found, indent=2))


def emit_list(place: AnyPlace, items: list[Any]) -> None:
    """Write a Kubernetes ``List``."""
    whole = [_without_managers(item) for item in items]
    emit(place, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": whole})


def _without_managers(found: Any) -> Any:
    metadata = found.get("metadata") if isinstance(found, dict) else None
    if not isinstance(metadata, dict) or "managedFields" not in metadata:
        return found
    return found | {"metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}


def _plain(dumper: Any) -> Any:
    """``dumper`` without YAML aliases: a value that is shared in memory is written in full each time."""
    return type("Plain", (dumper,), {"ignore_aliases": lambda _self, _data: True})


def coloured(state: str) -> str:
    """``state`` in its colour. click removes the colour if standard output is not a terminal."""
    colour = _COLOURS.get(state)
    return click.style(state, fg=colour) if colour else state


def table(head: Sequence[str], rows: Iterable[Sequence[str]], states: Sequence[int] = ()) -> list[str]:
    """Aligned lines under ``head``. The columns numbered in ``states`` hold states. Cells must be printable."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(width(row[n]) for row in cells) for n in range(len(head))]
    lines = []
    for number, row in enumerate(cells):
        parts = []
        for n, cell in enumerate(row):
            gap = " " * (widths[n] - width(cell)) if n < len(row) - 1 else ""
            parts.append((coloured(cell) if number and n in states else cell) + gap)
        lines.append("   ".join(parts).rstrip())
    return lines


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
