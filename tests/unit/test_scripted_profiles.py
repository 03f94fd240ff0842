"""The profiles of the scripted model: each endpoint answers and refuses as its row says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from examples.scripted_model import ScriptedModel, ScriptError
from examples.scripted_model.profiles import PROFILES
from examples.scripted_model.quirks import QUIRKS
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.script_places import VALID, places, put, values

CALL: dict[str, Any] = {
    "rules": [{"match": {"turn": 0}, "tool_calls": [{"name": "look_up", "args": {}}]}, {"json": {"a": 1}}]
}
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
SERVED = [(name, api) for name, profile in PROFILES.items() for api in profile.apis]
PATHS = {"chat": "chat/completions", "responses": "responses"}


def ask(script: Any, profile: str, api: str, **body: Any) -> tuple[int, Any]:
    history = {"input": [USER], "store": False} if api == "responses" else {"messages": [USER]}
    whole = {"model": "m", **history, **body}
    path = f"/{profile}/v1/{PATHS[api]}"
    reply = ScriptedModel(script).answer("POST", path, {}, json.dumps(whole).encode())
    return reply.status, json.loads(reply.payload or b"null")


@pytest.mark.parametrize(("profile", "api"), SERVED)
def test_a_profile_answers(profile: str, api: str) -> None:
    for rule in CALL["rules"]:
        status, answer = ask({"rules": [{**rule, "match": {}}]}, profile, api)
        assert (status, answer["model"]) == (200, "m")


@pytest.mark.parametrize("name", QUIRKS)
def test_a_quirk_changes_an_answer(name: str) -> None:
    answers: list[dict[str, Any]] = [{"text": "hi"}, {"json": {"a": 1}}]
    answers += [{"tool_calls": [{"name": "look_up", "args": args}]} for args in ({}, {"a": "b"})]
    assert any(
        str(ask({"rules": [answer]}, "openai", api))
        != str(ask({"rules": [answer | {"quirks": [name]}]}, "openai", api))
        for answer in answers
        for api in PATHS
    )


@pytest.mark.parametrize(
    ("profile", "body", "status", "says"),
    [
        ("mistral", {"max_completion_tokens": 9}, 422, '{"detail": [{"type": "extra_forbidden"'),
        ("deepseek", {"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "unavailable now"),
        ("gemini", {"tools": [TOOL], "response_format": {"type": "json_object"}}, 400, '[{"error"'),
        ("azure", {"tools": [TOOL], "parallel_tool_calls": True}, 400, "Unrecognized request argument"),
        ("openai", {"messages": [{"role": "assistant", "content": None}]}, 400, "expected a string, got null"),
        ("ollama", {"messages": [{"role": "assistant", "content": None}]}, 400, '{"error": "invalid message'),
        ("bedrock", {"messages": [{"role": "assistant", "content": " "}]}, 400, '{"message": "The text field'),
        ("groq", {"messages": [{"role": "assistant", "content": "a", "reasoning": "b"}]}, 400, "is unsupported"),
    ],
)
def test_a_profile_refuses(profile: str, body: dict[str, Any], status: int, says: str) -> None:
    found, answer = ask(CALL, profile, "chat", **body)
    assert (found, says in json.dumps(answer)) == (status, True), answer


@pytest.mark.parametrize(
    ("profile", "message", "says"),
    [
        ("mistral", {"tool_calls": [{"id": "call_1"}]}, "a length of 9"),
        ("gemini", {"tool_calls": [{"id": "a"}]}, "thought_signature"),
        ("deepseek", {"tool_calls": [{"id": "a"}]}, "Missing `reasoning_content`"),
        ("vllm", {"tool_calls": [{"id": "a", "function": {"arguments": ""}}]}, "Expecting value"),
    ],
)
def test_a_history_that_a_profile_refuses(profile: str, message: Any, says: str) -> None:
    history = [USER, {"role": "assistant", "content": None, **message}]
    status, answer = ask(CALL, profile, "chat", messages=history)
    assert status in (400, 422)
    assert says in str(answer)


def test_an_api_that_a_profile_lacks() -> None:
    assert ask(CALL, "mistral", "responses")[0] == 404
    assert ask(CALL, "nobody", "chat")[0] == 404


def test_azure_by_deployment() -> None:
    raw = json.dumps({"model": "m", "messages": [USER]}).encode()
    place = "/azure/openai/deployments/d/chat/completions"
    assert ScriptedModel(CALL).answer("POST", f"{place}?api-version=2024-10-21", {}, raw).status == 200
    assert ScriptedModel(CALL).answer("POST", place, {}, raw).status == 404
    assert ScriptedModel(CALL).answer("POST", place.replace("azure", "openai"), {}, raw).status == 404


def test_a_failure_of_quirks_is_used_up() -> None:
    model = ScriptedModel({"rules": [{"text": "hi", "fail": [{"quirks": ["finish-error"]}]}]}, profile="groq")
    raw = json.dumps({"model": "m", "messages": [USER]}).encode()
    first, second = (model.answer("POST", "/v1/chat/completions", {}, raw) for _ in range(2))
    assert json.loads(first.payload or b"")["choices"][0]["error"]["code"] == 502
    assert json.loads(second.payload or b"")["choices"][0]["finish_reason"] == "stop"
    assert [line["answer"] for line in model.ledger] == ["quirks", "ok"]
    assert model.ledger[0]["profile"] == "groq"


def test_names_that_are_none() -> None:
    with pytest.raises(ScriptError, match="no profile 'mistrall'; there are openai, gemini"):
        ScriptedModel(CALL, profile="mistrall")
    with pytest.raises(ScriptError, match=r"rules\[0\]\.quirks: unknown odd; known are id-empty"):
        ScriptedModel({"rules": [{"text": "a", "quirks": ["odd"]}]})


@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(VALID)), st.sampled_from(sorted(PROFILES)), values)
def test_whatever_is_sent_to_a_profile_is_answered(data: st.DataObject, path: str, profile: str, value: Any) -> None:
    place = data.draw(st.sampled_from(sorted(places(VALID[path]), key=repr)))
    raw = json.dumps(put(VALID[path], place, value)).encode()
    reply = ScriptedModel(CALL).answer("POST", f"/{profile}{path}", {}, raw)
    assert reply.status in (200, 400, 404, 422)


def test_every_module_of_the_model_is_there_on_a_cluster() -> None:
    """One that was not listed left the model of the refund example without a module to import."""
    folder = Path(__file__).parents[2] / "examples"
    listed = (folder / "kustomization.yaml").read_text()
    assert [
        path.name for path in (folder / "scripted_model").glob("*.py") if f"scripted_model/{path.name}" not in listed
    ] == []
