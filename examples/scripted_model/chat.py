"""The Chat Completions API: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from collections.abc import Iterator

from .answer import CREATED, Answer, pieces
from .conversation import (
    JSON,
    Body,
    Conversation,
    RequestError,
    check_common,
    check_count,
    check_function,
    check_json_schema,
    check_tool_choice,
    invalid_value,
    joined,
    known_fields,
    list_field,
    missing,
    result_value,
    text_field,
    wrong_type,
)

_KNOWN = """
messages model frequency_penalty logit_bias logprobs max_completion_tokens max_tokens metadata modalities n
parallel_tool_calls presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention
reasoning_effort response_format safety_identifier seed service_tier stop store stream stream_options
temperature tool_choice tools top_logprobs top_p user verbosity
"""
_PARAMETERS = frozenset(_KNOWN.split())
_MESSAGE = frozenset(("role", "content", "name", "refusal", "tool_calls", "tool_call_id", "audio", "annotations"))
_ROLES = ("system", "developer", "user", "assistant", "tool")
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read(body: Body, digest: str, size: int) -> Conversation:
    """The conversation in a request.

    Raises:
        RequestError: the request is one that OpenAI refuses, or that asks for something to be stored.

    """
    known_fields(body, "", _PARAMETERS)
    check_common(body)
    if body.get("store"):
        raise RequestError("'store' must be false: this server keeps no conversation.", "store", "invalid_value")
    if body.get("n") not in (None, 1):
        raise RequestError("'n' must be 1: a script has one answer.", "n", "invalid_value")
    check_count(body, "max_tokens", 1)
    check_count(body, "max_completion_tokens", 1)
    _check_format(body.get("response_format"))
    _check_tools(body)
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not list_field(messages, "messages"):
        raise RequestError("Invalid 'messages': empty array. Expected at least one.", "messages", "empty_array")
    found = Conversation(body, digest, size)
    _read_messages(messages, found)
    return found


def _check_format(wanted: JSON) -> None:
    if wanted is None:
        return
    known_fields(wanted, "response_format", frozenset(("type", "json_schema")))
    kinds = ("text", "json_object", "json_schema")
    if wanted.get("type") not in kinds:
        raise invalid_value("response_format.type", wanted.get("type"), kinds)
    if wanted["type"] == "json_schema":
        place = "response_format.json_schema"
        if wanted.get("json_schema") is None:
            raise missing(place)
        fields = frozenset(("name", "schema", "strict", "description"))
        check_json_schema(known_fields(wanted["json_schema"], place, fields), place)


def _check_tools(body: Body) -> None:
    tools = body.get("tools")
    names: set[str] = set()
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None:
                raise RequestError(
                    f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name
                )
        return
    if not list_field(tools, "tools"):
        raise RequestError(
            "Invalid 'tools': empty array. Expected an array with minimum length 1.", "tools", "empty_array"
        )
    for i, tool in enumerate(tools):
        known_fields(tool, f"tools[{i}]", frozenset(("type", "function")))
        if tool.get("type") != "function":
            raise invalid_value(f"tools[{i}].type", tool.get("type"), ("function",))
        place = f"tools[{i}].function"
        if tool.get("function") is None:
            raise missing(place)
        fields = frozenset(("name", "description", "parameters", "strict"))
        check_function(known_fields(tool["function"], place, fields), place, names)

    def named(choice: Body) -> str:
        if choice.get("type") != "function":
            raise invalid_value("tool_choice.type", choice.get("type"), ("function",))
        function = choice.get("function")
        if not isinstance(function, dict):
            raise missing("tool_choice.function")
        return text_field(function, "name", "tool_choice.function")

    check_tool_choice(body.get("tool_choice"), names, named)


def _read_messages(messages: list[JSON], found: Conversation) -> None:
    open_calls: dict[str, str] = {}
    has_text = False
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        known_fields(message, where, _MESSAGE)
        role = message.get("role")
        if role not in _ROLES:
            raise invalid_value(f"{where}.role", role, _ROLES)
        if role == "tool":
            _read_result(message, where, open_calls, found)
            continue
        _check_answered(open_calls, where)
        found.last_tool = None
        if role == "assistant":
            found.turn += 1
            open_calls = _read_calls(message, where)
            continue
        if message.get("content") is None:
            raise RequestError(
                f"Invalid value for 'content': expected a string, got null. ({where})", f"{where}.content"
            )
        kinds = ("text", "image_url", "input_audio", "file") if role == "user" else ("text",)
        text = joined(message["content"], f"{where}.content", kinds)
        if role == "user" and not has_text:
            found.text, has_text = text, True
    _check_answered(open_calls, "messages")


def _read_calls(message: Body, where: str) -> dict[str, str]:
    calls: dict[str, str] = {}
    if message.get("content") is None and not message.get("tool_calls") and message.get("refusal") is None:
        raise RequestError(f"Invalid value for 'content': expected a string, got null. ({where})", f"{where}.content")
    if message.get("content") is not None:
        joined(message["content"], f"{where}.content", ("text", "refusal"))
    if message.get("tool_calls") is None:
        return calls
    if not list_field(message["tool_calls"], f"{where}.tool_calls"):
        raise RequestError(
            f"Invalid '{where}.tool_calls': empty array. Expected an array with minimum length 1.",
            f"{where}.tool_calls",
            "empty_array",
        )
    for j, call in enumerate(message["tool_calls"]):
        place = f"{where}.tool_calls[{j}]"
        known_fields(call, place, frozenset(("id", "type", "function")))
        if call.get("type") != "function":
            raise invalid_value(f"{place}.type", call.get("type"), ("function",))
        function = call.get("function")
        if not isinstance(function, dict):
            raise wrong_type(f"{place}.function", "an object", function)
        known_fields(function, f"{place}.function", frozenset(("name", "arguments")))
        text_field(function, "arguments", f"{place}.function")
        name = text_field(call, "id", place)
        if name in calls:
            raise RequestError(f"Duplicate value for 'tool_call_id' of '{name}' in message.", f"{place}.id")
        calls[name] = text_field(function, "name", f"{place}.function")
    return calls


def _read_result(message: Body, where: str, open_calls: dict[str, str], found: Conversation) -> None:
    call = text_field(message, "tool_call_id", where)
    if call not in open_calls:
        raise RequestError(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
            f"'tool_calls'. ('{call}')",
            f"{where}.role",
        )
    if message.get("content") is None:
        raise missing(f"{where}.content")
    tool = open_calls.pop(call)
    found.last_tool = tool
    found.results[tool] = result_value(joined(message["content"], f"{where}.content", ("text",)))


def _check_answered(open_calls: dict[str, str], where: str) -> None:
    if open_calls:
        raise RequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
            f"{where}.role" if where != "messages" else where,
        )


def completion(asked: Conversation, answer: Answer) -> Body:
    """The chat completion object, complete. Reasoning is not part of this API but for its tokens."""
    message: Body = {"role": "assistant", "content": answer.text, "refusal": answer.refusal, "annotations": []}
    if answer.calls:
        message["tool_calls"] = [
            {"id": answer.call_id(i), "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(answer.calls)
        ]
    finish = _FINISH[answer.incomplete] if answer.incomplete else "tool_calls" if answer.calls else "stop"
    return {
        "id": f"chatcmpl-{asked.digest[:40]}",
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.model,
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": answer.usage.input,
            "completion_tokens": answer.usage.output,
            "total_tokens": answer.usage.input + answer.usage.output,
            "prompt_tokens_details": {"cached_tokens": answer.usage.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": answer.usage.reasoning, "audio_tokens": 0},
        },
    }


def chunks(asked: Conversation, complete: Body) -> Iterator[Body]:
    """The chunks of a streamed completion: https://platform.openai.com/docs/api-reference/chat-streaming."""
    with_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
    shared = {name: complete[name] for name in ("id", "created", "model", "service_tier", "system_fingerprint")}
    shared |= {"object": "chat.completion.chunk"} | ({"usage": None} if with_usage else {})
    choice = complete["choices"][0]
    for delta in _deltas(choice["message"]):
        yield {**shared, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    yield {**shared, "choices": [last]}
    if with_usage:
        yield {**shared, "choices": [], "usage": complete["usage"]}


def _deltas(message: Body) -> Iterator[Body]:
    yield {"role": "assistant", "content": "" if message["content"] is not None else None, "refusal": None}
    for key in ("content", "refusal"):
        for piece in pieces(message[key] or ""):
            yield {key: piece}
    for index, call in enumerate(message.get("tool_calls", [])):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]}
        for piece in pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
