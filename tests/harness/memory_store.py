"""Stores in memory. At each call a test can lose the response, kill the caller, or let another thread run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentrun.store.protocol import KeyExists, KeyMissing, Keys, StoreUnavailable


class Crash(BaseException):
    """The process dies here. No code catches it."""


@dataclass
class MemoryStore:
    """A Store (see ``agentrun.store.protocol``) whose objects a test can read and change."""

    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    url: str = "memory"
    remote: bool = False

    def create(self, key: str, data: bytes) -> None:
        self.calls.append(("create", key))
        if key in self.objects:
            raise KeyExists(f"{key} exists")
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        self.calls.append(("get", key))
        if key not in self.objects:
            raise KeyMissing(f"there is no {key}")
        return self.objects[key]

    def list(self, prefix: str, after: str = "") -> Keys:
        self.calls.append(("list", prefix))
        return sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def children(self, prefix: str) -> Keys:
        return sorted({key[len(prefix) :].split("/")[0] for key in self.objects if key.startswith(prefix)})

    def read_version(self, key: str) -> tuple[bytes, str]:
        return self.get(key), str(hash(self.objects[key]))

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        now = str(hash(self.objects[key])) if key in self.objects else None
        if now != version:
            raise KeyExists(f"{key} was changed")
        self.objects[key] = data
        return str(hash(data))

    def probe(self) -> None:
        return None


@dataclass
class LossyStore(MemoryStore):
    """A store over ``under`` that loses responses: at the n-th create, counted from 0, the caller sees ``lost[n]``."""

    under: MemoryStore = field(default_factory=MemoryStore)
    lost: dict[int, str] = field(default_factory=dict)
    """By the number of the create: ``unavailable`` (but it was written), ``not written`` (unavailable, and it was not
    written), ``exists`` (it was written, and the client's own retry failed), or ``crash`` (after it was written).
    """
    count: int = 0

    def create(self, key: str, data: bytes) -> None:
        how = self.lost.get(self.count)
        self.count += 1
        if how == "not written":
            raise StoreUnavailable("the store does not answer")
        self.under.create(key, data)
        if how == "unavailable":
            raise StoreUnavailable("the store does not answer")
        if how == "exists":
            raise KeyExists(f"{key} exists")
        if how == "crash":
            raise Crash

    def get(self, key: str) -> bytes:
        return self.under.get(key)

    def list(self, prefix: str, after: str = "") -> Keys:
        return self.under.list(prefix, after)

    def children(self, prefix: str) -> Keys:
        return self.under.children(prefix)


class Scheduler:
    """Runs programs in threads, one at a time: each runs from one store call to its next.

    ``choose`` picks the next program among those that still run. So every execution is repeatable, and all executions
    can be enumerated.
    """

    def __init__(self, choose: Callable[[list[str]], str]) -> None:
        self._choose = choose
        self._turns: dict[str, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._local = threading.local()
        self.errors: dict[str, BaseException] = {}

    def point(self) -> None:
        """Wait for the program's turn. Does nothing outside of ``run``."""
        name = getattr(self._local, "name", None)
        if name is not None:
            self._back.release()
            self._turns[name].acquire()

    def run(self, programs: Mapping[str, Callable[[], Any]]) -> None:
        """Run all programs to their ends. ``errors`` has the exceptions that they raised."""
        self._turns = {name: threading.Semaphore(0) for name in programs}
        done: set[str] = set()

        def body(name: str, program: Callable[[], Any]) -> None:
            self._local.name = name
            self._turns[name].acquire()
            try:
                program()
            except BaseException as error:  # noqa: BLE001 - kept for the test, which checks all of them
                self.errors[name] = error
            done.add(name)
            self._back.release()

        threads = [threading.Thread(target=body, args=entry, daemon=True) for entry in programs.items()]
        for thread in threads:
            thread.start()
        while live := [name for name in programs if name not in done]:
            self._turns[self._choose(live) if len(live) > 1 else live[0]].release()
            self._back.acquire()
        for thread in threads:
            thread.join()


@dataclass
class ScheduledStore(LossyStore):
    """A store of which every call is a point of the scheduler."""

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(lambda live: live[0]))

    def create(self, key: str, data: bytes) -> None:
        self.scheduler.point()
        super().create(key, data)

    def get(self, key: str) -> bytes:
        self.scheduler.point()
        return super().get(key)

    def list(self, prefix: str, after: str = "") -> Keys:
        self.scheduler.point()
        return super().list(prefix, after)


@dataclass
class Choices:
    """One path through a tree of choices. ``every_path`` yields all paths, one after the other."""

    planned: list[int]
    widths: list[int] = field(default_factory=list)

    def __call__(self, live: list[str]) -> str:
        place = len(self.widths)
        self.widths.append(len(live))
        if place == len(self.planned):
            self.planned.append(0)
        return live[self.planned[place]]


def every_path() -> Iterator[Choices]:
    """Every sequence of choices, depth first. The loop's body must follow each path to its end."""
    planned: list[int] = []
    while True:
        path = Choices(planned)
        yield path
        planned = path.planned[: len(path.widths)]
        while planned and planned[-1] == path.widths[len(planned) - 1] - 1:
            planned.pop()
        if not planned:
            return
        planned[-1] += 1
