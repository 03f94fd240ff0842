"""Requests that endpoints refuse, in the words of each, and what is learned of a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agentrun.runner import refusals
from agentrun.runner.error_words import read_error
from agentrun.runner.models import Request, ToolSpec
from agentrun.runner.overflow import is_overflow
from tests.harness.loopback import reply
from tests.harness.model_bench import SCHEMA, TOOL, completion

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
