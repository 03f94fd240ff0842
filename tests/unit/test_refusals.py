"""What endpoints refuse, in their words as they were recorded: it is left out or replaced, once, and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.printable import printable
from agentrun.api.workflow import FailureClass
from agentrun.runner import chat, refusals, responses
from agentrun.runner.error_words import read_error
from agentrun.runner.models import Request, ToolSpec
from agentrun.runner.overflow import is_overflow
from agentrun.runner.plain_schema import plain_schema
from tests.harness.loopback import reply
from tests.harness.model_bench import OK, SCHEMA, TOOL, ModelBench, completion

STRICT_TOOL = ToolSpec("pay", "Pays.", SCHEMA)
EVERYTHING: dict[str, Any] = {
    "instructions": "Decide.",
    "history": [{"role": "user", "content": "hi"}],
    "tools": [TOOL, STRICT_TOOL],
    "output_schema": SCHEMA,
    "max_output_tokens": 500,
}
Make = Callable[[Request, str, refusals.Refused], dict[str, Any]]
CHAT_OK = reply(completion(content="hello"))


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def forbidden(*loc: str | int) -> dict[str, Any]:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", *loc], "msg": "Extra inputs are not permitted"}]}


def unsupported(name: str) -> dict[str, Any]:
    return error(f"Unsupported parameter: '{name}' is not supported with this model.", param=name,
                 code="unsupported_parameter")  # fmt: skip


CHAT: dict[str, tuple[str, int, Any]] = {
    # parallel_tool_calls
    "openai-o1": ("parallel_tool_calls", 400, unsupported("parallel_tool_calls")),
    "azure": ("parallel_tool_calls", 400, error("Unrecognized request argument supplied: parallel_tool_calls")),
    "bedrock": ("parallel_tool_calls", 400, {"message": "Malformed input request: #: extraneous key "
                                                        "[parallel_tool_calls] "
                "is not permitted, please reformat your input and try again."}),
    "fireworks": ("parallel_tool_calls", 400, error("Extra inputs are not permitted, field: 'parallel_tool_calls', "
                                                    "value: "
                  "True")),
    "groq": ("parallel_tool_calls", 400, error("property 'parallel_tool_calls' is unsupported")),
    "go": ("parallel_tool_calls", 400, {"error": 'json: unknown field "parallel_tool_calls"'}),
    "rust": ("parallel_tool_calls", 422, "Failed to deserialize the JSON body into the target type: unknown field "
             "`parallel_tool_calls`, expected one of `messages`, `model`, `response_format`, `max_completion_tokens`"),
    "zod": ("parallel_tool_calls", 400, {"success": False, "error": {"issues": [{"code": "unrecognized_keys",
            "path": [],
            "keys": ["parallel_tool_calls"], "message": "Unrecognized key(s) in object: 'parallel_tool_calls'"}]}}),
    "litellm": ("parallel_tool_calls", 400, error("litellm.UnsupportedParamsError: groq does not support parameters: "
                "['parallel_tool_calls'], for model=x. To drop these, set `litellm.drop_params=True`")),
    "cohere": ("parallel_tool_calls", 422, {"message": "unknown field: parameter 'parallel_tool_calls' is not a valid "
               "field"}),
    "google": ("parallel_tool_calls", 400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT",
            "message": "Invalid JSON "
               'payload received. Unknown name "parallel_tool_calls": Cannot find field.', "details": [{"@type":
               "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"description": "Unknown name"}]}]}}]),
    "camel": ("parallel_tool_calls", 400, error("Argument not supported on this model: parallelToolCalls")),
    "fastapi": ("parallel_tool_calls", 422, forbidden("parallel_tool_calls")),
    "openrouter": ("parallel_tool_calls", 404, error("Provider returned error", code=404, metadata={"raw":
                   json.dumps(unsupported("parallel_tool_calls"))})),
    "server-error": ("parallel_tool_calls", 500, {"error": {"code": 500, "message": "Unsupported param: "
                     "parallel_tool_calls", "type": "server_error"}}),
    "not-implemented": ("parallel_tool_calls", 501, {"detail": "parallel_tool_calls is not supported"}),
    "in-words": ("parallel_tool_calls", 400, error("Parallel tool calls are not supported by this model")),
    "false": ("parallel_tool_calls", 400, error("Invalid parameter: parallel_tool_calls must be false for this model")),
    "databricks": ("parallel_tool_calls", 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Parameter "
                   "'parallel_tool_calls' is not supported for this endpoint"}),
    # max_completion_tokens
    "azure-o1": ("max_completion_tokens", 400, {"error": {"requestid": "1", "code": 400, "message": "Validation error "
                 "at #/max_completion_tokens: Extra inputs are not permitted\nValidation error at #/store: Extra "
                 "inputs are not permitted"}}),
    "python-in-a-text": ("max_completion_tokens", 400, {"object": "error", "message": "[{'type': 'extra_forbidden', "
                         "'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs are not permitted', 'input': "
                         "800}]", "code": 400}),
    "mistral": ("max_completion_tokens", 422, {"object": "error", "message": forbidden("max_completion_tokens"),
                "type": "invalid_request_error", "param": None, "code": None}),
    "mistral-text": ("max_completion_tokens", 422, {"object": "error", "message":
                     json.dumps(forbidden("max_completion_tokens")), "type": "internal_error_proxy", "code": "1000"}),
    "azure-old": ("max_completion_tokens", 400, error("Unrecognized request argument supplied: max_completion_tokens")),
    "wrong-api": ("max_completion_tokens", 400, {"message": "body.max_completion_tokens: property "
                  "'body.max_completion_tokens' is unsupported", "type": "invalid_request_error",
                  "param": "body.max_completion_tokens", "code": "wrong_api_format"}),
    "instead": ("max_completion_tokens", 400, error("Unknown parameter 'max_completion_tokens'. Use 'max_tokens' "
                                                    "instead.")),
    "not-recognized": ("max_completion_tokens", 400, error("'max_completion_tokens' is not a recognized parameter")),
    "no-such": ("max_completion_tokens", 400, error("No such argument: max_completion_tokens")),
    "not-implemented-bound": ("max_completion_tokens", 400, error("max_completion_tokens isn't implemented")),
    "list": ("max_completion_tokens", 400, error("Unsupported parameters: max_completion_tokens, store")),
    "chinese": ("max_completion_tokens", 400, error("不支持参数 max_completion_tokens")),
    # formats
    "deepseek": ("json_schema", 400, error("This response_format type is unavailable now", param=None)),
    "deepseek-rust": ("json_schema", 400, error("Failed to deserialize the JSON body into the target type: "
                      "response_format: response_format.type `json_schema` is unavailable now at line 1 column 50")),
    "groq-schema": ("json_schema", 400, error("This model does not support response format `json_schema`. See "
                                              "supported "
                    "models at https://console.groq.example/docs/structured-outputs#supported-models",
                    param="response_format")),
    "openai-old": ("json_schema", 400, error("Invalid parameter: 'response_format' of type 'json_schema' is not "
                                             "supported "
                   "with this model. Learn more about supported models at the Structured Outputs guide.",
                   param=None)),
    "deepinfra": ("json_schema", 422, error("Provider returned error", code=422, metadata={"provider_name": "DeepInfra",
                  "raw": json.dumps({"detail": [{"type": "literal_error", "loc": ["body", "response_format", "type"],
                  "msg": "Input should be 'text' or 'json_object'", "input": "json_schema"}]})})),
    "tgi": ("json_schema", 422, "unknown variant `json_schema`, expected `json` or `regex`"),
    "enum": ("json_schema", 400, error("Invalid value: 'json_schema'. Supported values are: 'text' and 'json_object'.",
             param="response_format.type", code="invalid_value")),
    "unknown-format": ("json_schema", 400, unsupported("response_format")),
    "anthropic-format": ("json_schema", 400, error("output_config.format: Extra inputs are not permitted")),
    "grammar": ("json_schema", 400, error("Failed to parse grammar")),
    # formats beside tools
    "guided": ("format-with-tools", 400, error("Value error, guided_json is not supported with tool calls")),
    "only-one": ("format-with-tools", 400, error("Only one of response_format or tools may be set")),
    "at-once": ("format-with-tools", 400, error("`tools` and `response_format` cannot be used at the same time")),
    "groq-tools": ("format-with-tools", 400, error("json mode cannot be combined with tool/function calling")),
    "gemini": ("format-with-tools", 400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Function "
               "calling with a response mime type: 'application/json' is unsupported"}}]),
    "gemini-tools": ("format-with-tools", 400, error("Tool use with a response mime type: 'application/json' is "
                     "unsupported")),
    "vertex": ("format-with-tools", 400, error("For controlled generation of only function calls (forced function "
               "calling), please set 'tool_config.function_calling_config.mode' field to ANY instead of populating "
               "'response_mime_type' and 'response_schema' fields.")),
    "cerebras": ("format-with-tools", 400, {"message": "tools is incompatible with response_format",
                 "type": "invalid_request_error", "param": "tools"}),
    "llama.cpp": ("format-with-tools", 400, {"error": {"code": 400, "message": "Cannot use custom grammar "
                                                                               "constraints with "
                  "tools.", "type": "invalid_request_error"}}),
    "cohere-tools": ("format-with-tools", 400, {"message": "cannot specify both response_format and tools"}),
    # schemas
    "openai-function": ("strict-schemas", 400, error("Invalid schema for function 'pay': In context=('properties', "
                                                     "'a'), "
                        "'uri' is not a valid format.", param="tools[1].function.parameters",
                        code="invalid_function_parameters")),
    "openai-output": ("strict-schemas", 400, error("Invalid schema for response_format 'output': In context=(), "
                                                   "'required' "
                      "is required to be supplied.", param="response_format", code=None)),
    "groq-invalid": ("strict-schemas", 400, error("Invalid JSON schema for response_format: 'output': keyword not "
                                                  "allowed")),
    "too-complex": ("strict-schemas", 400, error("Schema is too complex for strict mode.")),
    "strict-mode": ("strict-schemas", 400, error("'strict' mode is not supported with this model")),
    "vllm-strict": ("strict", 400, forbidden("tools", 1, "function", "strict")),
    "unknown-strict": ("strict", 400, error("Unknown parameter: 'tools[1].function.strict'.",
                       param="tools[1].function.strict", code="unknown_parameter")),
    "google-strict": ("strict", 400, error("Invalid JSON payload received. Unknown name \"strict\" at "
                      "'tools[0].function': Cannot find field.")),
    # schemas of tools that are not sent as strict any more: see below
    # the system message
    "o1-mini": ("system", 400, error("Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                param="messages[0].role", code="unsupported_value")),
    "gemma": ("system", 400, {"error": {"code": 400, "message": "Developer instruction is not enabled for "
              "models/gemma-3-27b-it", "status": "INVALID_ARGUMENT"}}),
    "template": ("system", 400, {"object": "error", "message": "System role not supported", "code": 400}),
    "roles": ("system", 400, {"detail": "Only user and assistant roles are supported!"}),
    "role-in-words": ("system", 400, error("messages.0.role: Input should be 'user' or 'assistant'")),
    "literal-role": ("system", 422, {"detail": [{"type": "literal_error", "loc": ["body", "messages", 0, "role"],
                     "msg": "Input should be 'user' or 'assistant'"}]}),
}  # fmt: skip
RESPONSES: dict[str, tuple[str, int, Any]] = {
    "include": ("include", 400, error("Unsupported value for 'include': reasoning.encrypted_content", param="include")),
    "include-openai": ("include", 400, error("Encrypted content is not supported with this model.")),
    "include-index": ("include", 400, error("Invalid value", param="include[0]", code="invalid_value")),
    "include-fastapi": ("include", 422, forbidden("include")),
    "include-enum": ("include", 422, {"detail": [{"type": "enum", "loc": ["body", "include", 0], "msg": "Input "
                                                                                                        "should be "
                     "'file_search_call.results'"}]}),
    "store": ("store", 400, unsupported("store")),
    "store-google": ("store", 400, error('Invalid JSON payload received. Unknown name "store": Cannot find field.')),
    "store-argument": ("store", 400, error("Unrecognized request argument supplied: store")),
    "store-list": ("store", 400, error("Unsupported parameters: metadata, store")),
    "store-nested": ("store", 422, forbidden("ResponsesRequest", "store")),
    "store-plain": ("store", 400, {"detail": "store: Extra inputs are not permitted"}),
    "store-value": ("store", 400, {"error": "store=false is not supported"}),
    "store-stateless": ("store", 400, error("Stateless mode is not supported: store must be true")),
    "store-must": ("store", 400, error("Store must be set to true", param="store")),
    "parallel": ("parallel_tool_calls", 400, unsupported("parallel_tool_calls")),
    "format": ("json_schema", 400, error("Invalid parameter: 'text.format' of type 'json_schema' is not supported with "
               "this model.", param="text.format")),
    "format-quoted": ("json_schema", 400, error("Unknown parameter: 'text'.")),
    "format-plain": ("json_schema", 400, error("text: Extra inputs are not permitted")),
    "format-unknown": ("json_schema", 422, forbidden("text")),
    "format-tools": ("format-with-tools", 400, error("text.format cannot be used together with tools")),
    "schema": ("strict-schemas", 400, error("Invalid schema for response_format 'output'", param="text.format.schema",
               code="invalid_json_schema")),
    "function": ("strict-schemas", 400, error("Invalid schema for function 'pay': 'default' is not permitted.",
                 param="tools[1].parameters", code="invalid_function_parameters")),
    "strict": ("strict", 400, error("Unknown parameter: 'tools[0].strict'.", param="tools[0].strict")),
    "instructions": ("instructions", 400, unsupported("instructions")),
    "instructions-extra": ("instructions", 422, forbidden("instructions")),
}  # fmt: skip


def sent(word: str, body: dict[str, Any]) -> bool:
    """Whether ``body`` has what ``word`` stands for."""
    form = body.get("response_format") or body.get("text", {}).get("format") or {}
    tools = [tool.get("function", tool) for tool in body.get("tools", ())]
    schemas = [*tools, form.get("json_schema", form)]
    match word:
        case refusals.JSON_SCHEMA | refusals.JSON_OBJECT:
            return form.get("type") == word
        case refusals.FORMAT_WITH_TOOLS:
            return bool(form and tools)
        case refusals.STRICT_SCHEMAS:
            return any(schema.get("strict") for schema in schemas)
        case refusals.STRICT:
            return any("strict" in schema for schema in schemas)
        case refusals.SYSTEM:
            return "instructions" in body or any(
                m["role"] == "system" for m in body.get("messages", body.get("input", ()))
            )
        case _:
            return word in body


def learned(make: Make, word: str, status: int, answer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check what is learned from an answer; the bodies before and after."""
    request = Request(**EVERYTHING)
    body = make(request, "m", frozenset())
    data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    said = read_error(data, "application/json", str)
    assert not is_overflow(status, said.text, said.codes)
    assert refusals.bound(body, said) is None
    assert refusals.refusal(body, said, sure=status >= 500) == word
    without = make(request, "m", {word})
    assert (sent(word, body), sent(word, without)) == (True, False)
    return body, without


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


TOOL_SCHEMAS = {
    "gemini": [{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name "
                                                  "\"additionalProperties\" at "
               "'tools[0].function_declarations[0].parameters': Cannot find field."}}],
    "gemini-empty": error("* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties: should be "
                          "non-empty for OBJECT type"),
    "anthropic": error("tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"),
    "keyword": error("Invalid schema for function 'pay': keyword 'oneOf' is not permitted"),
    "other": {"detail": "Provided tool schema is not supported"},
}  # fmt: skip


@pytest.mark.parametrize("name", TOOL_SCHEMAS)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_schemas_of_tools_become_less_strict_and_then_plain(name: str, api: str) -> None:
    request = Request(**EVERYTHING)
    make = {"chat": chat.body_of, "responses": responses.body_of}[api]
    said = read_error(json.dumps(TOOL_SCHEMAS[name]).encode(), "application/json", str)
    refused: set[str] = set()
    for word in (refusals.STRICT_SCHEMAS, refusals.PLAIN_SCHEMAS):
        body = make(request, "m", refused)
        assert refusals.refusal(body, said) == word
        refused.add(word)
        assert make(request, "m", refused) != body
    tools = [tool.get("function", tool) for tool in make(request, "m", {refusals.PLAIN_SCHEMAS})["tools"]]
    assert "parameters" not in tools[0]
    assert tools[1]["parameters"] == {
        "type": "object", "properties": {"refund": {"type": "boolean"}}, "required": ["refund"],
    }  # fmt: skip
    assert not any(tool.get("strict") for tool in tools)


WHOLE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["a", "b", "gone"],
    "properties": {
        "a": {"type": ["string", "null"], "minLength": 1, "format": "uri", "description": "An address."},
        "b": {"$ref": "#/$defs/B", "description": "Which."},
        "c": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 1},
        "d": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        "e": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "uniqueItems": True},
        "f": {"enum": [1, "x"]},
        "g": {"const": "x"},
        "h": {"$ref": "#/$defs/none"},
        "i": True,
    },
    "$defs": {
        "B": {"enum": ["x", "y"]},
        "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "minProperties": 1},
    },
}


def test_a_plain_schema() -> None:
    assert plain_schema(WHOLE) == {
        "type": "object",
        "required": ["a", "b"],
        "properties": {
            "a": {"type": "string", "description": "An address."},
            "b": {"type": "string", "enum": ["x", "y"], "description": "Which."},
            "c": {"type": "integer"},
            "d": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "e": {"type": "array", "items": {"type": "object", "properties": {"next": {"type": "object"}}}},
            "f": {},
            "g": {"type": "string", "enum": ["x"]},
            "h": {},
            "i": {},
        },
    }


def test_a_tool_without_a_description_has_one() -> None:
    """Some endpoints refuse an empty one, others a tool without one."""
    request = Request("", [], tools=[ToolSpec("look_up", "", {"type": "object"})])
    assert chat.body_of(request, "m")["tools"][0]["function"]["description"] == "look_up"
    assert responses.body_of(request, "m")["tools"][0]["description"] == "look_up"


every_word = st.sampled_from(
    ["plain-schemas", "history", "parallel_tool_calls", "include", "store", "strict-schemas", "strict", "json_schema",
            "json_object", "system",
     "format-with-tools", "instructions", "max_completion_tokens", "max_tokens", "max_output_tokens", ">100"]
)  # fmt: skip


@settings(deadline=None)
@given(st.sets(every_word))
def test_every_body_is_whole_whatever_is_refused(refused: set[str]) -> None:
    request = Request(**EVERYTHING)
    for made in (chat.body_of(request, "m", refused), responses.body_of(request, "m", refused)):
        assert "Decide." in str(made)
        assert "hi" in str(made)
        assert len(made["tools"]) == 2
        assert "refund" in str({k: v for k, v in made.items() if k != "tools"})
        assert {"max_completion_tokens", "max_tokens", "max_output_tokens"} & set(made)
    assert request.history == EVERYTHING["history"]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["strict", "tools", "messages"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "detail", "loc", "param", "code", "type", "path", "keys", "metadata"]),
                inner
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(json_like)
def test_no_error_raises(value: Any) -> None:
    said = read_error(json.dumps(value).encode(), "application/json", str)
    assert printable(said.words) == said.words
    for body in (chat.body_of(Request(**EVERYTHING), "m"), responses.body_of(Request(**EVERYTHING), "m")):
        refusals.refusal(body, said)
        refusals.bound(body, said)
        refusals.advice(body, said)
