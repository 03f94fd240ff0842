"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from tests.bench import audit, cli, driver, operator, planner, pods, resume, startup, turn
from tests.bench.parts import ROOT, Parts
from tests.bench.table import Row, show
from tests.servers import versitygw

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the S3 server keeps its files: no disk of this machine's is measured in its place."""

MEASUREMENTS: dict[str, Callable[[Parts], Iterator[Row]]] = {
    "startup": startup.measure,
    "cli": cli.measure,
    "turn": turn.measure,
    "plan": planner.measure,
    "resume": resume.measure,
    "audit": audit.measure,
    "driver": driver.measure,
    "operator": operator.measure,
    "pods": pods.measure,
}


def main() -> int:
    """Measure; 1 where something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the runtime costs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="operator: a tenth of the load, to see that it works")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="operator: leave a cProfile of each start there")
    given = parser.parse_args()
    names = given.names or list(MEASUREMENTS)
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    if given.profile is not None:
        given.profile.mkdir(parents=True, exist_ok=True)
        given.profile = given.profile.resolve()
    measurements = MEASUREMENTS | {
        "operator": functools.partial(operator.measure, quick=given.quick, profile=given.profile)
    }
    console = Console()
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=MEMORY) as s3:
        folder = Path(name)
        with versitygw.running(Path(s3)) as server:
            os.environ.update(server.environment(folder / "nowhere"))
            os.environ.update(
                {"OPENAI_API_KEY": "bench", "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}
            )
            parts = Parts(folder, server)
            for measurement in names:
                began = time.monotonic()
                try:
                    rows.extend(measurements[measurement](parts))
                except Exception:  # noqa: BLE001  (shown, and the exit code says so: the others are worth having)
                    failed.append(measurement)
                    traceback.print_exc()
                console.print(f"{measurement}: {time.monotonic() - began:.0f} s", style="dim")
    show(rows, console)
    missed = sum(row.met is False for row in rows)
    console.print(f"S3 is {server.kind}. Bars: {sum(row.met is True for row in rows)} met, {missed} missed.")
    if failed:
        console.print(f"could not be measured: {', '.join(failed)}", style="red")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
