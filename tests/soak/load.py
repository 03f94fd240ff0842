"""The tenants: one whose runs pay, ask and fail; one whose small runs are timed; one who means harm; and people."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentrun.api.canonical import moment
from tests import poison
from tests.cluster import scenes
from tests.cluster.access import Done
from tests.cluster.operator import Operator, says, step_says
from tests.cluster.scenes import Document, agent, ask, call, tool
from tests.servers.ledger import Ledger

ENDS = {"Succeeded", "Failed", "Cancelled"}
SOON = {"limit": 3, "backoff": {"initial": "500ms"}, "classes": ["Infrastructure", "RateLimited", "Provider", "Tool"]}


def workflows(ledger: str, model: str) -> dict[str, Document]:
    """The spec of each kind of run. Every path of the ledger ends with the run's name: each effect is known by it."""
    at = {"id": "${run.name}"}
    text = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}

    def post(name: str, effect: str, path: str) -> Document:
        return tool(name, f"{ledger}/{path}-${{args.id}}", effect=effect, parameters=text)

    look = tool("look", f"{ledger}/read/${{args.id}}", effect="ReadOnly", method="GET", parameters=text)
    tools = [
        look,
        post("pay", "Once", "once/pay"),
        post("undo", "Idempotent", "idempotent/undo"),
        post("note", "Idempotent", "idempotent/note"),
        tool("no", f"{ledger}/refused", effect="Once"),
    ]
    note = [call("note", "note", at, retry=SOON)]
    item = tool("item", f"{ledger}/once/item-${{args.id}}-${{args.n}}", effect="Once")
    return {
        "pay": {
            "tools": tools,
            "models": scenes.models(model),
            "steps": [
                agent("think", "Run ${run.name}.", retry=SOON)
                | {"agent": {"prompt": "Run ${run.name}.", "tools": ["look"]}},
                ask("sign", dependsOn=["think"]),
                call("pay", "pay", at, dependsOn=["sign"]),
            ],
            "finally": note,
        },
        "saga": {
            "tools": tools,
            "steps": [
                call("first", "pay", at, compensate={"name": "undo", "args": at}),
                call("last", "no", dependsOn=["first"]),
            ],
            "finally": note,
        },
        "fan": {
            "tools": [item],
            "steps": [
                call(
                    "all", "item", at | {"n": "${item}"}, forEach={"items": [1, 2, 3, 4], "maxParallel": 2}, retry=SOON
                )
            ],
        },
        "wait": {
            "tools": tools,
            "steps": [
                {"name": "while", "wait": {"duration": "2s"}},
                call("pay", "pay", at, dependsOn=["while"], retry=SOON),
            ],
        },
    }


EXPECTED = {"pay": "Succeeded", "saga": "Failed", "fan": "Succeeded", "wait": "Succeeded"}
SCRIPT = {
    "rules": [
        {
            "match": {"turn": 0, "regex": r"Run (?P<run>[a-z0-9-]+)"},
            "tool_calls": [{"name": "look", "args": {"id": "{{run}}"}}],
        },
        {"match": {"after_tool": "look"}, "text": "All is well with {{tool.look.id}}."},
    ]
}


@dataclass
class Tenant:
    """Somebody whose runs come and go, at most ``most`` of them at a time."""

    operator: Operator
    namespace: str
    documents: dict[str, Document]
    seed: int
    most: int = 5
    submitted: list[str] = field(default_factory=list)
    refused: int = 0

    def run(self, stop: threading.Event) -> None:
        """Submit until ``stop`` is set."""
        chosen = random.Random(self.seed)
        while not stop.wait(0.5):
            live = [n for n in self.submitted if not ENDS & says(self.operator.runs.get(self.namespace, n) or {})]
            if len(live) >= self.most:
                continue
            kind = chosen.choice(list(self.documents))
            name = f"{kind}-{len(self.submitted)}"
            done = self.operator.apply(self.namespace, scenes.run_of(name, kind), check=False)
            if done.returncode:
                self.refused += 1  # the API server restarts: a person tries again
            else:
                self.submitted.append(name)


@dataclass
class People:
    """ben approves what is asked, looks into the ledger where an outcome is unknown, and resumes what is parked."""

    operator: Operator
    namespace: str
    ledger: Ledger
    answered: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What was refused them, in the words of the command line."""

    def run(self, stop: threading.Event) -> None:
        """Answer until ``stop`` is set."""
        while not stop.wait(0.5):
            for run in self.operator.runs.all(self.namespace):
                self.look(run)

    def look(self, run: Document) -> None:
        """Do for a run what it waits for."""
        name = run["metadata"]["name"]
        if ENDS & says(run):
            return
        if "AwaitingApproval" in says(run) and step_says(run, "sign") == {"Waiting"}:
            self._tell(self.operator.agentrun(self.namespace, "approve", name, user="ben", check=False))
        for step in (run.get("status") or {}).get("steps", []):
            if step["state"] == "OutcomeUnknown" and "items" not in step:
                self._resolve(name, step["name"])
            elif "resume" in step.get("waitingFor", {}):
                self._tell(self.operator.agentrun(self.namespace, "resume", name, check=False))

    def _resolve(self, name: str, step: str) -> None:
        calls = [line.path for line in self.ledger.lines]
        index = step.partition("[")[2].rstrip("]")
        path = f"/once/item-{name}-{int(index) + 1}" if index else f"/once/pay-{name}"
        if step == "last":
            path = f"/once/nothing-{name}"  # its call is refused, so what it was to do never happened
        answer = ("--happened", "{}") if path in calls else ("--retry",)
        done = self.operator.agentrun(self.namespace, "resolve", name, step, *answer, check=False)
        if done.returncode == 0:
            self.answered.append(f"{name} {step} {answer[0]}")
        self._tell(done)

    def _tell(self, done: Done) -> None:
        if done.returncode:
            self.said.append(done.stderr.strip()[-200:])


@dataclass(frozen=True)
class Took:
    """How long one small run took, from when its object was made to its end, by the instants of the operator: when a
    watch tells of it is this process's own matter.
    """

    begun: float
    ended: float
    """By the monotonic clock."""
    seconds: float
    legs: str
    """Seconds after which each thing had happened, and what the API server took to create the object."""


@dataclass
class Timed:
    """Another tenant: a run that waits for a second, again and again."""

    operator: Operator
    namespace: str
    took: list[Took] = field(default_factory=list)
    count: int = 0

    def run(self, stop: threading.Event) -> None:
        """Measure until ``stop`` is set."""
        while not stop.wait(1.0):
            self.once()

    def once(self) -> None:
        """One run."""
        begun = time.monotonic()
        self.count += 1
        name = f"timed-{self.count}"
        document = scenes.run(name, {"name": "w", "wait": {"duration": "1s"}}, run={"ttlSecondsAfterFinished": 60})
        if self.operator.apply(self.namespace, document, check=False).returncode:
            return
        made, created = time.time(), time.monotonic() - begun
        status = self.operator.wait_for(self.namespace, name, "Succeeded", seconds=180)["status"]
        moments = {
            "started": status["startTime"],
            "waited": status["steps"][0].get("finishedAt"),
            "ended": status["completionTime"],
        }
        legs = ", ".join(f"{what} {moment(at) - made:.1f}" for what, at in moments.items() if at)
        took = moment(status["completionTime"]) - made
        self.took.append(Took(begun, time.monotonic(), took, f"{name}: created in {created:.1f}, {legs}"))


@dataclass
class Harm:
    """eve, who may edit her namespace and nothing else, writes the worst objects; at most ``most`` stay."""

    operator: Operator
    namespace: str
    seed: int
    most: int = 40
    pause: float = 3.0
    """Seconds between two. An API server takes up to 1.5 s of CPU for each, which no operator can do anything about."""
    written: int = 0
    refused: int = 0

    def run(self, stop: threading.Event) -> None:
        """Write until ``stop`` is set."""
        chosen = random.Random(self.seed)
        families = [list(poison.objects(TARGET)), list(poison.signals(TARGET, 20)), list(_works())]
        there: list[tuple[str, str]] = []
        wait = scenes.run(TARGET, {"name": "w", "wait": {"signal": "never"}})
        self.operator.apply(self.namespace, wait)
        while not stop.wait(self.pause):
            kind, name, text = chosen.choice(chosen.choices(families, WEIGHTS)[0])
            unique = f"{name}-{self.written + self.refused}"
            done = self.operator.kubectl(
                *("create", "-n", self.namespace, "-f", "-"),
                input=text.replace(json.dumps(name), json.dumps(unique), 1), user="eve", check=False,
            )  # fmt: skip
            if done.returncode:
                self.refused += 1
                continue
            self.written += 1
            there.append((kind, unique))
            if len(there) > self.most:
                words: tuple[Any, ...] = there.pop(chosen.randrange(len(there)))
                self.operator.kubectl("delete", *words, "-n", self.namespace, "--wait=false", user="eve", check=False)


TARGET = "target"
"""The run of hers that the worst commands are for: it takes them, and waits on."""

WEIGHTS = (6, 1, 3)
"""How often she writes an object that is hard to read, a signal that nobody waits for, a run that is hard to plan."""


def _works() -> Iterator[tuple[str, str, str]]:
    for name, work in poison.WORK.items():
        yield "AgentRun", name, work(name)
