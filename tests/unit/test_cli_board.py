from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

from rich.console import Console

from agentrun.api.facts import Usage
from agentrun.api.keys import StepKey
from agentrun.cli.terminal.board import Board, counts_of
from agentrun.cli.terminal.live import LiveBoard
from agentrun.journal.fold import Folded
from agentrun.plan.snapshot import Plan
from tests.harness.cli_store import USAGE, Scene

ESC = "\x1b]52;c;aGFjaw==\x07[bold]x[/bold]\u202e"


def planned(*entries: dict[str, Any]) -> Plan:
    return Plan((), {"steps": list(entries)}, None)


def board(lines: list[str], states: dict[StepKey, Folded] | None = None) -> Board:
    return Board(lines.append, lambda text: lines.append(f"! {text}"), counts=counts_of(states or {}))


def test_each_change_is_a_line_and_what_stays_is_none() -> None:
    lines: list[str] = []
    shown = board(lines)
    running = {"name": "a", "state": "Running"}
    shown.plan(planned({"name": "a", "state": "Pending"}, {"name": "b", "state": "Pending"}))
    shown.plan(planned(running, {"name": "b", "state": "Pending"}))
    shown.plan(
        planned(running, {"name": "b", "state": "Waiting", "waitingFor": {"approval": "b", "subjects": ["Go?"]}})
    )
    shown.plan(planned(running | {"attempt": 2}, {"name": "b", "state": "Skipped"}))
    failed = {"name": "a", "state": "Failed", "attempt": 2, "failure": {"class": "Tool", "message": "no"}}
    shown.plan(planned(failed, {"name": "b", "state": "Skipped"}))
    assert lines == [
        "a: Running",
        "b: Waiting: approval: Go?",
        "a: Running (attempt 2)",
        "b: Skipped",
        "a: Failed (attempt 2): no (Tool)",
    ]


def test_progress_counts_on_from_what_the_journal_holds() -> None:
    lines: list[str] = []
    shown = board(lines, {StepKey("a"): Folded(turns=3, usage=USAGE)})
    shown.line(StepKey("a"), {"event": "turn", "calls": ["look_up"], "usage": USAGE})
    shown.line(StepKey("a"), {"event": "result", "tools": ["look_up"]})
    shown.line(StepKey("a"), {"event": "intent", "tool": "pay"})
    shown.line(StepKey("a"), {"event": "turn", "calls": [], "usage": USAGE})
    shown.line(StepKey("a"), {"event": "output", "text": "Traceback"})
    assert lines == [
        "a: turn 4: calls look_up",
        "a: answered: look_up",
        "a: begins pay",
        "a: turn 5: answers",
        "! a: output: Traceback",
    ]
    assert shown.counts["a"].turns == 5 and shown.usage.tokens == 3 * Usage.from_json(USAGE).tokens


def drawn(shown: Board, height: int) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, height=height, markup=False, highlight=False)
    console.print(LiveBoard(shown, console))
    return file.getvalue()


def test_the_live_view_obeys_nothing_that_it_shows() -> None:
    shown = board([])
    waiting = {"approval": "a", "subjects": [ESC]}
    failure = {"class": "Tool", "message": ESC}
    shown.plan(
        planned(
            {"name": "a", "state": "Waiting", "waitingFor": waiting},
            {"name": "b", "state": "Failed", "failure": failure},
        )
    )
    text = drawn(shown, 20)
    assert "\x1b]" not in text and "\x07" not in text and "\u202e" not in text
    assert "[bold]x" in text


def test_of_many_steps_those_are_drawn_that_need_an_eye() -> None:
    shown = board([])
    entries = [{"name": f"s{n}", "state": "Succeeded"} for n in range(1000)]
    entries[700]["state"] = "OutcomeUnknown"
    shown.plan(planned(*entries))
    text = drawn(shown, 15)
    assert "s700" in text and "… and 990 more steps" in text
    assert len(text.splitlines()) < 15


def test_a_reader_that_has_seen_enough_is_no_error(scene: Scene) -> None:
    """As in ``agentrun show r1 | head``: quiet, and not with the code that says that the run failed."""
    scene.run()
    reads, writes = os.pipe()
    os.close(reads)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "AGENTRUN_STORE": str(scene.folder)}
    command = [sys.executable, "-m", "agentrun.cli", "show", "r1"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")
