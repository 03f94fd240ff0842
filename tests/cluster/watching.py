"""What the API server has, as kubectl's watches tell it: tests wait for a state instead of asking again and again."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.cluster.access import Access
from tests.cluster.places import FailedError

T = TypeVar("T")
Object = dict[str, Any]


class Watched:
    """Every object of one kind in the whole cluster, kept up to date until ``close``.

    A watch that breaks (the API server restarts) begins anew, with nothing until it is there. One that dies of an event
    that it does not understand is an error of whoever asks it: it would go on with what it saw last for ever.
    """

    def __init__(self, access: Access, kind: str) -> None:
        self.kind = kind
        self._access = access
        self._changed = threading.Condition(threading.RLock())
        self._objects: dict[tuple[str, str], Object] = {}
        self._closed = False
        self._died: Exception | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._watch, name=f"watch of {kind}", daemon=True)
        self._thread.start()

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as it was last seen; ``None`` where there is none. Raises FailedError."""
        with self._changed:
            self._check()
            return self._objects.get((namespace, name))

    def all(self, namespace: str) -> list[Object]:
        """Those of one namespace, as they were last seen. Raises FailedError."""
        with self._changed:
            self._check()
            return self._of(namespace)

    def wait(self, what: str, seconds: float, test: Callable[[], T | None]) -> T:
        """Ask ``test``, which reads from here, after every change until it gives something; what it gave.

        Raises:
            FailedError: nothing came within ``seconds``, or the watch died.

        """
        end = time.monotonic() + seconds
        with self._changed:
            while not (found := test()):
                self._check()
                left = end - time.monotonic()
                if left <= 0:
                    raise FailedError(f"{what} did not come within {seconds:g} s")
                # Some tests look at the clock or at other things besides: they are asked twice a second.
                self._changed.wait(min(left, 0.5))
        return found

    def close(self) -> None:
        """End the watch."""
        with self._changed:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _of(self, namespace: str) -> list[Object]:
        return [found for (space, _), found in self._objects.items() if space == namespace]

    def _check(self) -> None:
        if self._died is not None:
            raise FailedError(f"the watch of {self.kind} died: {self._died!r}") from self._died

    def _watch(self) -> None:
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told to whoever asks)
            with self._changed:
                self._died = error
                self._changed.notify_all()

    def _follow(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                self._objects.clear()  # what was deleted in between is told by nobody
                self._process = self._access.watching(self.kind)
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                for line in lines:  # a document each
                    try:
                        event = json.loads(line)
                    except RecursionError:
                        continue  # a test's own poison: of no object like it does a test wait for anything
                    if event["type"] == "ERROR":  # a Status, such as Expired: the watch is over, and begins anew
                        self._process.kill()
                        break
                    self._take(event)
            self._process.wait()
            time.sleep(0.2)  # without an API server kubectl ends at once

    def _take(self, event: Object) -> None:
        found = event["object"]
        key = found["metadata"]["namespace"], found["metadata"]["name"]
        with self._changed:
            if event["type"] == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = found
            self._changed.notify_all()
