"""Runs that a test drives in its own process, with real step processes: what no command line is needed for."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrun.api.keys import StepKey
from agentrun.documents.document import parse
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.journal.runs import create_run, read_facts
from agentrun.local.driver import Driver, End, Watcher
from agentrun.local.lease import Lease
from agentrun.local.processes import ChildProcesses
from agentrun.plan.planner import plan
from agentrun.store.open import open_store
from agentrun.store.protocol import Store
from agentrun.workflow.pinning import pin

NOW = {"limit": 0}
"""A step that is not retried."""


def workflow(**spec: Any) -> dict[str, Any]:
    """An AgentWorkflow with ``spec``; ``finally_`` is ``finally``."""
    if "finally_" in spec:
        spec["finally"] = spec.pop("finally_")
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentWorkflow",
        "metadata": {"name": "made"},
        "spec": spec,
    }


def run_of(spec: dict[str, Any], **run: Any) -> dict[str, Any]:
    """An AgentRun of a workflow that stands in it."""
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"generateName": "made-"},
        "spec": {"workflow": spec["spec"], **run},
    }


def tool(name: str, url: str, *, effect: str = "ReadOnly", method: str | None = None, **http: Any) -> dict[str, Any]:
    """A tool of one HTTP request; ``approval`` and ``parameters`` belong to the tool, the rest to the request."""
    own: dict[str, Any] = {key: http.pop(key) for key in ("approval", "parameters", "description") if key in http}
    verb = method or ("GET" if effect == "ReadOnly" else "POST")
    return {"name": name, "effect": effect, **own, "http": {"method": verb, "url": url, **http}}


def call(name: str, tool: str, args: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
    """A step that calls a tool."""
    return {"name": name, "tool": {"name": tool, "args": args or {}}, **step}


def agent(name: str, prompt: str, **fields: Any) -> dict[str, Any]:
    """A step that asks a model; ``tools``, ``output``, ``maxTurns`` and so on belong to the agent."""
    known = ("tools", "output", "maxTurns", "maxOutputTokens", "model", "instructions")
    own = {key: fields.pop(key) for key in known if key in fields}
    return {"name": name, "agent": {"prompt": prompt, **own}, **fields}


@dataclass
class LocalRun:
    """One run in a folder store."""

    store: Store
    path: RunPath
    secrets: str
    told: list[str] = field(default_factory=list)

    @classmethod
    def create(
        cls, place: Path | str, document: dict[str, Any], secrets: Path, inputs: dict[str, Any] | None = None
    ) -> LocalRun:
        """Pin and write a run of ``document``, as ``agentrun run`` does."""
        documents = parse(json.dumps(document).encode(), "made.yaml")
        manifest = pin(
            documents,
            inputs or {},
            name=None,
            namespace=None,
            now=time.time(),
            new_id=lambda: uuid.uuid4().hex,
            requested_by="ana",
        )
        store = open_store(str(place))
        return cls(store, create_run(store, manifest), str(secrets))

    async def drive(self, watcher: Watcher | None = None) -> End:
        """Drive it until it ends or waits for a person."""
        driver = Driver(
            self.store,
            PinnedRun.read(self.store, self.path),
            ChildProcesses(self.secrets),
            Lease(self.store, self.path, uuid.uuid4().hex),
            watcher or Watcher(tell=self.told.append),
        )
        return await driver.drive()

    @property
    def events(self) -> list[Record]:
        """The records of the run as a whole."""
        log = EventLog(self.store, self.path, time.time)
        log.refresh()
        return log.records

    def say(self, kind: str, **body: Any) -> None:
        """Append an event, as a person's command does."""
        log = EventLog(self.store, self.path, time.time)
        log.refresh()
        log.append(kind, body)

    @property
    def status(self) -> dict[str, Any]:
        """The run's status by its journal alone."""
        pinned = PinnedRun.read(self.store, self.path)
        return plan(pinned.snapshot(time.time(), read_facts(self.store, self.path), self.events)).status

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """The status of each step by its name."""
        return {step["name"]: step for step in self.status["steps"]}

    def records(self, step: str) -> list[Record]:
        """The whole journal of a step."""
        return read_step(self.store, self.path, StepKey.parse(step), whole=True)

    def output(self, step: str) -> Any:
        """What the step gave."""
        return self.records(step)[-1].body.get("output")
