"""The operator on a real API server and etcd, with a stand-in for nodes that marks pods Succeeded at once.

    python -m tests.bench operator [--quick] [--profile FOLDER]

All of it shares this machine's cores, so figures are to be read beside those of the floor, which ran in the same
minute: the smallest operator on kopf that makes the same writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.operator import memory, rig, throughput
from tests.bench.parts import Parts
from tests.bench.table import Row

STEPS = 1000
CHAINS = 100
RUNS = 5000
QUICK = 10
"""By how much less a quick look measures, to see that everything can be measured."""


def measure(parts: Parts, *, quick: bool = False, profile: Path | None = None) -> Iterator[Row]:
    """Rows for throughput, latency, writes, memory and resync.

    ``profile``: a folder for what the operator's CPU went to, a file for each of its starts; it slows the operator.
    Raises MissingError, FailedError where the cluster's programs cannot be had or do not start.
    """
    scale = QUICK if quick else 1
    with rig.running(parts, profile) as running:
        yield from throughput.measure(running, STEPS // scale)
        yield from throughput.latency(running, CHAINS // scale)
        yield from memory.measure(running, RUNS // scale)
