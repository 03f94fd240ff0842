"""The workflows that are struck, and the outside that they work on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import yaml
from examples.refund.backend import Backend
from examples.scripted_model import ScriptedModel

from tests.servers.ledger import Ledger

EXAMPLE = Path(__file__).parents[2] / "examples" / "refund"
TOKEN = "payments-token"  # what ``roles.run_runner`` reads for payments/token


class Outside(Protocol):
    """Model and tools, on the other side of every call, with what they wrote down."""

    document: str
    model: ScriptedModel

    def find(self, key: str) -> Any:
        """What the ``Once`` call with this key was answered; None where it never arrived."""

    def effects(self) -> Counter[str]:
        """Every effect that happened. Two runs that did the same have the same."""

    def check_repeats(self) -> None:
        """Raise AssertionError where an idempotent call was repeated in another way than with the same key."""


class Refund:
    """The refund example as it stands, but for its addresses and the model's pauses."""

    document: str
    model: ScriptedModel

    def __init__(self, folder: Path, opened: ExitStack, recorded: Callable[[], None]) -> None:
        script = yaml.safe_load((EXAMPLE / "model.yaml").read_text())
        for rule in script["rules"]:
            rule.pop("latency")
        self.model = opened.enter_context(_Model(script, recorded))
        self._backend = opened.enter_context(_Backend(folder / "backend", recorded))
        text = (EXAMPLE / "refund.yaml").read_text()
        assert "http://127.0.0.1:8471" in text
        self.document = text.replace("http://127.0.0.1:8471", self._backend.url)

    def find(self, key: str) -> Any:
        return next((one for one in self._backend.payments if one["idempotencyKey"] == key), None)

    def effects(self) -> Counter[str]:
        return Counter(_words("payment", one) for one in self._backend.payments) + Counter(
            _words("note", one) for one in self._backend.notes
        )

    def check_repeats(self) -> None:
        keys = [one["idempotencyKey"] for one in self._backend.notes]
        assert len(keys) == len(set(keys)), f"notes: {keys}"


class OnLedger:
    """What is the same for every workflow whose outside is a ledger."""

    document: str
    model: ScriptedModel
    _ledger: Ledger

    def find(self, key: str) -> Any:
        return next((one.answer for one in self._ledger.lines if one.key == key), None)

    def effects(self) -> Counter[str]:
        once = [one for one in self._ledger.lines if one.path.startswith("/once/")]
        first = {one.key: one for one in self._ledger.lines if one.path.startswith("/idempotent/")}
        return Counter(f"{one.path} {one.key} {one.body}" for one in [*once, *first.values()])

    def check_repeats(self) -> None:
        same: dict[str, str | None] = {}
        for one in self._ledger.lines:
            if one.method == "POST" and not one.path.startswith("/once/"):
                call = f"{one.path} {one.body}"
                assert same.setdefault(call, one.key) == one.key, f"{call}: repeated with another key"


class FanOut(OnLedger):
    """A bit of everything else: fan-outs, an agent with parallel calls, an end in failure, compensation, finally."""

    SCRIPT: Mapping[str, Any] = {
        "rules": [
            {
                "match": {"turn": 0},
                "reasoning": True,
                "tool_calls": [
                    {"name": "look", "args": {"id": "shelf"}},
                    {"name": "pick", "args": {"id": "box"}},
                ],
            },
            {"match": {"turn": 1}, "json": {"receipt": "{{tool.pick.receipt}}", "known": "{{tool.look.known}}"}},
        ]
    }

    def __init__(self, folder: Path, opened: ExitStack, recorded: Callable[[], None]) -> None:
        self.model = opened.enter_context(_Model(dict(self.SCRIPT), recorded))
        self._ledger = opened.enter_context(Ledger(recorded))
        self.document = yaml.safe_dump(self._document(self._ledger.url))

    @staticmethod
    def _document(url: str) -> dict[str, Any]:
        string = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}

        def tool(name: str, effect: str, path: str) -> dict[str, Any]:
            http: dict[str, Any] = {"method": "POST", "url": url + path, "body": {"id": "${args.id}"}}
            if effect == "ReadOnly":
                http = {"method": "GET", "url": url + path}
            return {"name": name, "effect": effect, "parameters": string, "http": http | {"output": "response.body"}}

        def call(name: str, argument: str) -> dict[str, Any]:
            return {"name": name, "args": {"id": argument}}

        four = {"items": ["a", "b", "c", "d"], "maxParallel": 4}
        result = {
            "type": "object",
            "required": ["receipt", "known"],
            "additionalProperties": False,
            "properties": {"receipt": {"type": "string"}, "known": {"type": "string"}},
        }
        return {
            "apiVersion": "agentrun.dev/v1alpha1",
            "kind": "AgentWorkflow",
            "metadata": {"name": "dispatch"},
            "spec": {
                "models": [{"name": "main", "model": "gpt-5.5"}],
                "defaults": {"model": "main"},
                "tools": [
                    tool("look", "ReadOnly", "/read/${args.id}"),
                    tool("stamp", "Idempotent", "/idempotent/stamp"),
                    tool("ship", "Once", "/once/ship"),
                    tool("pick", "Once", "/once/pick"),
                    tool("reserve", "Once", "/once/reserve"),
                    tool("release", "Once", "/once/release"),
                    tool("refuse", "Idempotent", "/refused"),
                    tool("note", "Idempotent", "/idempotent/note"),
                ],
                "steps": [
                    {"name": "reserve", "tool": call("reserve", "truck"), "compensate": call("release", "truck")},
                    {"name": "stamps", "forEach": four, "tool": call("stamp", "${item}")},
                    {
                        "name": "pack",
                        "agent": {"prompt": "Pack the box.", "tools": ["look", "pick"], "output": result},
                    },
                    {
                        "name": "ships",
                        "dependsOn": ["stamps", "pack"],
                        "forEach": four,
                        "tool": call("ship", "${item} ${steps.pack.output.receipt}"),
                    },
                    {"name": "refuse", "dependsOn": ["reserve", "ships"], "tool": call("refuse", "all")},
                ],
                "finally": [{"name": "note", "tool": call("note", "${run.outcome}")}],
            },
        }


class Payment(OnLedger):
    """One ``Once`` call, and nothing else."""

    def __init__(self, folder: Path, opened: ExitStack, recorded: Callable[[], None]) -> None:
        self.model = opened.enter_context(_Model(dict(FanOut.SCRIPT), recorded))
        self._ledger = opened.enter_context(Ledger(recorded))
        http = {"method": "POST", "url": f"{self._ledger.url}/once/pay", "body": {}, "output": "response.body"}
        spec = {
            "tools": [{"name": "pay", "effect": "Once", "http": http}],
            "steps": [{"name": "pay", "tool": {"name": "pay"}}],
            "output": "${steps.pay.output}",
        }
        head = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentWorkflow", "metadata": {"name": "payment"}}
        self.document = yaml.safe_dump(head | {"spec": spec})


class _Model(ScriptedModel):
    def __init__(self, script: dict[str, Any], recorded: Callable[[], None]) -> None:
        super().__init__(script)
        self._recorded = recorded

    def answer(self, *args: Any) -> Any:
        reply = super().answer(*args)
        self._recorded()
        return reply


class _Backend(Backend):
    def __init__(self, folder: Path, recorded: Callable[[], None]) -> None:
        super().__init__(folder, TOKEN)
        self._recorded = recorded

    @property
    def notes(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._notes.lines)

    def answer(self, *args: Any) -> Any:
        answer = super().answer(*args)
        self._recorded()
        return answer


def _words(kind: str, line: dict[str, Any]) -> str:
    return f"{kind} {sorted((k, v) for k, v in line.items() if k not in ('at', 'n'))}"
