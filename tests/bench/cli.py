"""How long a person waits for the commands that do no work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from resource import RUSAGE_CHILDREN, getrusage

from tests.bench.parts import ROOT, Parts
from tests.bench.table import Row, Series

REPEATS = 15
BAR = 0.3
COMMANDS = {
    "agentrun --help": ["--help"],
    "agentrun validate, a small file": ["validate", "examples/refund/refund.yaml"],
}


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for each command, whole processes: by the clock beside an interpreter that does nothing, and their CPU."""
    program = "import sys; from agentrun.cli.main import main; sys.exit(main())"
    for name, arguments in COMMANDS.items():
        ours, bare = [], []
        for turn in range(REPEATS + 1):
            times = _timed(["-c", program, *arguments]), _timed(["-c", "pass"])
            if turn:  # the first one compiled the bytecode
                ours.append(times[0])
                bare.append(times[1])
        clock, cpu = zip(*ours, strict=True)
        idle_clock, idle_cpu = zip(*bare, strict=True)
        yield Row(name, Series(clock, "ms"), Series(idle_clock, "ms"), "python -c pass", bar=BAR)
        # One thread does all of it, so this is what the clock would say on a machine that nobody shares.
        yield Row("  its CPU", Series(cpu, "ms"), Series(idle_cpu, "ms"), "python -c pass")


def _timed(arguments: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    before, began = _cpu(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began, _cpu() - before


def _cpu() -> float:
    spent = getrusage(RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
