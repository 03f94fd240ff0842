"""Resuming a long step: what the next attempt waits for before it goes on.

One journal grows on S3 to 2,000 turns of about 1 KB, each with a tool result of about 1 KB, through the runtime's own
``StepLog.append`` with its checkpoints. At 250, 500, 1,000 and 2,000 turns it is resumed as an attempt does it: list,
read what stands from the last checkpoint on, check every hash, fold, append ``opened``. At 1,000 turns the runner's
process is started on it too, until its next model request, with the whole history in it, reaches the server; then
it is killed, which also proves that the log can be taken over from a process that died.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from agentrun.api.facts import Usage
from agentrun.api.keys import StepKey
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import Folded, apply, checkpoint, fold
from agentrun.journal.log import StepLog, open_step, read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.records.step_records import Kind
from agentrun.store.open import open_store
from agentrun.store.protocol import Store
from tests.bench.parts import ModelServer, Parts, first_start, runner, start_run
from tests.bench.table import Row, Series

SIZES = (250, 500, 1_000, 2_000)
AT_PROCESS = 1_000
REPEATS = 5
RESUME_BAR = 2.0
MEMORY_BAR = 150e6
GROWTH_BAR = 2.5
"""Twice the turns: 2 is linear, and a disturbed measurement is not yet a square."""

KEY = StepKey("ask")
WHO = {"writer": "bench", "process": {}, "version": "0", "allowance": {}}


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for the resume in this process, the runner's process, its memory, and the fold alone."""
    url = parts.stores()["S3"]
    store = open_store(url)
    agent = {"prompt": "Go on.", "maxTurns": 10_000}
    run = start_run(store, [{"name": KEY.name, "agent": agent}])
    spec = first_start(store, run)
    journal = _Journal(store, run)
    resumes: dict[int, list[float]] = {}
    with parts.model([{"text": "done", "latency": 600}]) as model:
        for size in SIZES:
            journal.grow(size)
            resumes[size] = [journal.resume() for _ in range(REPEATS)]
            if size == AT_PROCESS:
                process = [
                    _in_process(model, replace(spec, start=replace(spec.start, attempt=journal.next())))
                    for _ in range(3)
                ]
    yield Row(f"resume {AT_PROCESS} turns, S3, without the process", Series(resumes[AT_PROCESS], "s"), bar=RESUME_BAR)
    yield Row(
        f"resume {AT_PROCESS} turns, S3, start of process to model request",
        Series([seconds for seconds, _ in process], "s"),
        bar=RESUME_BAR,
    )
    yield Row("  peak memory of that process", Series([size for _, size in process], "MB"), bar=MEMORY_BAR)
    others = ", ".join(f"{size}: {median(found) * 1e3:.0f} ms" for size, found in resumes.items())
    yield Row(
        f"resume {SIZES[-1]} turns against {SIZES[-2]}",
        Series(resumes[SIZES[-1]], "s"),
        Series(resumes[SIZES[-2]], "s"),
        f"({others})",
        Series([median(resumes[SIZES[-1]]) / median(resumes[SIZES[-2]])], "×"),
        GROWTH_BAR,
    )
    yield _folding([r for r in read_step(store, run, KEY, whole=True) if r.kind in (Kind.TURN, Kind.RESULT)])


class _Journal:
    """A step's log that grows as an agent's does."""

    def __init__(self, store: Store, run: RunPath) -> None:
        self._store, self._run = store, run
        self._attempt = 0
        self.log: StepLog
        self.state: Folded
        self.resume()

    def next(self) -> int:
        """The number of the next attempt."""
        self._attempt += 1
        return self._attempt

    def resume(self) -> float:
        """Seconds that a new attempt takes to open the log and fold it."""
        attempt = self.next()
        began = time.perf_counter()

        def opened(before: list[Record]) -> dict[str, Any]:
            return WHO | ({} if before else {"task": {"prompt": "Go on."}})

        self.log, records = open_step(self._store, self._run, KEY, attempt, opened, time.time, checkpoint=checkpoint)
        self.state = fold(records)
        return time.perf_counter() - began

    def grow(self, turns: int) -> None:
        """Append turns until there are ``turns`` of them, where a process may have opened the log meanwhile."""
        self.resume()
        while self.state.turns < turns:
            self._commit(Kind.TURN, _turn(self.state.turns))
            self._commit(Kind.RESULT, _result(self.state.turns - 1))
        if self.state.turns != turns or len(self.state.history) != 2 * turns:
            raise RuntimeError(f"the fold has {self.state.turns} turns and {len(self.state.history)} entries")

    def _commit(self, kind: Kind, body: dict[str, Any]) -> None:
        if self.log.checkpoint_due:
            state = {"reason": "checkpoint", "state": self.state.to_json()}
            apply(self.state, self.log.append(Kind.COMPACTED, state))
        apply(self.state, self.log.append(kind, body))


def _turn(number: int) -> dict[str, Any]:
    call = f"call_{number}"
    args = {"query": f"part {number} " + "of the harbour " * 20}
    items = [
        {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "q" * 400},
        {"type": "function_call", "id": f"fc_{number}", "call_id": call, "name": "look", "arguments": json.dumps(args)},
    ]
    usage = Usage(1, 1_000, 900, 60).to_json()
    calls = [{"id": f"{number}-0", "callId": call, "name": "look", "args": args}]
    return {"items": items, "calls": calls, "text": None, "usage": usage, "refusal": None, "incomplete": None}


def _result(number: int) -> dict[str, Any]:
    found = {"id": f"{number}-0", "callId": f"call_{number}", "tool": "look", "output": "x" * 1_000, "called": True}
    return {"results": [found]}


def _in_process(model: ModelServer, spec: AttemptSpec) -> tuple[float, float]:
    """Seconds until the runner's model request arrives, and the most memory in bytes that it had by then."""
    before = len(model.arrivals())
    command, environment = runner(spec)
    began = time.monotonic()
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while len(model.arrivals()) == before:
        if child.poll() is not None:
            raise RuntimeError(f"the runner ended with {child.returncode}: {child.communicate()[1].decode()[-2000:]}")
        time.sleep(0.01)  # no event tells when another process appends to a file
    seconds = time.monotonic() - began
    peak = _peak(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stderr is not None
    child.stderr.close()
    return seconds, peak


def _peak(pid: int) -> int:
    """Bytes of memory that the process had at most (proc(5)); its resource usage would count ours at the fork."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kib * 1024


def _folding(records: list[Record]) -> Row:
    """The fold alone, in memory, over all turns without a checkpoint."""
    times = {}
    for size in SIZES:
        found = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            fold(records[: 2 * size])
            found.append(time.perf_counter() - began)
        times[size] = found
    others = ", ".join(f"{size}: {median(found) * 1e3:.1f} ms" for size, found in times.items())
    last, before = times[SIZES[-1]], times[SIZES[-2]]
    ratio = Series([median(last) / median(before)], "×")
    what = f"fold {SIZES[-1]} turns against {SIZES[-2]}, no checkpoint"
    return Row(what, Series(last, "ms"), Series(before, "ms"), f"({others})", ratio, GROWTH_BAR)
