"""What a model's endpoint can do wrong. One run has a step for each way; each test looks at one of them."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from typing import Any

import pytest

from agentrun.local.driver import End
from tests.e2e.local import LocalRun, agent, tool, workflow
from tests.e2e.shop import KEY, Shop
from tests.e2e.toolhost import reply

ONCE_MORE = {"limit": 1, "backoff": {"initial": "10ms"}}
NEVER = {"limit": 0}
DONE = {"text": "done"}
TOLD = [{"match": {"turn": 1}, **DONE}]


@dataclass(frozen=True)
class Case:
    """A fault: the rules of the model for it, the fields of its step, and what has to come of it."""

    rules: list[dict[str, Any]]
    requests: int
    failure: str | None = None
    """The failure's class; None: the step succeeds all the same."""
    says: str = ""
    step: dict[str, Any] | None = None


def always(**failure: Any) -> list[dict[str, Any]]:
    return [{"fail_always": failure}]


def once(**failure: Any) -> list[dict[str, Any]]:
    return [{**DONE, "fail": [failure]}]


CASES = {
    "rate-limit-passes": Case(once(status=429, retry_after=1), 2),
    "rate-limit-stays": Case(always(status=429, retry_after=0.01), 6, "RateLimited", "429", {"retry": ONCE_MORE}),
    "rate-limit-for-minutes": Case(always(status=429, retry_after=120), 1, "RateLimited", "429"),
    "quota": Case(always(status=429, code="insufficient_quota"), 1, "Provider", "check plan and billing"),
    "error-500-stays": Case(always(status=500), 6, "Provider", "500", {"retry": ONCE_MORE}),
    "error-500-passes": Case(once(status=500), 2),
    "wrong-key": Case(always(status=401), 1, "Provider", "check the environment variable OPENAI_API_KEY"),
    "cut": Case(once(cut=True), 2),
    "malformed": Case(always(malformed=True), 3, "Provider", "malformed answer: it is not JSON"),
    "refusal": Case(
        always(refuse="I will not."), 1, "Provider", "the model refused: I will not.", {"retry": ONCE_MORE}
    ),
    "incomplete": Case(always(incomplete="max_output_tokens"), 3, "Invalid", "cut off (max_output_tokens)"),
    "empty": Case([{"text": ""}], 3, "Invalid", "it was empty"),
    "unknown-tool": Case([*TOLD, {"tool_calls": [{"name": "launch", "args": {}}]}], 2),
    "wrong-arguments": Case([*TOLD, {"tool_calls": [{"name": "look_up", "args": {"id": [7]}}]}], 2),
    "no-json-arguments": Case([*TOLD, {"tool_calls": [{"name": "look_up", "args": '{"id": '}]}], 2),
    "endless-turns": Case(
        [{"tool_calls": [{"name": "look_up", "args": {"id": "7"}}]}],
        3,
        "Budget",
        "within maxTurns (3)",
        {"maxTurns": 3},
    ),
}


def rules() -> list[dict[str, Any]]:
    found = [
        {**rule, "match": {**rule.get("match", {}), "text": f"<{name}>"}}
        for name, c in CASES.items()
        for rule in c.rules
    ]
    chat: list[dict[str, Any]] = [
        {
            "match": {"text": "<chat>", "turn": 0},
            "tool_calls": [{"name": "look_up", "args": {"id": "7"}}],
            "fail": [{"status": 500}],
        },
        {"match": {"text": "<chat>", "turn": 1}, "json": "{{tool.look_up}}"},
    ]
    return [*found, *chat, {"match": {"text": "<hang>"}, "fail_always": {"hang": 600}}]


@pytest.fixture(scope="module")
def run(stage: Shop) -> LocalRun:
    """The run, driven to its end: a step for each case, then those that time out, when the machine is quiet."""
    stage.model.script = {"rules": rules()}
    stage.tools.on("/known/7", reply({"known": True}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    steps = [
        agent(name, f"<{name}>", tools=["look_up"], continueOnError=True, **{"retry": NEVER, **(case.step or {})})
        for name, case in CASES.items()
    ]
    steps.append(agent("down", "<down>", model="nowhere", continueOnError=True, retry=NEVER))
    steps.append(agent("chat", "<chat>", model="chat", tools=["look_up"], retry=NEVER))
    before = [step["name"] for step in steps]
    steps.append(agent("hang", "<hang>", timeout="4s", dependsOn=before, continueOnError=True, retry=ONCE_MORE))
    document = workflow(
        models=[
            {"name": "main", "model": "m"},
            {"name": "nowhere", "model": "m", "endpoint": nowhere},
            {
                "name": "chat",
                "model": "m",
                "api": "chat",
                "credentials": {"secretRef": {"name": "model", "key": "key"}},
            },
        ],
        defaults={"model": "main"},
        tools=[
            tool(
                "look_up",
                f"{stage.tools.url}/known/${{args.id}}",
                parameters={"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            )
        ],
        steps=steps,
    )
    made = LocalRun.create(stage.store, document, stage.secrets)
    assert asyncio.run(made.drive()) is End.SUCCEEDED
    return made


def asked(stage: Shop, name: str) -> list[Any]:
    return [body for body in stage.model.requests if f"<{name}>" in str(body)]


@pytest.mark.parametrize("name", CASES)
def test_a_fault_ends_as_promised(name: str, run: LocalRun, stage: Shop) -> None:
    case = CASES[name]
    step = run.steps[name]
    assert len(asked(stage, name)) == case.requests
    if case.failure is None:
        assert step["state"] == "Succeeded"
        assert step["output"] == "done"
    else:
        assert step["state"] == "Failed"
        assert step["failure"]["class"] == case.failure
        assert case.says in step["failure"]["message"]
        assert KEY not in str(step)


def test_a_pause_that_was_asked_for_is_kept(run: LocalRun, stage: Shop) -> None:
    del run
    at = [
        line["at"]
        for line, body in zip(stage.model.ledger, stage.model.requests, strict=True)
        if "<rate-limit-passes>" in str(body)
    ]
    assert at[1][:19] > at[0][:19]  # a second later at least


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("unknown-tool", 'there is no tool "launch"; there are: look_up'),
        ("wrong-arguments", "the arguments do not fit the tool's parameters"),
        ("no-json-arguments", "the arguments are not JSON"),
    ],
)
def test_the_model_is_told_what_was_wrong_with_its_call(name: str, says: str, run: LocalRun, stage: Shop) -> None:
    second = asked(stage, name)[1]
    assert says in second["input"][-1]["output"]
    assert run.steps[name]["attempt"] == 1
    calls = [record for record in run.records(name) if record.kind == "result"]
    assert [result["called"] for record in calls for result in record.body["results"]] == [False]


def test_an_endpoint_that_is_down_is_named(run: LocalRun) -> None:
    failure = run.steps["down"]["failure"]
    assert failure["class"] == "Provider"
    assert "model nowhere at http://127.0.0.1:" in failure["message"]
    assert "check endpoint, and that the server is up" in failure["message"]


def test_an_endpoint_that_hangs_meets_the_steps_timeout_once(run: LocalRun, stage: Shop) -> None:
    failure = run.steps["hang"]["failure"]
    assert failure["class"] == "Timeout"
    assert "longer than its timeout of 4 s" in failure["message"]
    assert len(asked(stage, "hang")) == 1
    assert run.steps["hang"]["attempt"] == 1


def test_chat_completions_with_a_key_from_a_secret(run: LocalRun, stage: Shop) -> None:
    assert run.output("chat") == '{"known": true}'
    lines = [line for line, body in zip(stage.model.ledger, stage.model.requests, strict=True) if "<chat>" in str(body)]
    assert [(line["api"], line["answer"]) for line in lines] == [("chat", "500"), ("chat", "ok"), ("chat", "ok")]
    assert all(line["headers"]["authorization"] for line in lines)


def test_show_says_each_failure_once(run: LocalRun, stage: Shop) -> None:
    said = stage.agentrun("show", run.path.name)
    assert said.code == 0, said
    for name, case in CASES.items():
        ends = re.findall(rf"  {name}(?:@\d+)? +Failed: (.*) \((\w+)\)$", said.out, re.MULTILINE)
        assert len(ends) == (1 if case.failure else 0), (name, said)
        for message, kind in ends:
            assert kind == case.failure
            assert run.steps[name]["failure"]["message"].startswith(message.removesuffix("…"))
    assert KEY not in said.out
