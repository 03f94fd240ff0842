"""The live view of a run on a terminal. Every cell is a ``Text``, so that rich reads no markup in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentrun.api.canonical import moment
from agentrun.api.run import StepState
from agentrun.cli.terminal.board import Board, Count
from agentrun.query.texts import spell, value

PER_SECOND = 4
"""Frames per second."""

_STYLES = {"Succeeded": "green", "Failed": "red", "OutcomeUnknown": "bold red", "Waiting": "yellow", "Running": "cyan"}
_FIRST = ("OutcomeUnknown", "Running", "Waiting", "Failed", "Pending", "Succeeded", "Cancelled", "Skipped")
"""The order in which states are preferred if not all steps fit."""


@dataclass(slots=True)
class LiveBoard:
    """Shows a board while ``open`` is entered. ``Live`` renders it again for each frame."""

    board: Board
    console: Console

    def open(self) -> Live:
        """The view as a context manager."""
        return Live(self, console=self.console, refresh_per_second=PER_SECOND, transient=False, redirect_stdout=False)

    def __rich__(self) -> Group:
        room = max(3, self.console.height - 5)
        shown = _fitting(list(self.board.entries.values()), room)
        rows = Table.grid(padding=(0, 2))
        for number in range(7):
            rows.add_column(justify="right" if number in (2, 3, 4, 5) else "left", no_wrap=True, overflow="ellipsis")
        head = ("step", "state", "turns", "calls", "tokens", "cost", "", "")
        rows.add_row(*(Text(cell, style="dim") for cell in head))
        for entry in shown:
            name = entry["name"]
            rows.add_row(*_row(entry, self.board.counts.get(name, Count()), self.board.began.get(name)))
        rest = len(self.board.entries) - len(shown)
        used = self.board.usage
        tail = f"… and {rest} more steps   " if rest else ""
        tail += f"{used.tokens:,} tokens   ${used.to_json()['costUSD']}"
        return Group(rows, Text(tail, style="dim"))


def _fitting(entries: list[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """The ``room`` entries that come first by ``_FIRST``, in the order of the workflow."""
    if len(entries) <= room:
        return entries
    by_need = sorted(range(len(entries)), key=lambda n: _FIRST.index(entries[n]["state"]))
    return [entries[n] for n in sorted(by_need[:room])]


def _row(entry: dict[str, Any], count: Count, began: float | None) -> list[Text]:
    state = str(entry["state"])
    attempt = f" #{entry['attempt']}" if entry.get("attempt", 1) > 1 else ""
    return [
        Text(entry["name"]),
        Text(state + attempt, style=_STYLES.get(state, "")),
        Text(str(count.turns or "")),
        Text(str(count.calls or "")),
        Text(f"{count.usage.tokens:,}" if count.usage.tokens else ""),
        Text(f"${count.usage.to_json()['costUSD']}" if count.usage.cost_usd else ""),
        Text(_elapsed(entry, began)),
        Text(_why(entry), style="dim"),
    ]


def _elapsed(entry: dict[str, Any], began: float | None) -> str:
    started = moment(entry["startedAt"]) if "startedAt" in entry else began
    if started is None or entry["state"] == StepState.PENDING:
        return ""
    return spell((moment(entry["finishedAt"]) if "finishedAt" in entry else time.time()) - started)


def _why(entry: dict[str, Any]) -> str:
    waiting = entry.get("waitingFor", {})
    for kind, detail in waiting.items():
        return f"{kind}: {value('; '.join(waiting['subjects']) if 'subjects' in waiting else detail, 80)}"
    if "failure" in entry:
        return value(entry["failure"]["message"], 80)
    return " ".join(f"{n} {s}" for s, n in entry.get("items", {}).items())
