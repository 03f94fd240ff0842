"""The scripted model through the real openai client: what it answers, what it refuses, how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from examples.scripted_model import ScriptedModel, ScriptError
from examples.scripted_model.script import read, render
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

from tests.harness.script_places import (
    ASSISTANT,
    CALL,
    CHAT_CALL,
    CHAT_LOOK_UP,
    LOOK_UP,
    RESULT,
    SCHEMA,
    SEALED,
    TEXT,
    TOOL,
    USER,
    VALID,
    places,
    put,
    values,
)

ROOT = Path(__file__).parents[2]

REFUND = """
rules:
  - match: {turn: 0, regex: 'Order (?P<order>[0-9]+)'}
    reasoning: true
    tool_calls:
      - {name: look_up_order, args: {orderId: "{{order}}"}}
      - {name: find_customer, args: {email: ana@example.com}}
  - match: {after_tool: find_customer, turn: 1}
    reasoning: true
    json: {refund: true, amount: "{{tool.look_up_order.items.0.price}}", why: "{{tool.find_customer.name}}: {{order}}"}
"""
REFUND = REFUND.replace(
    "{after_tool: find_customer, turn: 1}", "{after_tool: find_customer, turn: 1, regex: '(?P<order>4711)'}"
)
RESULTS = {"look_up_order": {"items": [{"price": 129.0}]}, "find_customer": {"name": "Ana"}}
HELLO = {"rules": [{"text": "hello"}]}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ScriptedModel, OpenAI]]:
    with (
        ScriptedModel(HELLO) as model,
        OpenAI(base_url=model.url, api_key="secret", max_retries=0, timeout=20) as client,
    ):
        yield model, client


@pytest.fixture
def model(served: tuple[ScriptedModel, OpenAI]) -> ScriptedModel:
    served[0].script = HELLO
    served[0].requests.clear()
    served[0].ledger.clear()
    return served[0]


@pytest.fixture
def client(served: tuple[ScriptedModel, OpenAI], model: ScriptedModel) -> OpenAI:
    return served[1]


def ask(client: OpenAI, asked: Any = TEXT, **more: Any) -> Any:
    return client.responses.create(**{"model": "gpt-5.5", "store": False, "include": SEALED, "input": asked, **more})


def ask_chat(client: OpenAI, messages: Any = None, **more: Any) -> Any:
    messages = messages or [{"role": "user", "content": TEXT}]
    return client.chat.completions.create(**{"model": "gpt-5.5", "messages": messages, **more})


def refused(response: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        response()
    assert set(caught.value.body or {}) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
    return caught.value


def items(response: Any) -> list[dict[str, Any]]:
    return [item.to_dict(mode="json") for item in response.output]


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: without(part, names) for name, part in value.items() if name not in names}
    return [without(part, names) for part in value] if isinstance(value, list) else value


def outputs(response: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": json.dumps(RESULTS[item.name])}
        for item in response.output
        if item.type == "function_call"
    ]


def test_responses_tool_loop_with_reasoning(model: ScriptedModel, client: OpenAI) -> None:
    model.script = yaml.safe_load(REFUND)
    history: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]
    first = ask(client, history, tools=[LOOK_UP], instructions="Decide.", parallel_tool_calls=True)
    assert [item.type for item in first.output] == ["reasoning", "function_call", "function_call"]
    assert json.loads(first.output[1].arguments) == {"orderId": "4711"}
    assert first.output[1].call_id != first.output[2].call_id

    history += items(first) + outputs(first)
    second = ask(client, history, tools=[LOOK_UP], instructions="Decide.", parallel_tool_calls=True)
    assert json.loads(second.output_text) == {"refund": True, "amount": 129.0, "why": "Ana: 4711"}
    assert second.id != first.id
    assert second.output[0].encrypted_content != first.output[0].encrypted_content
    assert [entry["turn"] for entry in model.ledger] == [0, 1]


def test_results_between_the_calls_of_a_turn_do_not_make_two_turns(model: ScriptedModel, client: OpenAI) -> None:
    model.script = yaml.safe_load(REFUND)
    first = ask(client)
    reasoning, one, two = items(first)
    result_one, result_two = outputs(first)
    second = ask(client, [{"role": "user", "content": TEXT}, reasoning, one, result_one, two, result_two])
    assert model.ledger[-1]["turn"] == 1
    assert second.output_text


def test_calls_with_foreign_ids_are_turns_of_their_own(model: ScriptedModel, client: OpenAI) -> None:
    history: list[Any] = [{"role": "user", "content": TEXT}]
    for name in ("call_1", "call_2"):
        history.append({"type": "function_call", "call_id": name, "name": "look_up_order", "arguments": "{}"})
        history.append(
            {"type": "function_call_output", "call_id": name, "output": [{"type": "input_text", "text": "x"}]}
        )
    ask(client, history)
    assert model.ledger[-1]["turn"] == 2


@pytest.mark.parametrize("damage", ["dropped", "changed", "unsealed", "foreign"])
def test_reasoning_must_come_back_verbatim(model: ScriptedModel, client: OpenAI, damage: str) -> None:
    model.script = yaml.safe_load(REFUND)
    first = ask(client)
    foreign = items(ask(client, f"{TEXT} Again."))
    reasoning, *calls = items(first)
    seal = reasoning["encrypted_content"]
    damaged = {
        "dropped": [],
        "changed": [{**reasoning, "encrypted_content": seal[:-2] + ("A" if seal[-2] != "A" else "B") + seal[-1]}],
        "unsealed": [{**reasoning, "encrypted_content": None}],
        "foreign": [foreign[0]],
    }[damage]
    error = refused(lambda: ask(client, [{"role": "user", "content": TEXT}, *damaged, *calls, *outputs(first)]))
    expected = {
        "dropped": "without its required 'reasoning' item",
        "changed": "could not be verified",
        "unsealed": "Items are not persisted",
        "foreign": "without its required 'reasoning' item",
    }[damage]
    assert expected in error.message
    assert model.ledger[-1]["answer"] == "400"


def test_reasoning_is_sealed_only_for_those_who_ask(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"reasoning": True, "text": "hi"}]}
    first = ask(client, include=[])
    assert first.output[0].encrypted_content is None
    error = refused(lambda: ask(client, [{"role": "user", "content": TEXT}, *items(first)]))
    assert "reasoning.encrypted_content" in error.message


def test_reasoning_without_what_follows_it(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"reasoning": True, "text": "hi"}]}
    reasoning, message = items(ask(client))
    user = {"role": "user", "content": TEXT}
    assert "required following item" in refused(lambda: ask(client, [user, reasoning])).message
    assert "required 'reasoning' item" in refused(lambda: ask(client, [user, message])).message
    assert ask(client, [user, reasoning, message, user]).output_text == "hi"


def test_chat_tool_loop(model: ScriptedModel, client: OpenAI) -> None:
    model.script = yaml.safe_load(REFUND)
    messages: list[Any] = [{"role": "system", "content": "Decide."}, {"role": "user", "content": TEXT}]
    first = ask_chat(client, messages, tools=[CHAT_LOOK_UP], tool_choice="auto").choices[0]
    assert first.finish_reason == "tool_calls"
    messages.append(first.message.to_dict(mode="json"))
    for call in first.message.tool_calls:
        content = json.dumps(RESULTS[call.function.name])
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    second = ask_chat(client, messages, tools=[CHAT_LOOK_UP]).choices[0]
    assert second.finish_reason == "stop"
    assert json.loads(second.message.content) == {"refund": True, "amount": 129.0, "why": "Ana: 4711"}
    assert [(entry["api"], entry["turn"]) for entry in model.ledger] == [("chat", 0), ("chat", 1)]


@pytest.mark.parametrize("rule", [{"text": "a longer text, in several pieces"}, {"tool_calls": [{"name": "t"}] * 2}])
def test_streams_end_in_what_is_answered_at_once(model: ScriptedModel, client: OpenAI, rule: dict[str, Any]) -> None:
    model.script = {"rules": [{**rule, "reasoning": True}]}
    with client.responses.stream(model="m", input=TEXT, store=False, include=SEALED) as stream:
        events: list[Any] = list(stream)
        final: Any = stream.get_final_response()
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))
    parsed = {"parsed", "parsed_arguments"}  # what the client adds to what was sent
    done = [event.item.to_dict(mode="json") for event in events if event.type == "response.output_item.done"]
    assert done == [without(item, parsed) for item in items(final)]
    opened = next(event.item for event in events if event.type == "response.output_item.added")
    assert opened.encrypted_content != final.output[0].encrypted_content  # only the item's end has it whole

    with client.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": TEXT}], stream_options={"include_usage": True}
    ) as chat_stream:
        completion = chat_stream.until_done().get_final_completion()
    whole = ask_chat(client)
    assert completion.choices[0].message.content == whole.choices[0].message.content
    streamed_calls = [call.function.name for call in completion.choices[0].message.tool_calls or []]
    assert streamed_calls == [call.function.name for call in whole.choices[0].message.tool_calls or []]
    assert completion.choices[0].finish_reason == whole.choices[0].finish_reason
    assert completion.usage is not None


def test_a_stream_keeps_its_pieces_in_order(model: ScriptedModel, client: OpenAI) -> None:
    text = "äöü — " * 40
    model.script = {"rules": [{"text": text}]}
    stream = client.responses.create(model="m", input=TEXT, store=False, stream=True)
    deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == text
    chunks = client.chat.completions.create(model="m", messages=[{"role": "user", "content": TEXT}], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text


async def test_many_at_once() -> None:
    with ScriptedModel(HELLO) as model:
        async with AsyncOpenAI(base_url=model.url, api_key="k", max_retries=0) as client:
            asked = (client.responses.create(model="m", input=f"{i}", store=False) for i in range(40))
            answers = await asyncio.gather(*asked)
    assert {answer.output_text for answer in answers} == {"hello"}
    assert len({answer.id for answer in answers}) == 40
    assert [entry["n"] for entry in model.ledger] == list(range(1, 41))
    assert {str(body["input"]) for body in model.requests} == {f"{i}" for i in range(40)}


def test_repeats_are_the_same_bytes_even_after_a_restart(tmp_path: Path) -> None:
    script = yaml.safe_load(REFUND)

    def once() -> list[bytes]:
        with ScriptedModel(script) as model, OpenAI(base_url=model.url, api_key="k", max_retries=0) as client:
            raw = client.responses.with_raw_response
            return [raw.create(model="m", input=TEXT, store=False, include=SEALED).content for _ in range(2)]

    first, again = once()
    assert first == again
    assert once() == [first, again]


def test_usage(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {
        "rules": [
            {"match": {"model": "counted"}, "text": "x", "usage": {"input": 900, "cached": 512, "output": 80}},
            {"text": "x" * 400, "usage": {"reasoning": 50}},
        ]
    }
    counted = ask(client, model="counted").usage
    assert (counted.input_tokens, counted.input_tokens_details.cached_tokens, counted.output_tokens) == (900, 512, 80)
    assert counted.total_tokens == 980
    guessed = ask(client).usage
    assert (guessed.output_tokens, guessed.output_tokens_details.reasoning_tokens) == (150, 50)
    assert ask(client, TEXT * 100).usage.input_tokens > guessed.input_tokens
    chat_usage = ask_chat(client, model="counted").usage
    assert (chat_usage.prompt_tokens, chat_usage.prompt_tokens_details.cached_tokens) == (900, 512)
    assert model.ledger[0]["usage"] == {"input": 900, "cached": 512, "output": 80}


def test_the_first_rule_that_matches_answers(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {
        "rules": [
            {"match": {"text": "broken", "model": "other"}, "text": "both"},
            {"match": {"text": "broken"}, "text": "text"},
            {"match": {"turn": 1}, "text": "turn"},
        ]
    }
    assert ask(client, model="other").output_text == "both"
    assert ask(client).output_text == "text"
    history = [
        {"role": "user", "content": "whole"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "broken"},
    ]
    assert ask(client, history).output_text == "turn"
    error = refused(lambda: ask(client, "whole"))
    assert error.code == "no_rule"
    assert "whole" in error.message
    assert [entry["rule"] for entry in model.ledger] == [0, 1, 2, None]


def test_failing_statuses_are_used_up_one_by_one(model: ScriptedModel, client: OpenAI) -> None:
    fail = [{"status": 429, "retry_after": 1}, {"status": 500}, {"status": 429, "code": "insufficient_quota"}]
    model.script = {"rules": [{"text": "hello", "fail": fail}]}
    with pytest.raises(openai.RateLimitError) as limited:
        ask(client)
    assert limited.value.response.headers["retry-after"] == "1"
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.InternalServerError):
        ask_chat(client)
    with pytest.raises(openai.RateLimitError) as out_of_money:
        ask(client, stream=True)
    assert out_of_money.value.code == "insufficient_quota"
    assert ask(client).output_text == "hello"
    assert [entry["answer"] for entry in model.ledger] == ["429", "500", "429", "ok"]


def test_failing_for_ever_until_the_script_is_replaced(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"fail_always": {"status": 503}}]}
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            ask(client)
    model.script = HELLO
    assert ask(client).output_text == "hello"


@pytest.mark.parametrize("stream", [False, True])
def test_cut_is_in_the_ledger_and_not_on_the_wire(model: ScriptedModel, client: OpenAI, stream: bool) -> None:
    model.script = {"rules": [{"text": "hello", "fail": [{"cut": True}]}]}
    with pytest.raises(openai.APIConnectionError):
        ask(client, stream=stream)
    again = ask(client)
    assert again.output_text == "hello"
    assert [entry["answer"] for entry in model.ledger] == ["cut", "ok"]
    assert model.ledger[0]["usage"] == model.ledger[1]["usage"]
    assert model.ledger[0]["digest"] == model.ledger[1]["digest"]
    assert model.ledger[0]["id"] == again.id


def test_hanging_ends_with_the_client_s_timeout(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"text": "hello", "fail": [{"hang": 3600}, {"hang": 0}]}]}
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.2)
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert ask(client).output_text == "hello"
    assert [entry["answer"] for entry in model.ledger] == ["hang", "hang", "ok"]


def test_latency_comes_after_the_ledger(tmp_path: Path) -> None:
    # The answer would take an hour: that its line can be read, and that closing does not wait, is the proof.
    ledger = tmp_path / "ledger.jsonl"
    with ScriptedModel({"rules": [{"text": "hello", "latency": 3600}]}, ledger) as model:
        client = OpenAI(base_url=model.url, api_key="k", max_retries=0, timeout=0.3)
        with client, pytest.raises(openai.APITimeoutError):
            ask(client)
        while not (line := ledger.read_text()):
            threading.Event().wait(0.01)  # the client may have given up before the server was scheduled
        assert json.loads(line)["answer"] == "ok"


def test_malformed(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"text": "hello", "fail": [{"malformed": True}] * 4}]}
    with pytest.raises(json.JSONDecodeError):
        ask(client)
    with pytest.raises(json.JSONDecodeError):
        ask_chat(client)
    with pytest.raises(json.JSONDecodeError):
        list(ask(client, stream=True))
    with pytest.raises(json.JSONDecodeError):
        list(ask_chat(client, stream=True))
    assert ask(client).output_text == "hello"


def test_refusal(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"text": "hello", "fail_always": {"refuse": "Not that."}}]}
    answer = ask(client)
    assert [(part.type, part.refusal) for part in answer.output[0].content] == [("refusal", "Not that.")]
    assert answer.status == "completed"
    message = ask_chat(client).choices[0].message
    assert (message.refusal, message.content) == ("Not that.", None)
    types = [event.type for event in ask(client, stream=True)]
    assert "response.refusal.done" in types


def test_incomplete(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {
        "rules": [
            {"match": {"text": "call"}, "tool_calls": [{"name": "t", "args": {"a": "b" * 20}}] * 2},
            {"text": "0123456789"},
        ]
    }
    for rule in model.script["rules"]:
        rule["fail_always"] = {"incomplete": "max_output_tokens"}
    model.script = model.script
    answer = ask(client)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "01234"
    assert ask_chat(client).choices[0].finish_reason == "length"
    assert [event.type for event in ask(client, stream=True)][-1] == "response.incomplete"
    (call,) = ask(client, "call").output
    assert call.status == "incomplete"
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.arguments)


def test_arguments_that_are_no_json(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"rules": [{"tool_calls": [{"name": "t", "args": '{"a": '}]}]}
    assert ask(client).output[0].arguments == '{"a": '


@pytest.mark.parametrize(
    ("request_part", "message"),
    [
        ({"asked": [USER, CALL]}, "No tool output found for function call call_a."),
        ({"asked": [USER, RESULT]}, "No tool call found for function call output with call_id call_a."),
        ({"asked": [USER, RESULT, CALL]}, "No tool call found"),
        ({"asked": [USER, CALL, CALL, RESULT]}, "Duplicate function call"),
        ({"asked": [USER, CALL, RESULT, RESULT]}, "Duplicate function call output"),
        ({"asked": [USER, {**CALL, "id": "call_a"}, RESULT]}, "begins with 'fc'"),
        ({"asked": [USER, {**CALL, "parsed_arguments": {}}, RESULT]}, "Unknown parameter: 'input[1].parsed_arguments'"),
        ({"asked": [{"role": "tool", "content": "x"}]}, "Invalid value: 'tool'"),
        ({"asked": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]}, "'output_text'"),
        ({"asked": []}, "empty array"),
        ({"asked": [{"type": "item_reference", "id": "msg_1"}]}, "Invalid value: 'item_reference'"),
        ({"store": True}, "'store' must be false"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"max_output_tokens": 5}, "Expected a value >= 16"),
        ({"include": ["everything"]}, "Invalid value: 'everything'"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"reasoning": {"effort": "heroic"}}, "Invalid value: 'heroic'"),
        ({"tool_choice": "sometimes"}, "Invalid value: 'sometimes'"),
        ({"tool_choice": "required"}, "must be specified with 'tools'"),
        ({"tool_choice": {"type": "function", "name": "other"}, "tools": [LOOK_UP]}, "'other' not found"),
        ({"tools": [{**LOOK_UP, "name": "crm.find"}]}, "does not match pattern"),
        ({"tools": [LOOK_UP, LOOK_UP]}, "used twice"),
        ({"tools": [{**LOOK_UP, "parameters": {"type": "string"}}]}, "schema must be a JSON Schema"),
        ({"tools": [{**LOOK_UP, "parameters": {"type": "object", "properties": {}}}]}, "'additionalProperties'"),
        ({"tools": [{"type": "web_search"}]}, "Invalid value: 'web_search'"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "'text.format.name'"),
        ({"text": {"format": {"type": "json_schema", "name": "decision"}}}, "'text.format.schema'"),
        ({"text": {"format": {**SCHEMA, "strict": True}}}, "'additionalProperties'"),
        ({"extra_body": {"inputs": 1}}, "Unknown parameter: 'inputs'"),
        ({"extra_body": {"stream": "yes"}}, "expected a boolean"),
    ],
)
def test_requests_that_openai_refuses(
    model: ScriptedModel, client: OpenAI, request_part: dict[str, Any], message: str
) -> None:
    error = refused(lambda: ask(client, **request_part))
    assert message in error.message
    assert error.type == "invalid_request_error"
    assert model.ledger[-1]["answer"] == "400"


@pytest.mark.parametrize(
    ("request_part", "message"),
    [
        ({"messages": [USER, ASSISTANT]}, "must be followed by tool messages"),
        ({"messages": [USER, ASSISTANT, USER, TOOL]}, "must be followed by tool messages"),
        ({"messages": [USER, TOOL]}, "must be a response to a preceeding message"),
        ({"messages": [USER, ASSISTANT, TOOL, TOOL]}, "must be a response to a preceeding message"),
        ({"messages": [USER, {**ASSISTANT, "tool_calls": [CHAT_CALL, CHAT_CALL]}, TOOL]}, "Duplicate value"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "expected a string, got null"),
        ({"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": []}]}, "empty array"),
        ({"store": True}, "'store' must be false"),
        ({"tools": []}, "empty array"),
        ({"tool_choice": "auto"}, "only allowed when 'tools' are specified"),
        ({"parallel_tool_calls": False}, "only allowed when 'tools' are specified"),
        ({"tools": [CHAT_LOOK_UP], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x' not found"),
        ({"tools": [LOOK_UP]}, "Unknown parameter: 'tools[0].name'"),
        ({"response_format": {"type": "json_schema"}}, "'response_format.json_schema'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "json_schema.name"),
        ({"stream_options": {"include_usage": True}}, "only allowed when 'stream' is enabled"),
        ({"n": 2}, "'n' must be 1"),
        ({"extra_body": {"input": "x"}}, "Unknown parameter: 'input'"),
    ],
)
def test_chat_requests_that_openai_refuses(client: OpenAI, request_part: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: ask_chat(client, **request_part)).message


def test_all_that_a_runner_sends_is_accepted(model: ScriptedModel, client: OpenAI) -> None:
    answer = ask(
        client,
        [USER, CALL, RESULT],
        instructions="Decide.",
        tools=[LOOK_UP],
        tool_choice={"type": "function", "name": "look_up_order"},
        parallel_tool_calls=False,
        max_output_tokens=1000,
        metadata={"run": "refund-4711"},
        reasoning={"effort": "low"},
        temperature=0.2,
        text={"format": {**SCHEMA, "schema": {**SCHEMA["schema"], "additionalProperties": False}, "strict": True}},
    )
    assert answer.output_text == "hello"
    assert answer.metadata == {"run": "refund-4711"}
    assert model.requests[-1]["metadata"] == {"run": "refund-4711"}


def test_a_rule_that_does_not_fit_the_request_says_so(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {
        "rules": [
            {"match": {"text": "two"}, "tool_calls": [{"name": "t"}] * 2},
            {"text": "{{tool.look_up_order.total}}"},
        ]
    }
    two = refused(lambda: ask(client, "two", tools=[LOOK_UP], parallel_tool_calls=False))
    assert (two.code, "parallel_tool_calls" in two.message) == ("script_error", True)
    absent = refused(lambda: ask(client))
    assert "rules[1]: {{tool.look_up_order.total}}: the history has no result of 'look_up_order'" in absent.message
    assert "no 'total' in {}" in refused(lambda: ask(client, [USER, CALL, RESULT])).message


def test_models(model: ScriptedModel, client: OpenAI) -> None:
    model.script = {"models": ["gpt-5.5"], "rules": [{"text": "hello"}]}
    assert [one.id for one in client.models.list()] == ["gpt-5.5"]
    assert client.models.retrieve("gpt-5.5").id == "gpt-5.5"
    with pytest.raises(openai.NotFoundError):
        ask(client, model="gpt-1")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-1")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="gpt-5.5", input="x")
    assert [entry["answer"] for entry in model.ledger] == ["404"]


def test_the_ledger_tells_all_but_the_key(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text('{"n": 1, "from": "the server before"}\n')
    with ScriptedModel(HELLO, ledger) as model, OpenAI(base_url=model.url, api_key="secret", max_retries=0) as client:
        ask(client, extra_headers={"Idempotency-Key": "k-1"})
        ask(client)
        text = ledger.read_text()
    lines = [json.loads(line) for line in text.splitlines()][1:]
    assert lines == model.ledger
    assert "secret" not in text
    assert lines[0]["headers"] == {
        "authorization": True,
        "idempotency-key": "k-1",
        "user-agent": f"OpenAI/Python {openai.__version__}",
    }
    assert lines[0]["digest"] == lines[1]["digest"]
    assert {"n": 1, "api": "responses", "model": "gpt-5.5", "turn": 0, "answer": "ok", "rule": 0}.items() <= lines[
        0
    ].items()


def test_a_required_key(tmp_path: Path) -> None:
    with ScriptedModel(HELLO, key="right") as model:
        for key, accepted in (("wrong", False), ("right", True)):
            with OpenAI(base_url=model.url, api_key=key, max_retries=0) as client:
                if accepted:
                    assert ask(client).output_text == "hello"
                    continue
                with pytest.raises(openai.AuthenticationError):
                    ask(client)
                with pytest.raises(openai.AuthenticationError):
                    client.models.list()
        assert [entry["answer"] for entry in model.ledger] == ["401", "ok"]


def test_a_body_that_is_no_json(model: ScriptedModel, client: OpenAI) -> None:
    import httpx2

    with httpx2.Client() as http:
        reply = http.post(f"{model.url}/responses", content=b"{")
        assert reply.status_code == 400
        assert "could not parse" in reply.json()["error"]["message"]
        assert http.post(f"{model.url}/responses", content=b"[]").status_code == 400
        assert http.post(f"{model.url}/responses", content=iter([b"{}"])).status_code == 411
    assert ask(client).output_text == "hello"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([], "the script: expected a mapping"),
        ({"rules": []}, "needs at least one rule"),
        ({"rules": [{}]}, r"rules\[0\]: no answer"),
        ({"rules": [{"text": "a", "json": 1}]}, "not both"),
        ({"rules": [{"text": "a", "match": {"turns": 0}}]}, r"rules\[0\]\.match: unknown turns; known are text"),
        ({"rules": [{"text": "a", "match": {"regex": "("}}]}, r"match\.regex"),
        ({"rules": [{"text": "a", "match": {"turn": -1}}]}, r"match\.turn"),
        ({"rules": [{"text": "a", "fail": [{"status": 200}]}]}, r"rules\[0\]\.fail\[0\]\.status: 200"),
        ({"rules": [{"text": "a", "fail": [{"status": 500, "cut": True}]}]}, "exactly one of"),
        ({"rules": [{"text": "a", "fail": [{"cut": True, "retry_after": 1}]}]}, "belong to `status`"),
        ({"rules": [{"text": "a", "fail": [{"incomplete": "bored"}]}]}, "incomplete"),
        ({"rules": [{"text": "a", "latency": float("inf")}]}, "latency"),
        ({"rules": [{"tool_calls": [{"name": "t", "args": 1}]}]}, r"tool_calls\[0\]\.args"),
    ],
)
def test_scripts_that_are_refused(script: Any, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        read(script)


@settings(max_examples=50)
@given(values)
def test_templates_keep_the_type_of_what_they_name(value: Any) -> None:
    assert render({"a": ["{{tool.t.field}}"]}, {}, {"t": {"field": value}}) == {"a": [value]}
    expected = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    assert render("<{{ tool.t.field }}>", {}, {"t": {"field": value}}) == f"<{expected}>"


@pytest.mark.parametrize("path", VALID)
def test_the_requests_that_are_broken_below_are_whole(path: str) -> None:
    assert ScriptedModel(HELLO).answer("POST", path, {}, json.dumps(VALID[path]).encode()).status == 200


@settings(max_examples=120)
@given(st.data(), st.sampled_from(sorted(VALID)), values)
def test_whatever_is_sent_is_answered_in_openai_s_form(data: st.DataObject, path: str, value: Any) -> None:
    place = data.draw(st.sampled_from(sorted(places(VALID[path]), key=repr)))
    raw = json.dumps(put(VALID[path], place, value)).encode()
    reply = ScriptedModel(HELLO).answer("POST", path, {}, raw)
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert set(json.loads(reply.payload or b"")["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"[" * 100_000, b'{"model": "\\ud800", "messages": []}', b"\xff"])
def test_bodies_that_are_no_request(tmp_path: Path, raw: bytes) -> None:
    with ScriptedModel(HELLO, tmp_path / "ledger.jsonl") as model:
        assert model.answer("POST", "/v1/chat/completions", {}, raw).status == 400
        assert json.loads((tmp_path / "ledger.jsonl").read_text())["answer"] == "400"


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    script, port_file, ledger = tmp_path / "script.yaml", tmp_path / "port", tmp_path / "ledger.jsonl"
    script.write_text(REFUND)
    command = [sys.executable, "-m", "examples.scripted_model", str(script)]
    command += ["--port-file", str(port_file), "--ledger", str(ledger), "--require-key"]
    environment = {**os.environ, "SCRIPTED_MODEL_KEY": "right"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url == f"http://127.0.0.1:{port_file.read_text().strip()}/v1"
        with OpenAI(base_url=url, api_key="right", max_retries=0) as client:
            assert ask(client).output[1].name == "look_up_order"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert json.loads(ledger.read_text())["answer"] == "ok"


def test_the_command_explains_a_bad_script(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{txt: hello}]")
    command = [sys.executable, "-m", "examples.scripted_model", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: rules[0]: unknown txt; known are match, text")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with ScriptedModel(HELLO) as first:
        second = ScriptedModel(HELLO, tmp_path / "ledger.jsonl", port=first.port)
        with pytest.raises(OSError, match=f"127.0.0.1:{first.port}.*in use"), second:
            pass
        with pytest.raises(RuntimeError, match="not open"):
            _ = second.url
