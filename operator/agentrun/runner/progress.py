"""What a step's process logs: one JSON line for each thing that happens, to standard error and into the store.

Lines say what happened, never what was said: contents stand in the journal. In the store they come in parts, so
that a log can be followed while the attempt runs and read when its process is long gone.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from agentrun.api.canonical import timestamp
from agentrun.api.facts import StepKey
from agentrun.journal.layout import RunPath
from agentrun.store.protocol import Store, StoreError

FLUSH_EVERY = 2.0
"""Seconds between parts while there is something new."""


class Progress:
    """A log of one attempt. Lines from before ``attach`` wait for it."""

    hide: Callable[[str], str] = staticmethod(str)
    """Takes secrets out of a line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._part = 0
        self._write: Callable[[int, bytes], None] | None = None
        self._closed = threading.Event()

    def __call__(self, event: str, **fields: Any) -> None:
        """Log one line."""
        line = json.dumps({"at": timestamp(self._clock()), "event": event, **fields}, separators=(",", ":"))
        line = self.hide(line)
        with self._lock:
            self._lines.append(line + "\n")
        try:
            print(line, file=sys.stderr, flush=True)
        except BrokenPipeError:
            # Whoever read our standard error is gone; the leash tells the attempt, and the store has the lines.
            sys.stderr = open("/dev/null", "w")  # noqa: SIM115, PTH123

    def attach(self, store: Store, run: RunPath, key: StepKey, attempt: int) -> None:
        """From now on write parts to the store, in a thread of its own."""
        self._write = lambda part, data: store.create(run.log(key, attempt, part), data)
        threading.Thread(target=self._flush_often, daemon=True).start()

    def close(self) -> None:
        """Write what is left. A store that is out of reach costs the lines, which standard error has, not the step."""
        self._closed.set()
        self._flush()

    def _flush_often(self) -> None:
        while not self._closed.wait(FLUSH_EVERY):
            self._flush()

    def _flush(self) -> None:
        with self._flushing:
            with self._lock:  # and not while it is written: a slow store must not hold up who logs
                if self._write is None or not self._lines:
                    return
                data, self._lines = "".join(self._lines).encode(), []
            self._part += 1
            try:
                self._write(self._part, data)
            except StoreError as error:
                print(json.dumps({"event": "log-lost", "message": str(error)}), file=sys.stderr, flush=True)
