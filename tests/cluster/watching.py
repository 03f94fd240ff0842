"""Follows objects of the API server with kubectl's watches, so that tests wait for a state instead of polling."""

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

    A watch that breaks (the API server restarts) starts again, without objects until it is connected. If the thread
    dies of an event that it does not understand, ``get``, ``all`` and ``wait`` raise FailedError: they would return
    stale objects for ever.
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
        """The object as it was last seen; None if there is none. Raises FailedError."""
        with self._changed:
            self._check()
            return self._objects.get((namespace, name))

    def all(self, namespace: str) -> list[Object]:
        """The objects of one namespace as they were last seen. Raises FailedError."""
        with self._changed:
            self._check()
            return self._of(namespace)

    def wait(self, what: str, seconds: float, test: Callable[[], T | None]) -> T:
        """Call ``test``, which reads from this object, after every change until its result is true; return the result.

        Raises:
            FailedError: ``test`` was not true within ``seconds``, or the watch died.

        """
        end = time.monotonic() + seconds
        with self._changed:
            while not (found := test()):
                self._check()
                left = end - time.monotonic()
                if left <= 0:
                    raise FailedError(f"{what} did not come within {seconds:g} s")
                # Some tests also read the clock or other things, so call them at least twice a second.
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
        except Exception as error:  # noqa: BLE001  (any error is raised by the other methods)
            with self._changed:
                self._died = error
                self._changed.notify_all()

    def _follow(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                self._objects.clear()  # no event tells of objects that were deleted in between
                self._process = self._access.watching(self.kind)
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                for line in lines:  # each line is a document
                    try:
                        event = json.loads(line)
                    except RecursionError:
                        continue  # a test's own hostile object; no test waits for such an object
                    if event["type"] == "ERROR":  # a Status such as Expired: the watch is over, and starts again
                        self._process.kill()
                        break
                    self._take(event)
            self._process.wait()
            time.sleep(0.2)  # without an API server, kubectl exits at once

    def _take(self, event: Object) -> None:
        found = event["object"]
        key = found["metadata"]["namespace"], found["metadata"]["name"]
        with self._changed:
            if event["type"] == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = found
            self._changed.notify_all()
