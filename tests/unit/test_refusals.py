"""What endpoints refuse, in their words as they were recorded: it is left out or replaced, once, and remembered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrun.api.workflow import FailureClass
from agentrun.runner import chat, refusals, responses
from tests.harness.loopback import reply
from tests.harness.model_bench import OK, ModelBench
from tests.harness.refused_requests import (
    CHAT,
    CHAT_OK,
    EVERYTHING,
    RESPONSES,
    error,
    forbidden,
    learned,
    sent,
    unsupported,
)


@pytest.mark.parametrize("name", CHAT)
def test_chat_without_what_is_refused(name: str) -> None:
    word, status, answer = CHAT[name]
    first, second = learned(chat.body_of, word, status, answer)
    assert len(second["tools"]) == len(first["tools"]) == 2
    assert second["max_tokens" if word == refusals.MAX_COMPLETION_TOKENS else "max_completion_tokens"] == 500
    told = str(second["messages"])
    assert "Decide." in told
    if word in (refusals.JSON_SCHEMA, refusals.FORMAT_WITH_TOOLS):
        assert "valid under this JSON Schema" in told
        assert second.get("response_format") == ({"type": "json_object"} if word == refusals.JSON_SCHEMA else None)
    if word == refusals.SYSTEM:
        assert second["messages"] == [{"role": "user", "content": "Decide.\n\nhi"}]


@pytest.mark.parametrize("name", RESPONSES)
def test_responses_without_what_is_refused(name: str) -> None:
    word, status, answer = RESPONSES[name]
    first, second = learned(responses.body_of, word, status, answer)
    assert len(second["tools"]) == len(first["tools"]) == 2
    assert second["max_output_tokens"] == 500
    if word == refusals.STRICT_SCHEMAS:
        assert [tool["strict"] for tool in second["tools"]] == [False, False]
    if word in (refusals.JSON_SCHEMA, refusals.FORMAT_WITH_TOOLS):
        assert "valid under this JSON Schema" in second["instructions"]
    if word == refusals.INSTRUCTIONS:
        assert second["input"][0] == {"role": "system", "content": "Decide."}


async def learns(model: ModelBench, ok: Any, word: str, status: int, answer: Any) -> None:
    """Check that a refusal is learned once and remembered."""
    refused: set[str] = set()
    data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    assert (await model.ask(reply(data, status=status), ok, refused=refused, **EVERYTHING)).text == "hello"
    assert refused == {word}
    assert (await model.ask(ok, **EVERYTHING)).text == "hello"
    assert not model.pauses
    assert [sent(word, received.json) for received in model.server.received] == [True, False, False]


@pytest.mark.parametrize("name", ["openai-o1", "rust", "mistral", "deepseek", "openrouter", "google", "server-error"])
async def test_a_refusal_is_learned_once_over_http(chatty: ModelBench, name: str) -> None:
    await learns(chatty, CHAT_OK, *CHAT[name])


@pytest.mark.parametrize("name", ["include", "store-google", "schema"])
async def test_a_refusal_is_learned_once_over_http_by_responses(model: ModelBench, name: str) -> None:
    await learns(model, OK, *RESPONSES[name])


async def test_an_error_inside_an_answer_is_a_refusal_as_well(chatty: ModelBench) -> None:
    await learns(chatty, CHAT_OK, "parallel_tool_calls", 200, unsupported("parallel_tool_calls"))


async def test_one_thing_after_the_other(chatty: ModelBench) -> None:
    """An endpoint that takes next to nothing."""
    refused: set[str] = set()
    answers = [
        unsupported("parallel_tool_calls"),
        forbidden("max_completion_tokens"),
        error("Invalid schema for function 'pay'"),
        error("This response_format type is unavailable now"),
        error("'response_format.type' must be 'json_schema' or 'text'"),
        error("System role not supported"),
    ]
    turn = await chatty.ask(*(reply(a, status=400) for a in answers), CHAT_OK, refused=refused, **EVERYTHING)
    assert turn.text == "hello"
    assert refused == {
        "parallel_tool_calls", "max_completion_tokens", "strict-schemas", "json_schema", "json_object", "system",
    }  # fmt: skip
    last = chatty.server.received[-1].json
    assert set(last) == {"model", "messages", "tools", "max_tokens"}
    assert not any("strict" in tool["function"] for tool in last["tools"])


async def test_a_model_of_the_other_api_is_named(chatty: ModelBench, model: ModelBench) -> None:
    failure = await chatty.fails(
        reply(error("This model is only supported in v1/responses and not in v1/chat/completions."), status=404),
        **EVERYTHING,
    )
    assert "write api: responses for the model" in failure.message
    failure = await model.fails(
        reply(error("The Responses API is not supported here; use chat completions."), status=400), **EVERYTHING
    )
    assert "write api: chat for the model" in failure.message


async def test_json_has_to_be_asked_for_in_a_message(model: ModelBench) -> None:
    """OpenAI looks for the word in the input, and not in the instructions."""
    words = "Response input messages must contain the word 'json' to use 'text.format' of type 'json_object'."
    refused = {"json_schema"}
    turn = await model.ask(reply(error(words, param="input"), status=400), OK, refused=refused, **EVERYTHING)
    assert turn.text == "hello"
    assert refused == {"json_schema", "json_object"}
    assert "text" not in model.server.received[-1].json


async def test_what_is_known_is_not_sent(model: ModelBench, chatty: ModelBench) -> None:
    await chatty.ask(CHAT_OK, refused={"max_completion_tokens", "json_schema", "parallel_tool_calls"}, **EVERYTHING)
    await model.ask(OK, refused={"include", "store", "instructions", "system"}, **EVERYTHING)
    assert set(chatty.server.received[0].json) == {"model", "messages", "tools", "response_format", "max_tokens"}
    assert set(model.server.received[0].json) == {
        "model", "input", "text", "tools", "parallel_tool_calls", "max_output_tokens",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error("The model `m` does not exist", code="model_not_found"), "does not exist"),
        (error("Invalid 'tools[0].function.name': string does not match pattern.", param="tools[0].function.name"),
                "name"),
        (error("Invalid value for 'messages[0].content'", param="messages[0].content"), "messages[0].content"),
        (error("registry.ollama.ai/library/gemma does not support tools"), "it does not support tools: name"),
        (error("No endpoints found that support tool use."), "it does not support tools: name another model"),
        (error("Unsupported tool type: function"), "Unsupported tool type"),
        (unsupported("tools"), "it does not support tools: name another model"),
        (forbidden("tools"), "it does not support tools: name another model"),
        (error("This model only support stream mode, please enable the stream parameter"), "only as a stream"),
        ({"detail": "Stream must be set to true"}, "only as a stream"),
        (error("\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"),
                "support tools"),
        (error("Please include more detail in the text you store; strict rules apply"), "more detail"),
        (error("Invalid 'max_tokens': integer below minimum value. Expected a value >= 16"), "below minimum"),
        (error("The encrypted content gAAA could not be verified.", code="invalid_encrypted_content"), "verified"),
        (error("safety"), "safety"),
        ({}, "400"),
    ],
)  # fmt: skip
async def test_what_the_user_set_is_not_left_out(model: ModelBench, chatty: ModelBench, body: Any, words: str) -> None:
    for one in (model, chatty):
        failure = await one.fails(reply(body, status=400), **EVERYTHING)
        assert words in failure.message
        assert (failure.failure_class, failure.retryable) == (FailureClass.PROVIDER, False)
        assert len(one.server.received) == 1


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_these_are_no_refusals(chatty: ModelBench, status: int) -> None:
    await chatty.fails(reply(unsupported("parallel_tool_calls"), status=status), **EVERYTHING)
    assert all(received.json["parallel_tool_calls"] for received in chatty.server.received)


async def test_a_server_error_that_mentions_a_parameter_is_tried_again(chatty: ModelBench) -> None:
    for words in ("parallel_tool_calls: internal error", "max_completion_tokens worker must restart"):
        failure = await chatty.fails(reply(error(words), status=500), **EVERYTHING)
        assert failure.retryable
    assert len(chatty.server.received) == 6


async def test_a_bound_that_a_budget_needs_is_never_dropped(chatty: ModelBench, model: ModelBench) -> None:
    refused: set[str] = set()
    answers = [reply(unsupported(name), status=400) for name in ("max_completion_tokens", "max_tokens")]
    failure = await chatty.fails(*answers, refused=refused, **EVERYTHING)
    assert "it does not accept a limit on the answer: remove maxOutputTokens" in failure.message
    assert refused == {"max_completion_tokens"}
    assert len(chatty.server.received) == 2
    failure = await model.fails(reply(unsupported("max_output_tokens"), status=400), **EVERYTHING)
    assert "it does not accept a limit on the answer" in failure.message
    assert len(model.server.received) == 1


async def test_a_bound_that_is_a_wish_is_dropped(chatty: ModelBench, model: ModelBench) -> None:
    answers = [reply(unsupported(name), status=400) for name in ("max_completion_tokens", "max_tokens")]
    await chatty.ask(*answers, CHAT_OK, at_any_length=True, **EVERYTHING)
    assert not {"max_tokens", "max_completion_tokens"} & set(chatty.server.received[-1].json)
    await model.ask(reply(unsupported("max_output_tokens"), status=400), OK, at_any_length=True, **EVERYTHING)
    assert "max_output_tokens" not in model.server.received[-1].json


async def test_an_endpoint_that_refuses_for_ever(chatty: ModelBench) -> None:
    failure = await chatty.fails(reply(unsupported("parallel_tool_calls"), status=400), **EVERYTHING)
    assert not failure.retryable
    assert len(chatty.server.received) == 2


async def test_retries_and_refusals_are_counted_apart(chatty: ModelBench) -> None:
    down = reply(status=503)
    turn = await chatty.ask(
        down, down, reply(unsupported("parallel_tool_calls"), status=400), down, down, CHAT_OK, **EVERYTHING
    )
    assert turn.text == "hello"
    assert (len(chatty.server.received), len(chatty.pauses)) == (6, 4)


def test_words_travel_by_model_and_are_checked() -> None:
    words = refusals.to_record({"store", ">8192"}, "main")
    assert words == ["main/>8192", "main/store"]
    assert refusals.recorded([*words, "other/include", "main/of-a-later-version", "main/>x", "store", ""], "main") == {
        "store",
        ">8192",
    }
