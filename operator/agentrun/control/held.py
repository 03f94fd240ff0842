"""The live runs in memory, within a bound of bytes. Beyond it, the runs that have rested longest are dropped, and
loaded from their journals when they are visited again.

Dropping a run loses nothing: a change of leader does it to all runs. Only runs at rest are dropped: no visit is under
way, and the run has no pod and waits for none. The number of other runs is bounded by the places for pods.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentrun.api.facts import StepFact
from agentrun.api.footprint import footprint
from agentrun.control.run_state import RunState
from agentrun.control.views import RunRef

HELD_MAX: Final = 256 * 1024 * 1024
"""Bytes that live runs may take in memory: a quarter of the chart's limit, and some 30,000 runs of the usual size."""

_BASE, _RECORD, _FACT = 2000, 1000, 2000
"""Bytes of a live run, of a record of its log and of the fact of a step, without the values in them."""

_LITTLE: Final = 64 * 1024
"""Bytes by which the outputs of a run may grow, beside a quarter, before its size is computed again."""


class Held:
    """See the module. ``most`` is the bound in bytes."""

    def __init__(self, most: int = HELD_MAX) -> None:
        self._most = most
        self._runs: dict[RunRef, RunState] = {}
        self._resting: OrderedDict[RunRef, None] = OrderedDict()
        """The runs that may be dropped, the longest resting first."""
        self._bytes: dict[RunRef, tuple[int, int, int]] = {}
        """Of each run: its bytes without its program, the number of records and facts in that, the bytes of outputs."""
        self._programs: Counter[int] = Counter()
        """The number of runs that share each program, by its ``id()``: the program lives as long as they do."""
        self.bytes = 0

    def get(self, ref: RunRef) -> RunState | None:
        """The live run, if it is in memory."""
        return self._runs.get(ref)

    def __getitem__(self, ref: RunRef) -> RunState:
        return self._runs[ref]

    def __contains__(self, ref: RunRef) -> bool:
        return ref in self._runs

    def __iter__(self) -> Iterator[RunState]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, ref: RunRef, live: RunState) -> RunState:
        """Add a run that was opened, in place of an earlier one of that name."""
        self.pop(ref)
        self._runs[ref] = live
        self._bytes[ref] = (0, 0, 0)
        program = id(live.pinned.program)
        self._programs[program] += 1
        if self._programs[program] == 1:
            self.bytes += live.program_bytes
        return live

    def pop(self, ref: RunRef) -> RunState | None:
        """Drop a run from memory."""
        live = self._runs.pop(ref, None)
        if live is None:
            return None
        self._resting.pop(ref, None)
        self.bytes -= self._bytes.pop(ref)[0]
        program = id(live.pinned.program)
        self._programs[program] -= 1
        if not self._programs[program]:
            del self._programs[program]
            self.bytes -= live.program_bytes
        return live

    def clear(self) -> None:
        """Drop all runs."""
        for ref in list(self._runs):
            self.pop(ref)

    @contextmanager
    def visited(self, ref: RunRef) -> Iterator[None]:
        """Surround a visit, during which the run is not dropped."""
        self._resting.pop(ref, None)
        try:
            yield
        finally:
            live = self._runs.get(ref)
            if live is not None:
                self._weigh(ref, live)
                if live.at_rest:
                    self._resting[ref] = None
            while self.bytes > self._most and self._resting:
                self.pop(next(iter(self._resting)))

    def _weigh(self, ref: RunRef, live: RunState) -> None:
        """Compute the size of a run once it has grown by a quarter, so that the cost is in proportion to the growth."""
        before, counted, outputs = self._bytes[ref]
        count = len(live.log.records) + len(live.facts)
        if before and count <= 1.25 * counted + 4 and live.outputs.bytes <= 1.25 * outputs + _LITTLE:
            return
        size = _BASE + _RECORD * len(live.log.records) + _FACT * len(live.facts)
        size += sum(map(live.footprint_of, live.log.records))
        size += live.outputs.bytes + sum(map(_asked, live.facts.values()))
        size += sum(footprint(value) for key, value in live.pinned.manifest.items() if key != "workflow")
        self.bytes += size - before
        self._bytes[ref] = size, count, live.outputs.bytes


def _asked(fact: StepFact) -> int:
    """Bytes of the questions of a step: its approvals, and the call whose outcome is unknown."""
    questions = sum(footprint(request.details) + len(request.subject) for request in fact.approvals)
    return questions + (footprint(fact.unknown.args) if fact.unknown is not None else 0)
