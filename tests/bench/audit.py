"""Verifying long journals: 100,000 records in a folder and in an export of it, 10,000 on S3, whole processes.

The records are written by the journal's own code, without the store's flushes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agentrun.api.keys import StepKey
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import Record
from agentrun.store.open import open_store
from agentrun.store.side_by_side import each
from tests.bench.parts import ROOT, Parts, start_run
from tests.bench.table import Row, Series

RECORDS, RECORDS_S3 = 100_000, 10_000
SECONDS_BAR, MEMORY_BAR = 60.0, 200e6
KEY = StepKey("ask")


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for a folder, an export and S3: seconds, and the peak memory of the process."""
    stores = parts.stores()
    run = _grown(stores["folder"], RECORDS, here=True)
    seconds, peak = _verified(run.name, "--store", stores["folder"])
    yield Row(f"audit verify, {RECORDS:,} records in a folder", Series([seconds], "s"), bar=SECONDS_BAR)
    yield Row("  its peak memory", Series([peak], "MB"), bar=MEMORY_BAR)
    export = parts.new_folder() / "run.jsonl"
    with export.open("wb") as file:
        command = [*_AGENTRUN, "audit", "export", run.name, "--store", stores["folder"]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=file, stderr=subprocess.DEVNULL)
    seconds, peak = _verified(str(export))
    size = export.stat().st_size / 1e6
    yield Row(f"audit verify, its export of {size:.0f} MB", Series([seconds], "s"), bar=SECONDS_BAR)
    yield Row("  its peak memory", Series([peak], "MB"), bar=MEMORY_BAR)
    run = _grown(stores["S3"], RECORDS_S3, here=False)
    seconds, peak = _verified(run.name, "--store", stores["S3"])
    bar = SECONDS_BAR * RECORDS_S3 / RECORDS
    yield Row(f"audit verify, {RECORDS_S3:,} records on S3", Series([seconds], "s"), bar=bar)
    yield Row("  its peak memory", Series([peak], "MB"), bar=MEMORY_BAR)


def _grown(url: str, records: int, *, here: bool) -> RunPath:
    """A run whose step has so many records of some 1 KB."""
    store = open_store(url)
    run = start_run(store, [{"name": KEY.name, "agent": {"prompt": "Go on."}}])
    prefix = run.step(KEY)
    made: list[tuple[str, bytes]] = []
    before = ""
    for number in range(1, records + 1):
        body = {"results": [{"id": f"{number}-0", "tool": "look_up", "output": "x" * 900, "called": True}]}
        record, data = Record(str(run), KEY.path, 1, number, 1e9 + number, "result", body, before).sealed()
        before = record.hash
        made.append((entry(prefix, number), data))
    if here:
        Path(url, prefix).mkdir(parents=True)
        for key, data in made:
            Path(url, key).write_bytes(data)
    else:
        each(lambda one: store.create(*one), made, remote=True)
    return run


_AGENTRUN = [sys.executable, "-c", "import sys; from agentrun.cli.main import main; sys.exit(main())"]


def _verified(*words: str) -> tuple[float, float]:
    """Seconds, and the peak memory in bytes. ``wait4`` would count what this process had when it forked."""
    began, peak = time.perf_counter(), 0
    child = subprocess.Popen([*_AGENTRUN, "audit", "verify", *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.02)
    if child.returncode:
        raise RuntimeError(f"audit verify ended with {child.returncode}")
    return time.perf_counter() - began, peak * 1024.0
