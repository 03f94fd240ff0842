"""How long a person waits for the commands that do no work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.parts import ROOT, Parts
from tests.bench.table import Row, Series, ratios

REPEATS = 15
BAR = 0.3
COMMANDS = {
    "agentrun --help": ["--help"],
    "agentrun validate, a small file": ["validate", "examples/refund/refund.yaml"],
}


def measure(parts: Parts) -> Iterator[Row]:
    """A row for each command, whole processes, beside an interpreter that does nothing."""
    program = "import sys; from agentrun.cli.main import main; sys.exit(main())"
    for name, arguments in COMMANDS.items():
        ours, bare = [], []
        for turn in range(REPEATS + 1):
            times = _timed(["-c", program, *arguments]), _timed(["-c", "pass"])
            if turn:
                ours.append(times[0])
                bare.append(times[1])
        yield Row(name, Series(ours, "ms"), Series(bare, "ms"), f"python -c pass ({ratios(ours, bare).median:.0f} ×)", bar=BAR)


def _timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began
