"""The runs that ``record`` plays: what each workflow is, and what people say to it until it ends."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.local import agent, call, run_of, tool, workflow
from tests.e2e.toolhost import Answer, Handler, ToolHost, cut, held, late, reply

PORT = 8471
"""Where the tools are: it stands in the journals."""
URL = f"http://127.0.0.1:{PORT}"
TRIES = 3
"""How often an attempt makes a call that may be made again."""
FINANCE = {"groups": ["finance"]}
MODEL = {"name": "main", "model": "gpt-5.5", "price": {"input": "1.25", "cachedInput": "0.125", "output": "10.00"}}
SOON = {"limit": 2, "backoff": {"initial": "200ms", "factor": 2}}
WHY = {
    "type": "object",
    "required": ["why"],
    "additionalProperties": False,
    "properties": {"why": {"type": "string"}},
}
NAMED = {"type": "object", "required": ["what"], "properties": {"what": {"type": "string"}}}
PAY = tool(
    "pay",
    f"{URL}/pay",
    effect="Once",
    parameters={"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}},
    approval={"when": "args.amount > 100.0", "approvers": FINANCE},
)
LOOK = tool("look", f"{URL}/look")
BOOK = tool("book", f"{URL}/book/${{args.what}}", effect="Idempotent", parameters=NAMED, timeout="5m")
UNBOOK = tool("unbook", f"{URL}/unbook/${{args.what}}", effect="Idempotent", parameters=NAMED)
NOTE = tool("note", f"{URL}/note", effect="Idempotent")
FINALLY = [call("file", "note", {"text": "${run.name}: ${run.outcome}"})]

RULES: list[dict[str, Any]] = [
    {"match": {"regex": r"^[\[…]"}, "text": "The first page greets, the second takes leave."},  # asked to compact
    {"match": {"text": "Order", "turn": 0}, "tool_calls": [{"name": "look", "args": {}}], "reasoning": True},
    {"match": {"after_tool": "look"}, "tool_calls": [{"name": "pay", "args": {"amount": 138.9}}], "reasoning": True},
    {"match": {"after_tool": "pay"}, "json": {"why": "The goods arrived broken."}},
    {"match": {"text": "Charge", "turn": 0}, "tool_calls": [{"name": "charge", "args": {}}]},
    {"match": {"after_tool": "charge"}, "text": "charged"},
    {"match": {"text": "Read", "turn": 0}, "tool_calls": [{"name": "first", "args": {}}]},
    {"match": {"after_tool": "first"}, "tool_calls": [{"name": "second", "args": {}}]},
    {"match": {"after_tool": "second"}, "tool_calls": [{"name": "third", "args": {}}]},
    {"match": {"after_tool": "third"}, "text": "It ends well."},
    {"match": {"text": "Send", "turn": 0}, "tool_calls": [{"name": "send", "args": {}}] * 32},
    {"match": {"text": "Send", "turn": 1}, "tool_calls": [{"name": "send", "args": {}}] * 32},
    {"match": {"text": "Send", "turn": 2}, "text": "sent"},
]
"""What the model says, in every run."""


@dataclass
class Scene:
    """The place of the runs; ``folder`` is the working directory of every command and holds the store."""

    venv: Path
    folder: Path
    model_url: str
    tools: ToolHost

    def __post_init__(self) -> None:
        """What the tools of several scenes answer."""
        self.on("/look", reply({"order": "4711", "total": 138.9}))
        self.on("/pay", reply({"paid": 138.9}))
        self.on("/note", reply({"noted": True}))
        self.on("/book/order", reply({"booked": "order"}))
        self.on("/unbook/order", reply({"unbooked": "order"}))

    def agentrun(self, *words: str, by: str = "ana", code: int = 0, store: str = "store") -> str:
        """What a command of the recording agentrun says to ``by``; it has to end with ``code``."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LOGNAME": by, "AGENTRUN_STORE": store}
        env |= {"OPENAI_BASE_URL": self.model_url, "OPENAI_API_KEY": "none", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(self.venv / "bin/agentrun"), *words]
        said = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert said.returncode == code, f"{words} ended with {said.returncode}\n{said.stdout}\n{said.stderr}"
        return said.stdout

    def run(self, name: str, code: int, *words: str, timeout: str = "24h", **spec: Any) -> None:
        """Run a workflow of ``spec`` under ``name``."""
        document = run_of(workflow(**spec), timeout=timeout)
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        self.agentrun("run", f"{name}.yaml", "--name", name, *words, code=code)

    def on(self, path: str, *answers: Answer) -> None:
        """What the tool at ``path`` answers; the last answer is repeated."""
        self.tools.on(path, *answers)


def every_wait(scene: Scene) -> None:
    """Every kind of wait: two approvals, a duration, an instant, a signal that comes and one that does not, a retry."""
    scene.on("/stock", *[reply("later", 503)] * TRIES, reply({"lamps": 3}))
    opens = (datetime.now(UTC) + timedelta(seconds=4)).isoformat().replace("+00:00", "Z")
    steps = [
        call("stock", "stock", retry=SOON),
        {"name": "pause", "wait": {"duration": "${inputs.pause}"}},
        {"name": "opening", "wait": {"until": "${inputs.opens}"}},
        {"name": "parcel", "wait": {"signal": "parcel", "timeout": "1h"}},
        {"name": "recall", "wait": {"signal": "recall", "timeout": "300ms"}, "continueOnError": True},
        agent("triage", "Order 4711 arrived broken.", tools=["look", "pay"], dependsOn=["stock"], output=WHY),
        {
            "name": "sign-off",
            "dependsOn": ["triage", "parcel"],
            "approval": {
                "subject": "Close it? ${steps.triage.output.why}",
                "details": "${steps.parcel.output}",
                "approvers": FINANCE,
            },
        },
        call("close", "note", {"text": "closed"}, dependsOn=["sign-off", "pause", "opening", "recall"]),
    ]
    output = {
        "parcel": "${steps.parcel.output}",
        "by": "${steps['sign-off'].output.by}",
        "recall": "${steps.recall.state}",
    }
    scene.run(
        "every-wait", 3, "-i", "pause=300ms", "-i", f"opens={opens}",
        models=[MODEL], tools=[tool("stock", f"{URL}/stock"), LOOK, PAY, NOTE],
        steps=steps, finally_=FINALLY, output=output,
    )  # fmt: skip
    scene.agentrun("approve", "every-wait", "triage", "--as-group", "finance", by="ben")
    scene.agentrun("signal", "every-wait", "parcel", '{"crate": 7}')
    scene.agentrun("resume", "every-wait", code=3)
    scene.agentrun("approve", "every-wait", "sign-off", "--as-group", "finance", "--comment", "go on", by="cleo")
    scene.agentrun("resume", "every-wait")


def forked(scene: Scene) -> None:
    """A fork of ``every-wait`` within its agent, with another prompt: people are asked anew, and refuse the payment."""
    scene.agentrun(
        "fork", "every-wait", "--from", "triage@3", "--prompt", "Order 4711 arrived late.", "--name", "forked", code=3
    )
    scene.agentrun("reject", "forked", "triage", "--as-group", "finance", "--comment", "late is not broken", by="ben")
    scene.agentrun("resume", "forked", code=3)
    scene.agentrun("approve", "forked", "sign-off", "--as-group", "finance", by="cleo")
    scene.agentrun("resume", "forked")


def undone_fan_out(scene: Scene) -> None:
    """A fan-out: one item is skipped, one fails for a while, one for good; of what is undone, one effect stays."""
    recovered = threading.Event()

    def recover(handler: Handler) -> None:
        reply({"booked": "green"})(handler)
        recovered.set()

    for item in ("red", "black"):
        scene.on(f"/book/{item}", reply({"booked": item}))
    scene.on("/book/green", *[reply("busy", 503)] * TRIES, recover)
    scene.on("/book/white", held(recovered, reply({"error": "no white"}, 422)))
    for item in ("green", "black"):
        scene.on(f"/unbook/{item}", reply({"unbooked": item}))
    scene.on("/unbook/red", reply({"error": "too late"}, 409))
    undo = {"name": "unbook", "args": {"what": "${steps.each.output.booked}"}}
    steps = [
        call("order", "book", {"what": "order"}, compensate={"name": "unbook", "args": {"what": "order"}}),
        call(
            "each", "book", {"what": "${item}"}, when="item != 'blue'", dependsOn=["order"],
            forEach={"items": "${inputs.colours}", "maxParallel": 2}, retry=SOON, compensate=undo,
        ),
        call("ship", "note", {"text": "shipped"}, dependsOn=["each"]),
    ]  # fmt: skip
    scene.run(
        "undone-fan-out", 1, "-i", 'colours=["red", "green", "blue", "white", "black"]',
        tools=[BOOK, UNBOOK, NOTE], steps=steps, finally_=FINALLY,
    )  # fmt: skip


def cancelled(scene: Scene) -> None:
    """A run that is cancelled while an approval, a signal and a tool's approval are waited for, and is undone."""
    steps = [
        call("order", "book", {"what": "order"}, compensate={"name": "unbook", "args": {"what": "order"}}),
        {"name": "ask", "dependsOn": ["order"], "approval": {"subject": "Ship it?", "approvers": FINANCE}},
        {"name": "parcel", "dependsOn": ["order"], "wait": {"signal": "parcel"}},
        agent("triage", "Order 4711 arrived broken.", tools=["look", "pay"], dependsOn=["order"]),
        call("ship", "note", {"text": "shipped"}, dependsOn=["ask"]),
    ]
    tools = [BOOK, UNBOOK, NOTE, LOOK, PAY]
    scene.run("cancelled", 3, models=[MODEL], tools=tools, steps=steps, finally_=FINALLY)
    scene.agentrun("cancel", "cancelled")
    scene.agentrun("resume", "cancelled", code=1)


def timed_out(scene: Scene) -> None:
    """A run that is suspended, goes on, and takes longer than its ``timeout``."""
    scene.on("/slow", late(60, reply({"slow": True})))
    steps = [
        call("order", "book", {"what": "order"}, compensate={"name": "unbook", "args": {"what": "order"}}),
        {"name": "go", "wait": {"signal": "go"}},
        call("slow", "slow", dependsOn=["order", "go"]),
    ]
    tools = [BOOK, UNBOOK, NOTE, tool("slow", f"{URL}/slow", timeout="2m")]
    scene.run("timed-out", 3, timeout="8s", tools=tools, steps=steps, finally_=FINALLY)
    scene.agentrun("suspend", "timed-out", by="ben")
    scene.agentrun("signal", "timed-out", "go")
    scene.agentrun("resume", "timed-out", code=1)


def unknown_outcomes(scene: Scene) -> None:
    """``Once`` calls whose connection was lost: two happened, one is made again, one is given up."""
    once = [tool(name, f"{URL}/{name}", effect="Once") for name in ("invoice", "courier", "letter", "charge")]
    for name in ("invoice", "letter", "charge"):
        scene.on(f"/{name}", cut)
    scene.on("/courier", cut, reply({"coming": True}))
    steps = [
        call("invoice", "invoice"),
        call("courier", "courier"),
        call("letter", "letter", continueOnError=True),
        agent("clerk", "Charge the customer.", tools=["charge"]),
    ]
    output = {name: f"${{steps.{name}.output}}" for name in ("invoice", "courier", "letter", "clerk")}
    scene.run("unknown-outcomes", 3, models=[MODEL], tools=once, steps=steps, output=output)
    scene.agentrun("resolve", "unknown-outcomes", "invoice", "--happened", '{"number": 12}')
    scene.agentrun("resolve", "unknown-outcomes", "courier", "--retry", by="ben")
    scene.agentrun("resolve", "unknown-outcomes", "letter", "--give-up")
    scene.agentrun("resolve", "unknown-outcomes", "clerk", "--happened", "charged by hand", by="ben")
    scene.agentrun("resume", "unknown-outcomes")


def compacted(api: str) -> Callable[[Scene], None]:
    """An agent whose history outgrows its model, spoken to by ``api``."""

    def play(scene: Scene) -> None:
        scene.on("/first", reply({"page": "hello " * 280}))
        scene.on("/second", reply({"page": "good-bye " * 190}))
        scene.on("/third", reply({"page": "the end"}))
        pages = ["first", "second", "third"]
        scene.run(
            f"compacted-{api}", 0,
            models=[MODEL | {"api": api, "contextWindow": 1000}], tools=[tool(page, f"{URL}/{page}") for page in pages],
            steps=[agent("reader", "Read the pages.", tools=pages)], output="${steps.reader.output}",
        )  # fmt: skip

    return play


def checkpoint(scene: Scene) -> None:
    """A journal of more than 128 records: who reads it begins at the checkpoint."""
    scene.on("/send", reply({"sent": True}))
    send = tool("send", f"{URL}/send", effect="Once")
    scene.run("checkpoint", 0, models=[MODEL], tools=[send], steps=[agent("post", "Send it.", tools=["send"])])


SCENES: dict[str, Callable[[Scene], None]] = {
    "every-wait": every_wait,
    "forked": forked,
    "undone-fan-out": undone_fan_out,
    "cancelled": cancelled,
    "timed-out": timed_out,
    "unknown-outcomes": unknown_outcomes,
    "compacted-responses": compacted("responses"),
    "compacted-chat": compacted("chat"),
    "checkpoint": checkpoint,
}
"""By the name of the run and of its journal; in this order, for ``forked`` is a fork of ``every-wait``."""
