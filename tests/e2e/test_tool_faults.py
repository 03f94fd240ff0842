"""What a tool's host can do wrong. One run has a step for each way; each test looks at one of them."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest

from agentrun.api.tools import Tool
from agentrun.local.driver import End
from agentrun.runner.connections import tls
from agentrun.runner.http_tool import HttpTool
from tests.e2e.local import LocalRun, call, tool, workflow
from tests.e2e.shop import Shop
from tests.e2e.toolhost import Answer, cut, endless, late, reply

OK = reply({"ok": True})
ONCE_MORE = {"limit": 1, "backoff": {"initial": "10ms"}}
NEVER = {"limit": 0}


@dataclass(frozen=True)
class Case:
    """A fault: the tool, what it answers, and what has to come of it."""

    answers: tuple[Answer, ...]
    requests: int
    state: str = "Succeeded"
    says: str = ""
    effect: str = "ReadOnly"
    retry: dict[str, Any] | None = None
    output: Any = None
    http: dict[str, Any] | None = None
    kind: str = "Tool"


SENT: list[int] = []
GIGABYTE = 1 << 30

CASES = {
    "read-404": Case((reply({"error": "no"}, 404),), 1, "Failed", '404 Not Found\\n{"error": "no"}', retry=ONCE_MORE),
    "read-500": Case((reply({"error": "oh"}, 500),), 6, "Failed", "500 Internal Server Error", retry=ONCE_MORE),
    "read-500-then-ok": Case((reply("oh", 503), OK), 2, output={"ok": True}),
    "read-cut-then-ok": Case((cut, OK), 2, output={"ok": True}),
    "read-429-then-ok": Case((reply("slowly", 429, retry_after="0"), OK), 2, output={"ok": True}),
    "read-late": Case((late(60, OK),), 3, "Failed", "no answer within 1 s", http={"timeout": "1s"}),
    "read-late-then-ok": Case((late(60, OK), OK), 2, http={"timeout": "2s"}, output={"ok": True}),
    "read-endless": Case((endless(SENT, GIGABYTE),), 1, "Failed", "larger than the tool's maxBytes, 1048576"),
    "read-no-json": Case((reply(b"{not json"),), 1, output="{not json"),
    "read-html": Case((reply(b"<p>hm", content_type="text/html"),), 1, output="<p>hm"),
    "read-binary": Case(
        (reply(b"\0\1\2", content_type="image/png"),), 1, output={"contentType": "image/png", "bytes": 3}
    ),
    "read-no-output": Case((OK,), 1, "Failed", "output has no value", http={"output": "response.body.there.is.none"}),
    "idempotent-500-then-ok": Case((reply("oh", 500), OK), 2, effect="Idempotent", output={"ok": True}),
    "once-404": Case((reply({"error": "no"}, 404),), 1, "Failed", "404 Not Found", "Once", ONCE_MORE),
    "once-429-then-ok": Case((reply("slowly", 429), OK), 2, effect="Once", retry=ONCE_MORE, output={"ok": True}),
    "once-endless": Case(
        (endless(SENT, GIGABYTE),), 1, "OutcomeUnknown", "HTTP 200 OK, but its body is larger", "Once"
    ),
    "once-500": Case((reply("oh", 500),), 1, "OutcomeUnknown", 'Error: "oh"; look whether it happened', "Once"),
    "once-cut": Case((cut, OK), 2, "OutcomeUnknown", "connection was lost after the request was sent", "Once"),
    "once-late": Case((late(60, OK),), 1, "OutcomeUnknown", "no answer within 2 s", "Once", http={"timeout": "2s"}),
}
UNKNOWN = {"once-500": "happened", "once-cut": "retry", "once-late": "giveUp", "once-endless": "giveUp"}


@pytest.fixture(scope="module")
def run(stage: Shop) -> LocalRun:
    """The run, driven until only a person can move it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/"
    SENT.clear()
    elsewhere = f"{stage.tools.url}/secret"
    tools = [tool("read_down", nowhere), tool("once_down", nowhere, effect="Once")]
    tools.append(tool("redirected", f"{stage.tools.url}/redirected"))
    stage.tools.on("/redirected", reply("", 307, location=elsewhere))
    steps = [call(t["name"].replace("_", "-"), t["name"], retry=NEVER, continueOnError=True) for t in tools]
    for name, case in CASES.items():
        stage.tools.on(f"/{name}", *case.answers)
        its = name.replace("-", "_")
        tools.append(tool(its, f"{stage.tools.url}/{name}", effect=case.effect, **(case.http or {})))
        steps.append(call(name, its, retry=case.retry or NEVER, continueOnError=True))
    made = LocalRun.create(stage.store, workflow(tools=tools, steps=steps), stage.secrets)
    assert asyncio.run(made.drive()) is End.WAITING
    return made


@pytest.fixture(scope="module")
def before(run: LocalRun) -> dict[str, dict[str, Any]]:
    """The steps as they stand before anybody resolves anything."""
    return run.steps


@pytest.fixture(scope="module")
def resolved(run: LocalRun, before: dict[str, Any]) -> LocalRun:
    """The run after a person settled each unknown call in another way, driven to its end."""
    for step, answer in UNKNOWN.items():
        about = {"callId": before[step]["waitingFor"]["callId"], "attempt": run.records(step)[-1].attempt}
        result = {"seen": "it was paid"} if answer == "happened" else None
        run.say("resolved", step=step, **about, answer=answer, result=result, by="ana")
    assert asyncio.run(run.drive()) is End.SUCCEEDED
    return run


@pytest.mark.parametrize("name", CASES)
def test_a_fault_ends_as_promised(name: str, before: dict[str, Any], run: LocalRun) -> None:
    case = CASES[name]
    step = before[name]
    assert step["state"] == case.state, step
    if case.state == "Succeeded":
        assert run.output(name) == case.output
    elif case.state == "Failed":
        assert step["failure"]["class"] == case.kind
        assert case.says in step["failure"]["message"]
    else:
        assert case.says in step["waitingFor"]["resolve"]


@pytest.mark.parametrize("name", CASES)
def test_a_tool_is_asked_as_often_as_its_effect_allows(name: str, resolved: LocalRun, stage: Shop) -> None:
    del resolved
    asked = stage.tools.asked(f"/{name}")
    assert len(asked) == CASES[name].requests
    keys = {one.headers.get("idempotency-key") for one in asked}
    assert len(keys) == 1
    assert (None in keys) == (CASES[name].effect == "ReadOnly")


@pytest.mark.parametrize("name", ["read-down", "once-down"])
def test_a_host_that_is_down_leaves_nothing_unknown(name: str, before: dict[str, Any]) -> None:
    assert before[name]["state"] == "Failed"
    assert before[name]["failure"]["class"] == "Tool"
    assert "the connection failed" in before[name]["failure"]["message"]


def test_a_redirect_is_not_followed(before: dict[str, Any], stage: Shop) -> None:
    message = before["redirected"]["failure"]["message"]
    assert f"307 Temporary Redirect to {stage.tools.url}/secret: redirects are not followed" in message
    assert stage.tools.asked("/secret") == []


def test_an_endless_answer_is_left_early(before: dict[str, Any], stage: Shop) -> None:
    del before
    assert len(SENT) == 2
    assert max(SENT) < 64 << 20


def test_each_answer_of_a_person_does_what_it_says(resolved: LocalRun, stage: Shop) -> None:
    steps = resolved.steps
    assert steps["once-500"]["state"] == "Succeeded"
    assert resolved.output("once-500") == {"seen": "it was paid"}
    assert steps["once-cut"]["state"] == "Succeeded"
    assert resolved.output("once-cut") == {"ok": True}
    assert steps["once-late"]["state"] == "Failed"
    assert steps["once-late"]["failure"]["class"] == "Unknown"
    assert "ana gave up" in steps["once-late"]["failure"]["message"]


async def test_reading_certificates_does_not_count_against_the_tools_timeout(
    stage: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.tools.on("/quick", OK)
    spec = Tool.model_validate(tool("quick", f"{stage.tools.url}/quick", timeout="300ms"))
    read = tls

    def slowly() -> Any:
        time.sleep(0.5)
        return read()

    monkeypatch.setattr("agentrun.runner.transport.tls", slowly)
    client = HttpTool(spec, lambda _: "")
    try:
        assert (await client.call({})).output == {"ok": True}
    finally:
        await client.close()
    assert len(stage.tools.asked("/quick")) == 1
