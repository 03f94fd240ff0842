"""Writes runs into a store with the journal's own functions, for tests of the command line."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from agentrun.api.canonical import digest_of, timestamp
from agentrun.api.facts import Usage
from agentrun.api.keys import StepKey
from agentrun.api.workflow import WorkflowSpec
from agentrun.journal.log import EventLog, StepLog
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.journal.runs import create_run
from agentrun.records.manifest import RunManifest
from agentrun.records.step_records import Kind
from agentrun.store.folder import FolderStore

LOOK_UP = {"name": "look_up", "effect": "ReadOnly", "http": {"method": "GET", "url": "http://127.0.0.1:1/x"}}
PAY = {"name": "pay", "effect": "Once", "http": {"url": "http://127.0.0.1:1/pay"}}
REFUND: dict[str, Any] = {
    "inputs": {"type": "object", "properties": {"order": {"type": "string"}, "items": {"type": "integer"}}},
    "models": [
        {"name": "main", "model": "m"},
        {"name": "other", "model": "o"},
        {"name": "chat", "model": "c", "api": "chat"},
    ],
    "defaults": {"model": "main"},
    "tools": [LOOK_UP, PAY],
    "steps": [
        {"name": "triage", "agent": {"prompt": "Order ${inputs.order}", "tools": ["look_up", "pay"]}},
        {
            "name": "sign-off",
            "dependsOn": ["triage"],
            "approval": {"subject": "Refund?", "approvers": {"groups": ["finance"]}},
        },
        {"name": "refund", "dependsOn": ["sign-off"], "tool": {"name": "pay", "args": {"amount": 5}}},
    ],
    "finally": [{"name": "note", "wait": {"signal": "noted"}}],
}
PEOPLE: dict[str, Any] = {
    "steps": [
        {"name": "ask", "approval": {"subject": "Go?", "approvers": {"groups": ["ops"]}, "required": 2}},
        {"name": "shipped", "dependsOn": ["ask"], "wait": {"signal": "shipped"}},
    ]
}
USAGE = Usage(1, 100, 20, 10).to_json()
DEAD = {"host": "elsewhere", "place": "", "pid": 1, "started": 1}


@dataclass
class Scene:
    """A store, and functions that write runs into it."""

    folder: Path
    store: FolderStore = field(init=False)
    now: float = field(default_factory=lambda: time.time() - 60)
    """The time of the last record. It stays behind the reader's clock: a reader would take a future time as now."""

    def __post_init__(self) -> None:
        self.store = FolderStore(self.folder)

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    def run(self, name: str = "r1", workflow: dict[str, Any] = REFUND, **changes: Any) -> RunPath:
        """Create a run."""
        pinned = WorkflowSpec.model_validate(workflow).model_dump(mode="json", by_alias=True, exclude_unset=True)
        manifest: dict[str, Any] = {
            "v": 1,
            "name": name,
            "namespace": "default",
            "uid": uuid.uuid4().hex,
            "createdAt": timestamp(self.clock()),
            "requestedBy": "ana",
            "workflow": pinned,
            "workflowDigest": digest_of(pinned),
            "inputs": {"order": "4711"},
            "budget": {},
            "timeout": None,
            "suspend": False,
            "cancel": False,
            "source": None,
            "labels": {},
        }
        return create_run(self.store, cast("RunManifest", manifest | changes))

    def step(self, run: RunPath, label: str, *records: tuple[str, dict[str, Any]], task: Any = None) -> list[Record]:
        """Write an attempt of a step, with these records after ``opened``."""
        key = StepKey.parse(label)
        nothing = Record(str(run), key.path, 0, 0, 0.0, "", {}, "")
        log = StepLog(self.store, run, key, 1, nothing, self.clock)
        opened = {"writer": uuid.uuid4().hex, "process": DEAD, "task": task or {"prompt": "Order 4711"}}
        return [log.append(Kind.OPENED, opened), *(log.append(Kind(kind), body) for kind, body in records)]

    def event(self, run: RunPath, kind: str, **body: Any) -> None:
        """Append an event to the run."""
        log = EventLog(self.store, run, self.clock)
        log.refresh()
        log.append(kind, body)

    def events(self, run: RunPath, kind: str) -> list[dict[str, Any]]:
        """The bodies of the run's events of that kind."""
        log = EventLog(self.store, run, self.clock)
        log.refresh()
        return [record.body for record in log.records if record.kind == kind]


def turn(text: str | None = None, *calls: tuple[str, dict[str, Any]], number: int = 1) -> tuple[str, dict[str, Any]]:
    asked = [
        {"id": f"{number}-{n}", "callId": f"c{n}", "name": name, "args": args} for n, (name, args) in enumerate(calls)
    ]
    body = {"items": [], "calls": asked, "text": text, "usage": USAGE, "refusal": None, "incomplete": None}
    return "turn", body | {"responseId": uuid.uuid4().hex, "model": "m", "seconds": 0.5}


def result(identity: str, tool: str, output: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "result", {
        "results": [{"id": identity, "callId": "c0", "tool": tool, "output": output, "called": True, **more}]
    }


def intent(identity: str = "call") -> tuple[str, dict[str, Any]]:
    return "intent", {"id": identity, "tool": "pay", "args": {"amount": 5}, "key": "k"}


def unknown(identity: str = "call") -> tuple[str, dict[str, Any]]:
    found = {"callId": identity, "tool": "pay", "args": {"amount": 5}, "message": "no answer is known"}
    return "waiting", {"unknown": found}


def closed(output: Any = None, outcome: str = "Succeeded") -> tuple[str, dict[str, Any]]:
    return "closed", {"outcome": outcome, "output": output}


def request(
    subject: str, *, digest: str, call: str | None = None, expires: float = 1e10, **more: Any
) -> dict[str, Any]:
    found = {
        "subject": subject,
        "details": {"amount": 5},
        "digest": digest,
        "approvers": {"users": [], "groups": ["finance"]},
        "required": 1,
        "expiresAt": expires,
    }
    return found | ({"callId": call, "tool": "pay"} if call else {}) | more


@dataclass(frozen=True)
class Said:
    """The result of a command: its exit code and output."""

    code: int
    out: str
    err: str


Type = Callable[..., Said]
