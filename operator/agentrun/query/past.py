"""The records of a run's journal, for views that need more than the status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agentrun.api.keys import StepKey
from agentrun.journal.fold import Folded
from agentrun.journal.log import read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.query.run_view import wanted
from agentrun.query.timeline import Line, timeline
from agentrun.store.protocol import Store


@dataclass(frozen=True, slots=True)
class Past:
    """The records of a run, or of some of its steps; empty if the journal cannot be read."""

    states: dict[StepKey, Folded] = field(default_factory=dict)
    records: dict[StepKey, list[Record]] = field(default_factory=dict)
    events: list[Record] = field(default_factory=list)

    def lines(self, only: StepKey | None) -> list[Line]:
        """The timeline of the run, or of the step ``only``."""
        found = timeline(self.records, self.events)
        return [line for line in found if only is None or (line.step and wanted(StepKey.parse(line.step), only))]


def records_of(
    store: Store, run: RunPath, keys: Iterable[StepKey], only: StepKey | None
) -> dict[StepKey, list[Record]]:
    """All records of the steps that ``only`` selects, sorted by step. Raises Damaged, StoreError."""
    found = (key for key in sorted(keys, key=lambda k: (k.name, k.index or 0, k.compensate)) if wanted(key, only))
    return {key: read_step(store, run, key, whole=True) for key in found}
