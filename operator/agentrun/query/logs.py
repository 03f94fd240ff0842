"""What the processes of a run logged, as far as their logs have reached the store, part by part."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from agentrun.api.facts import StepKey
from agentrun.journal.layout import RunPath
from agentrun.journal.run import is_step
from agentrun.query.run_view import wanted
from agentrun.store.protocol import Store

LogLine = tuple[str, StepKey, dict[str, Any] | str]
"""A line of a log: its time, which lines sort by; its step; and what it says."""

_PART = re.compile(r"/[0-9]+\.[0-9]+\.log$")


def new_lines(
    store: Store,
    run: RunPath,
    only: StepKey | None,
    seen: set[str],
    elsewhere: Collection[tuple[str, int]] = (),
) -> list[LogLine]:
    """Every line of the parts that are not in ``seen``, which gets them.

    Attempts (``StepKey.path`` and number) that are in ``elsewhere`` are left out.
    """
    found: list[LogLine] = []
    for name in filter(is_step, store.children(run.logs())):
        key = StepKey.parse(name)
        if not wanted(key, only):
            continue
        at = ""
        for part in filter(_PART.search, store.list(run.logs(key))):
            if part in seen or (name, int(part.rpartition("/")[2].partition(".")[0])) in elsewhere:
                continue
            seen.add(part)
            for text in store.get(part).decode(errors="replace").splitlines():
                line = parsed(text)
                at = str(line.get("at", at)) if isinstance(line, dict) else at
                found.append((at, key, line))
    return found


def parsed(text: str) -> dict[str, Any] | str:
    """A line as an object; the text itself where it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return line if isinstance(line, dict) else text
