"""From the start of a step's process to its first model request, beside the smallest script that sends one.

Both are timed from just before the process is spawned until the request is in the server's ledger. The runner is
given the first attempt of a run that exists; the script for S3 lists a prefix and puts an object first, which is the
least that a journal there can do. Both import from warm bytecode.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.parts import ModelServer, Parts, agent_run, runner
from tests.bench.table import Row, Series, ratios

PAIRS = 9
BAR = 1.15
SCRIPTS = Path(__file__).parent / "scripts"


def measure(parts: Parts) -> Iterator[Row]:
    """A row for each kind of store."""
    with parts.model([{"text": "hello"}]) as model:
        for name, url in parts.stores().items():
            ours, theirs = [], []
            for pair in range(PAIRS + 1):
                times = (
                    _first_request(model, *runner(agent_run(url))),
                    _first_request(model, _script(url), os.environ),
                )
                if pair:  # the first one compiled the bytecode and warmed the disk's cache
                    ours.append(times[0])
                    theirs.append(times[1])
            yield Row(
                f"runner, start to first model request, {name}",
                Series(ours, "s"),
                Series(theirs, "s"),
                "smallest script",
                ratios(ours, theirs),
                BAR,
            )


def _script(url: str) -> list[str]:
    if not url.startswith("s3://"):
        return [sys.executable, str(SCRIPTS / "ask.py")]
    bucket = url.split("/")[2]
    return [sys.executable, str(SCRIPTS / "ask_with_s3.py"), bucket, f"scripts/{uuid.uuid4().hex}"]


def _first_request(model: ModelServer, command: list[str], environment: Mapping[str, str]) -> float:
    """Seconds from the start of ``command`` to its first request; it has to succeed."""
    before = len(model.arrivals())
    began = time.time()
    subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return model.arrivals()[before] - began
