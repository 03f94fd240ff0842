"""Endpoints that refuse parts of a request: a run pays each refusal once, whatever its steps and processes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentrun.journal.fold import fold
from agentrun.local.driver import End
from tests.e2e.local import LocalRun, agent, tool, workflow
from tests.e2e.shop import KEY, Shop
from tests.e2e.toolhost import reply

OUTPUT = {
    "type": "object",
    "properties": {"known": {"type": "boolean"}},
    "required": ["known"],
    "additionalProperties": False,
}
PROFILES = {
    ("azure", "chat"): ["max_completion_tokens", "parallel_tool_calls"],
    ("azure", "responses"): ["parallel_tool_calls"],
    ("deepseek", "chat"): ["json_schema"],
}


def asking(name: str, after: list[str], model: str) -> dict[str, Any]:
    asked = {"tools": ["look_up"], "output": OUTPUT, "maxOutputTokens": 500, "instructions": "Be brief."}
    return agent(name, f"<{name}>", dependsOn=after, model=model, retry={"limit": 0}, **asked)


@pytest.fixture(scope="module")
def run(stage: Shop) -> LocalRun:
    stage.tools.on("/known", reply({"known": True}))
    stage.model.script = {
        "rules": [
            {"match": {"turn": 0}, "tool_calls": [{"name": "look_up", "args": {}}]},
            {"match": {"turn": 1}, "json": {"known": True}},
        ]
    }
    steps, models = [], []
    for profile, api in PROFILES:
        name = f"{profile}-{api}"
        address = stage.model.url.replace("/v1", f"/{profile}/v1")
        models.append({"name": name, "model": "m", "api": api, "endpoint": address})
        steps += [asking(f"{name}-first", [], name), asking(f"{name}-second", [f"{name}-first"], name)]
    look_up = tool("look_up", f"{stage.tools.url}/known", parameters={"type": "object", "properties": {}})
    document = workflow(models=models, tools=[look_up], steps=steps)
    made = LocalRun.create(stage.store, document, stage.secrets)
    assert asyncio.run(made.drive()) is End.SUCCEEDED
    return made


@pytest.mark.parametrize(("profile", "api"), PROFILES)
def test_a_refusal_is_paid_once(profile: str, api: str, run: LocalRun, stage: Shop) -> None:
    words = PROFILES[profile, api]
    for which, refused in (("first", len(words)), ("second", 0)):
        step = f"{profile}-{api}-{which}"
        asked = [
            line["answer"]
            for line, body in zip(stage.model.ledger, stage.model.requests, strict=True)
            if f"<{step}>" in str(body)
        ]
        assert len(asked) == 2 + refused
        assert asked[refused:] == ["ok", "ok"]
        assert run.output(step) == {"known": True}
        assert fold(run.records(step)).usage["modelCalls"] == 2
        recorded = [record for record in run.records(step) if "refused" in record.body]
        assert [(record.kind, record.body["refused"]) for record in recorded] == [
            ("turn", [f"{profile}-{api}/{word}" for word in words])
        ]


def test_the_journal_verifies(run: LocalRun, stage: Shop) -> None:
    said = stage.agentrun("audit", "verify", run.path.name)
    assert said.code == 0, said
    assert KEY not in said.out
