"""Where a process can be struck: every call of a store, a model or a tool, counted over the whole run.

A call is known by its role (``driver``, or ``runner STEP``), its kind and its number among the calls of that role
and kind, over every process that played the role. Numbers are kept in the run's trace, a file that the processes
share, so that the successor of a killed process counts on and is not struck again.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentrun.api.values import JSON
from agentrun.runner.failures import Failure
from agentrun.runner.http_tool import HttpTool
from agentrun.runner.models import Item, ModelClient, Request, Turn
from agentrun.runner.tool_client import ToolOutput
from agentrun.store.protocol import KeyExists, Keys, Store, StoreError, StoreUnavailable


@dataclass(frozen=True)
class Point:
    """One call and a side of it. ``during``: after the other side wrote the request down, before it answers."""

    role: str
    kind: str
    number: int
    side: str
    what: str = ""

    def __str__(self) -> str:
        return f"{self.role} {self.kind}#{self.number} {self.side} ({self.what})"

    @classmethod
    def of(cls, line: dict[str, Any], side: str) -> Point:
        """The point at the call that a line of the trace tells of."""
        return cls(line["role"], line["kind"], line["number"], side, line["what"])


@dataclass(frozen=True)
class Strike:
    """What happens at a point.

    ``kill`` and ``stop`` are SIGKILL and SIGSTOP to the process itself, ``term`` is SIGTERM. ``lost``: the store
    did it, and the answer is lost; ``exists``: the store did it, lost the answer, tried again and met itself.
    """

    point: Point
    action: str = "kill"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Strike:
        value = json.loads(text)
        return cls(Point(**value["point"]), value["action"])


_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}


class Trace:
    """The calls of a run, one JSON line each, in the order in which they began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[dict[str, Any]]:
        with self.path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # a line that is being written can be seen in part
            return [json.loads(line) for line in file]

    def calls(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if "kind" in line]

    def fired(self) -> bool:
        """Whether the strike fell."""
        return any("fired" in line for line in self.lines())

    def fired_pid(self) -> int:
        """Which process was struck."""
        return int(next(line["pid"] for line in self.lines() if "fired" in line))

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        """Append a line; a call gets its number."""
        with self.path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if "kind" in line:
                same = [one for one in map(json.loads, file) if one.get("kind") == line["kind"]]
                line = line | {"number": 1 + sum(one["role"] == line["role"] for one in same)}
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(line) + "\n")
        return line


class Calls:
    """The calls of this process: traced, and struck where that is due."""

    def __init__(self, role: str, trace: Trace, strike: Strike | None) -> None:
        self._role, self._trace, self._strike = role, trace, strike

    @contextmanager
    def call(self, kind: str, what: str) -> Iterator[None]:
        """Around one call of the outside."""
        line = self._trace.add({"role": self._role, "kind": kind, "what": what, "pid": os.getpid()})
        self._reach(Point.of(line, "before"))
        try:
            yield
        except (StoreError, Failure):
            self._reach(Point.of(line, "after"))  # an answer as well
            raise
        self._reach(Point.of(line, "after"))

    def _reach(self, here: Point) -> None:
        if self._strike is None or not same_place(self._strike.point, here):
            return
        action = self._strike.action
        self._trace.add({"fired": str(here), "pid": os.getpid()})
        if action in _SIGNALS:
            # To this thread: a signal to the process may come to another one, and this one goes on until that one runs.
            signal.pthread_kill(threading.get_ident(), _SIGNALS[action])
        elif action == "lost":
            raise StoreUnavailable(f"{here}: the answer was lost")
        else:
            raise KeyExists(f"{here}: there is one already")


def same_place(one: Point, other: Point) -> bool:
    """Whether two points are the same call and side; what the call is about does not count."""
    return (one.role, one.kind, one.number, one.side) == (other.role, other.kind, other.number, other.side)


class TracedStore:
    """A store whose calls are points. Three kinds: ``log`` for what attempts log, since that goes by time as well;
    ``poll`` for the driver's look for news; ``store`` for the rest."""

    def __init__(self, store: Store, calls: Calls) -> None:
        self.url = store.url
        self.remote = store.remote
        self._store, self._calls = store, calls

    def create(self, key: str, data: bytes) -> None:
        with self._calls.call("log" if "/logs/" in key else "store", f"create {_short(key)}{_record(data)}"):
            self._store.create(key, data)

    def get(self, key: str) -> bytes:
        with self._calls.call("store", f"get {_short(key)}"):
            return self._store.get(key)

    def list(self, prefix: str, after: str = "") -> Keys:
        kind = "poll" if prefix.endswith("/events/") else "store"
        with self._calls.call(kind, f"list {_short(prefix)}"):
            return self._store.list(prefix, after)

    def children(self, prefix: str) -> Keys:
        with self._calls.call("store", f"children {_short(prefix)}"):
            return self._store.children(prefix)

    def read_version(self, key: str) -> tuple[bytes, str]:
        with self._calls.call("store", f"read {_short(key)}"):
            return self._store.read_version(key)

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        with self._calls.call("store", f"swap {_short(key)}"):
            return self._store.swap(key, data, version)

    def probe(self) -> None:
        self._store.probe()


class TracedModel:
    """A model whose calls are points."""

    def __init__(self, model: ModelClient, calls: Calls) -> None:
        self._model, self._calls = model, calls
        self.api = model.api

    def user(self, text: str) -> Item:
        return self._model.user(text)

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        return self._model.tool_result(call_id, name, output)

    async def ask(self, request: Request) -> Turn:
        with self._calls.call("model", f"{len(request.history)} items"):
            return await self._model.ask(request)

    async def close(self) -> None:
        await self._model.close()


class TracedTool(HttpTool):
    """A tool whose calls are points."""

    calls: Calls

    async def call(
        self,
        args: dict[str, JSON],
        about: Mapping[str, JSON] | None = None,
        *,
        idempotency_key: str | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> ToolOutput:
        with self.calls.call("tool", self._tool.name):
            return await super().call(args, about, idempotency_key=idempotency_key, before_send=before_send)


def _short(key: str) -> str:
    """A key without its run."""
    return "/".join(key.split("/")[2:]) or key


def _record(data: bytes) -> str:
    """The kind of the record in ``data``, for the name of a point."""
    try:
        value = json.loads(data)
    except ValueError:
        return ""
    return f" {value['kind']}" if isinstance(value, dict) and "kind" in value else ""
