"""Keeps a driver's reports for display: the state of each step, and what its attempts have done so far."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.facts import Usage
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.texts import as_text
from agentrun.cli.place import AnyPlace
from agentrun.cli.terminal.output import tell
from agentrun.journal.fold import Folded
from agentrun.plan.snapshot import Plan
from agentrun.query.texts import lasting, value
from agentrun.records.step_records import Kind

_TROUBLE = frozenset({"output", "crashed", "error", "fenced", "log-lost", "abandoned"})
"""Events in lines of progress that a person must see. The states of the steps show the rest."""


@dataclass(slots=True)
class Count:
    """What the attempts of a step have done so far."""

    turns: int = 0
    calls: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Board:
    """Receives the driver's reports. ``tell`` gets each change as a line, ``say`` each line that must be seen."""

    tell: Callable[[str], None]
    say: Callable[[str], None]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, Count] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    """When each step was first seen running, by this process's clock. Used until the status has a start time."""

    total: Usage | None = None
    """What the run has spent, if the status has it; None to add up the lines of progress."""

    def plan(self, planned: Plan) -> None:
        """Show the states in a plan."""
        self.show(planned.status["steps"])

    def show(self, entries: Iterable[dict[str, Any]]) -> None:
        """Show the steps of a status, and report those that changed."""
        fresh = {entry["name"]: entry for entry in entries}
        for name, entry in fresh.items():
            before = self.entries.get(name)
            if entry["state"] == "Running":
                self.began.setdefault(name, time.time())
            if before is None and entry["state"] == "Pending":
                continue
            if before is None or _moved(before, entry):
                self.tell(f"{name}: {described(entry)}")
        self.entries = fresh

    def line(self, key: StepKey, line: dict[str, Any]) -> None:
        """Count and report a line of progress of an attempt."""
        count = self.counts.setdefault(key.label, Count())
        match line.get("event"):
            case Kind.TURN:
                count.turns += 1
                count.usage += Usage.from_json(line["usage"])
                calls = ", ".join(printable(name, 60) for name in line["calls"])
                self.tell(f"{key.label}: turn {count.turns}: {f'calls {calls}' if calls else 'answers'}")
            case Kind.INTENT:
                self.tell(f"{key.label}: begins {printable(line['tool'], 60)}")
            case Kind.RESULT if "tools" in line:
                count.calls += len(line["tools"])
                self.tell(f"{key.label}: answered: {', '.join(printable(name, 60) for name in line['tools'])}")
            case Kind.FAILED:
                self.tell(f"{key.label}: {said(line)}")
            case event if event in _TROUBLE:
                self.say(f"{key.label}: {said(line)}")
            case _:
                pass

    @property
    def usage(self) -> Usage:
        """What all steps have spent together."""
        if self.total is not None:
            return self.total
        return sum((count.usage for count in list(self.counts.values())), Usage())


def counts_of(states: Mapping[StepKey, Folded]) -> dict[str, Count]:
    """What earlier attempts have done according to the journal, by label."""
    counts = {}
    for key, state in states.items():
        usage = Usage.from_json(state.usage)
        counts[key.label] = Count(state.turns, usage.tool_calls, usage)
    return counts


@contextlib.contextmanager
def shown(place: AnyPlace, counts: dict[str, Count]) -> Iterator[Board]:
    """A board on display: a live view on a terminal, otherwise a line for each change."""
    stream = sys.stderr if place.output else sys.stdout
    if not stream.isatty() or os.environ.get("TERM") == "dumb":

        def line(text: str) -> None:
            tell(place, text)

        yield Board(line, line, counts=counts)
        return
    from rich.console import Console  # noqa: PLC0415  (lazy: only a terminal pays for it)
    from rich.text import Text  # noqa: PLC0415

    from agentrun.cli.terminal.live import LiveBoard  # noqa: PLC0415

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    board = Board(lambda _: None, lambda text: console.print(Text(text)), counts=counts)
    with LiveBoard(board, console).open():
        yield board


def _moved(before: dict[str, Any], entry: dict[str, Any]) -> bool:
    return any(before.get(k) != entry.get(k) for k in ("state", "attempt", "waitingFor", "items"))


def described(entry: dict[str, Any]) -> str:
    """The state of a step in a few words."""
    text = str(entry["state"])
    if entry.get("attempt", 1) > 1:
        text += f" (attempt {entry['attempt']})"
    if entry.get("items"):
        text += f" ({', '.join(f'{n} {state}' for state, n in entry['items'].items())})"
    if "waitingFor" in entry:
        waiting = entry["waitingFor"]
        kind = next(iter(waiting))
        detail = "; ".join(waiting["subjects"]) if "subjects" in waiting else waiting[kind]
        because = f", {waiting['because']}" if "because" in waiting else ""
        words = lasting(str(detail)) if kind == "until" else f"{kind}: {as_text(detail)}{because}"
        text += f": {value(words, 160)}"
    elif "failure" in entry:
        text += f": {value(entry['failure']['message'], 200)} ({entry['failure']['class']})"
    return text


def said(line: dict[str, Any] | str) -> str:
    """A line of progress in words."""
    if isinstance(line, str):
        return printable(line)
    rest = {k: v for k, v in line.items() if k not in ("at", "event")}
    text = rest.pop("text", rest.pop("trace", rest.pop("message", None)))
    tail = f": {printable(text, lines='trace' in line)}" if text is not None else ""
    fields = " ".join(f"{printable(k, 40)}={value(v, 200)}" for k, v in rest.items())
    return " ".join(part for part in (printable(line.get("event", "?"), 40), fields) if part) + tail
