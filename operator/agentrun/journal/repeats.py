"""The ``Once`` calls of a run that a fork of it may make a second time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from agentrun.api.canonical import timestamp
from agentrun.api.keys import StepKey
from agentrun.journal.log import read_step
from agentrun.journal.paths import RunPath
from agentrun.records.step_records import Kind
from agentrun.store.protocol import Store
from agentrun.workflow.program import Program

_SHOWN = 200
"""Characters of a call's arguments that a sentence shows."""


def repeated_calls(
    store: Store, source: RunPath, program: Program, keys: Iterable[StepKey], at: StepKey, seq: int | None
) -> Iterator[str]:
    """A sentence for every ``Once`` call that the source began in the steps ``keys`` and that the fork may make again.
    Of the step ``at``, only the calls after record ``seq`` count.

    Raises:
        Damaged, StoreError: the source cannot be read.
    """
    names = [*program.steps, *program.finally_]
    for key in sorted(keys, key=lambda k: (names.index(k.name), k.index or 0)):
        if key.compensate:
            continue
        records = read_step(store, source, key, whole=True)
        for place, record in enumerate(records):
            after: Any = next((r.body for r in records[place + 1 :] if r.kind in (Kind.RESULT, Kind.INTENT)), {})
            if record.kind != Kind.INTENT or "undone" in after or (key == at and record.seq <= (seq or 0)):
                continue
            args = json.dumps(record.body["args"])
            args = args if len(args) <= _SHOWN else args[:_SHOWN] + "…"
            yield (
                f"{key.label}: run {source.name} called {record.body['tool']}({args}) at {timestamp(record.at)[:19]}Z; "
                "this run may call it again"
            )
