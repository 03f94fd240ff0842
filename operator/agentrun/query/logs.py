"""Reads the logs of a run's processes from the store. A process uploads its log in parts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from agentrun.api.keys import StepKey
from agentrun.journal.paths import RunPath
from agentrun.journal.runs import is_step
from agentrun.query.run_view import wanted
from agentrun.store.protocol import Store

LogLine = tuple[str, StepKey, dict[str, Any] | str]
"""A line of a log: its time (the sort key), its step, and its content."""

_PART = re.compile(r"/[0-9]+\.[0-9]+\.log$")


def new_lines(
    store: Store,
    run: RunPath,
    only: StepKey | None,
    seen: set[str],
    elsewhere: Collection[tuple[str, int]] = (),
) -> list[LogLine]:
    """The lines of all parts that are not in ``seen``. Adds those parts to ``seen``.

    Attempts in ``elsewhere`` (``StepKey.path`` and number) are left out.
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
    """The line as an object, or the text itself if it is not a JSON object."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return line if isinstance(line, dict) else text
