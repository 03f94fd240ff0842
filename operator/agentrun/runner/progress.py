"""The log of a step's process: one JSON line for each thing that happens, to standard error and to the store.

A line says what happened and never contains contents, which are in the journal. The store gets the log in parts, so
that it can be followed while the attempt runs and read after its process has ended.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from agentrun.api.canonical import timestamp
from agentrun.api.keys import StepKey
from agentrun.journal.paths import RunPath
from agentrun.store.protocol import Store, StoreError

FLUSH_EVERY = 2.0
"""Seconds between two parts, if there are new lines."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))


class Progress:
    """The log of one attempt. Lines from before ``attach`` are kept in memory until then."""

    hide: Callable[[str], str] = staticmethod(str)
    """Removes secrets from a line."""

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
        line = _ENCODER.encode({"at": timestamp(self._clock()), "event": event, **fields})
        line = self.hide(line)
        with self._lock:
            self._lines.append(line + "\n")
        try:
            print(line, file=sys.stderr, flush=True)
        except BrokenPipeError:
            # The reader of our standard error has died. The leash tells the attempt, and the store gets the lines.
            sys.stderr = open("/dev/null", "w")  # noqa: SIM115, PTH123

    def attach(self, store: Store, run: RunPath, key: StepKey, attempt: int) -> None:
        """From now on, write parts to the store, in a separate thread."""
        self._write = lambda part, data: store.create(run.log(key, attempt, part), data)
        threading.Thread(target=self._flush_often, daemon=True).start()

    def close(self) -> None:
        """Write the remaining lines. If the store cannot be reached, they are on standard error only: the step is not
        affected.
        """
        self._closed.set()
        self._flush()

    def _flush_often(self) -> None:
        while not self._closed.wait(FLUSH_EVERY):
            self._flush()

    def _flush(self) -> None:
        with self._flushing:
            with self._lock:  # released before the write: a slow store must not block logging
                if self._write is None or not self._lines:
                    return
                data, self._lines = "".join(self._lines).encode(), []
            self._part += 1
            try:
                self._write(self._part, data)
            except StoreError as error:
                print(json.dumps({"event": "log-lost", "message": str(error)}), file=sys.stderr, flush=True)
