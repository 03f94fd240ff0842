"""Endpoints other than OpenAI's, over HTTP: an agent with tools and structured output finishes on each of them, also
where its process is killed between two of its turns.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from examples.scripted_model.profiles import PROFILES

from agentrun.attempt.exit_codes import Exit
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.pinned import PinnedRun
from agentrun.local.driver import End
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Start
from agentrun.runner.attempt import run_attempt
from agentrun.runner.dispatch import work
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from tests.e2e.local import NOW, LocalRun, agent, tool, workflow
from tests.e2e.shop import Shop
from tests.e2e.toolhost import Answer, Handler, reply

PAIRS = {f"{name.replace('.', '')}-{api}": (name, api) for name, profile in PROFILES.items() for api in profile.apis}
SCHEMA = {
    "type": "object",
    "required": ["known", "where"],
    "additionalProperties": False,
    "properties": {"known": {"type": "boolean"}, "where": {"type": "string"}},
}
ANSWER = {"known": True, "where": "Zürich"}
AT_ONCE = 4
"""Steps that run side by side: each is a process that imports the openai client."""


def rules() -> list[dict[str, Any]]:
    step = {"regex": "<(?P<step>[^>]+)>"}
    look_up = {"name": "look_up", "args": {"id": "{{step}}"}}
    return [
        {"match": {"turn": 0, **step}, "reasoning": True, "tool_calls": [{"name": "list_all", "args": {}}, look_up]},
        {"match": {"turn": 1, **step}, "reasoning": True, "tool_calls": [look_up]},
        {"match": {"turn": 2}, "text": ""},
        {"match": {"turn": 3}, "json": ANSWER},
    ]


def document(stage: Shop, names: list[str]) -> dict[str, Any]:
    """A workflow with an agent for each of ``names`` (of ``PAIRS``), a few of them at a time."""
    base = stage.model.url.removesuffix("/v1")
    steps = []
    for number, name in enumerate(names):
        before = names[max(0, number - AT_ONCE) : number - AT_ONCE + 1] if number >= AT_ONCE else []
        fields: dict[str, Any] = {"tools": ["list_all", "look_up"], "output": SCHEMA, "model": name, "retry": NOW}
        fields |= {"maxOutputTokens": 4000, "instructions": "Look it up.", "continueOnError": True}
        steps.append(agent(name, f"Look <{name}> up.", dependsOn=before, **fields))
    one = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    return workflow(
        models=[
            {"name": name, "model": "m", "api": api, "endpoint": f"{base}/{profile}/v1"}
            for name, (profile, api) in PAIRS.items()
        ],
        tools=[
            tool("list_all", f"{stage.tools.url}/all", parameters={"type": "object", "properties": {}}),
            tool("look_up", f"{stage.tools.url}/known/${{args.id}}", parameters=one),
        ],
        steps=steps,
    )


@pytest.fixture(scope="module")
def scripted(stage: Shop) -> Shop:
    stage.model.script = {"rules": rules()}
    stage.tools.on("/all", reply(["7"]))
    return stage


def finished(stage: Shop, name: str) -> LocalRun:
    """A run of one agent, whose one attempt was made in this process."""
    stage.tools.on(f"/known/{name}", reply({"known": True}))
    run = LocalRun.create(stage.store, document(stage, [name]), stage.secrets)
    planned = plan(PinnedRun.read(run.store, run.path).snapshot(time.time(), {}, []))
    start = next(effect for effect in planned.effects if isinstance(effect, Start))
    told = AttemptSpec(run.store.url, run.path, start, leash=False)
    code, fact = asyncio.run(run_attempt(told, Ports(), work, Mailbox()))
    assert (code, fact.output) == (Exit.CLOSED, ANSWER), fact
    assert fact.usage.model_calls == 4
    return run


@pytest.mark.parametrize("name", PAIRS)
def test_an_agent_finishes_on_every_endpoint(name: str, scripted: Shop) -> None:
    finished(scripted, name)


class Killed:
    """The run in which every step's process is killed in the middle of its first call of ``look_up``."""

    def __init__(self, stage: Shop) -> None:
        self._stage = stage
        names = list(PAIRS)
        self.run = LocalRun.create(stage.store, document(stage, names), stage.secrets)
        for name in names:
            stage.tools.on(f"/known/{name}", self._kill(name), reply({"known": True}))
        self.before = len(stage.model.ledger)
        assert asyncio.run(self.run.drive()) is End.SUCCEEDED

    def _kill(self, name: str) -> Answer:
        def answer(handler: Handler) -> None:
            os.kill(self._stage.pid_of(self.run.path.name, name), signal.SIGKILL)
            handler.close_connection = True

        return answer


@pytest.fixture(scope="module")
def killed(scripted: Shop) -> Killed:
    return Killed(scripted)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PAIRS)
def test_an_agent_that_is_killed_between_its_turns_finishes_on_every_endpoint(name: str, killed: Killed) -> None:
    step = killed.run.steps[name]
    assert (step["state"], step.get("output")) == ("Succeeded", ANSWER), step
    records = killed.run.records(name)
    assert [record.attempt for record in records if record.kind == "opened"] == [1, 2]
    assert len([record for record in records if record.kind == "turn"]) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [("litellm-chat", "openai-chat"), ("mistral-chat", "openai-responses"), ("openai-responses", "mistral-chat")],
)
def test_a_fork_goes_on_with_a_model_of_another_endpoint(one: str, other: str, scripted: Shop) -> None:
    """Its history holds ids, thoughts and reasoning that only the first endpoint can read."""
    run = finished(scripted, one)
    first, _ = (record.seq for record in run.records(one) if record.kind == "result" and "results" in record.body)
    words = ("--from", f"{one}@{first}", "--model", other, "--name", f"{one}-on", "-o", "json")
    said = scripted.agentrun("fork", run.path.name, *words)
    assert said.code == 0, said
    [step] = said.json["status"]["steps"]
    assert (step["state"], step.get("output")) == ("Succeeded", ANSWER), said
    assert scripted.model.ledger[-1]["api"] == PAIRS[other][1]
