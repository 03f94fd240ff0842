"""Reads requests of the Responses API: https://platform.openai.com/docs/api-reference/responses/create."""

from __future__ import annotations

import re

from .answer import is_sealed, tag
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
background include input instructions max_output_tokens max_tool_calls metadata model parallel_tool_calls
prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store
stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user
previous_response_id conversation
"""
_PARAMETERS = frozenset(_KNOWN.split())
_ITEMS = {
    "message": frozenset(("type", "id", "role", "content", "status", "phase")),
    "function_call": frozenset(
        ("type", "id", "call_id", "name", "arguments", "status", "namespace", "caller", "async")
    ),
    "function_call_output": frozenset(("type", "id", "call_id", "output", "status", "name", "namespace", "caller")),
    "reasoning": frozenset(("type", "id", "summary", "content", "encrypted_content", "status")),
}
_ID_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
_ROLES = ("assistant", "system", "developer", "user")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_INCLUDABLE = (
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
)
_OWN_ID = re.compile(r"(?:call|fc|msg)_(r?[0-9a-f]{21,22})[0-9a-f]{2}")
"""An id that a server of this kind made: the part that its turn's ids share, then the index in the turn."""


def read(body: Body, digest: str, size: int) -> Conversation:
    """The conversation in a request.

    Raises:
        RequestError: the request is one that OpenAI refuses, or that asks for something to be stored.

    """
    known_fields(body, "", _PARAMETERS)
    check_common(body)
    if body.get("store") is not False:
        raise RequestError("'store' must be false: this server keeps no conversation.", "store", "invalid_value")
    for name in ("previous_response_id", "conversation"):
        if body.get(name) is not None:
            raise RequestError(f"'{name}': not found. Items are not persisted when `store` is set to false.", name)
    if body.get("background"):
        raise RequestError("'background' must be false: this server keeps no conversation.", "background")
    check_count(body, "max_output_tokens", 16)
    if body.get("instructions") is not None and not isinstance(body["instructions"], str):
        raise wrong_type("instructions", "a string", body["instructions"])
    for i, name in enumerate(list_field(body.get("include") or [], "include")):
        if name not in _INCLUDABLE:
            raise invalid_value(f"include[{i}]", name, _INCLUDABLE)
    reasoning = known_fields(
        body.get("reasoning") or {}, "reasoning", frozenset(("effort", "summary", "generate_summary"))
    )
    if reasoning.get("effort") is not None and reasoning["effort"] not in _EFFORTS:
        raise invalid_value("reasoning.effort", reasoning["effort"], _EFFORTS)
    _check_format(body)
    _check_tools(body)
    found = Conversation(body, digest, size)
    items = body.get("input")
    if items is None:
        raise missing("input")
    if isinstance(items, str):
        found.text = items
    elif not list_field(items, "input"):
        raise RequestError("Invalid 'input': empty array. Expected at least one item.", "input", "empty_array")
    else:
        _History(found).read(items)
    return found


def _check_format(body: Body) -> None:
    text = known_fields(body.get("text") or {}, "text", frozenset(("format", "verbosity")))
    wanted = known_fields(
        text.get("format") or {"type": "text"},
        "text.format",
        frozenset(("type", "name", "schema", "strict", "description")),
    )
    kinds = ("text", "json_object", "json_schema")
    if wanted.get("type") not in kinds:
        raise invalid_value("text.format.type", wanted.get("type"), kinds)
    if wanted["type"] == "json_schema":
        check_json_schema(wanted, "text.format")


def _check_tools(body: Body) -> None:
    names: set[str] = set()
    fields = frozenset(("type", "name", "description", "parameters", "strict"))
    for i, tool in enumerate(list_field(body.get("tools") or [], "tools")):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{i}]", "an object", tool)
        if tool.get("type") != "function":
            raise invalid_value(f"tools[{i}].type", tool.get("type"), ("function",))
        check_function(known_fields(tool, f"tools[{i}]", fields), f"tools[{i}]", names)

    def named(choice: Body) -> str:
        if choice.get("type") == "allowed_tools":
            if choice.get("mode") not in ("auto", "required"):
                raise invalid_value("tool_choice.mode", choice.get("mode"), ("auto", "required"))
            allowed = list_field(choice.get("tools"), "tool_choice.tools")
            known = [tool for tool in allowed if isinstance(tool, dict) and tool.get("name") in tuple(names)]
            if len(known) < len(allowed) or not allowed:
                raise RequestError("Tool choice 'allowed_tools' must list tools of 'tools'.", "tool_choice.tools")
            return str(allowed[0]["name"])
        if choice.get("type") != "function":
            raise invalid_value("tool_choice.type", choice.get("type"), ("function", "allowed_tools"))
        return text_field(choice, "name", "tool_choice")

    check_tool_choice(body.get("tool_choice"), names, named)


class _History:
    """One pass over the input items: what must fit together, and what the rules want to know."""

    def __init__(self, found: Conversation) -> None:
        self.found = found
        self.calls: dict[str, str] = {}
        self.answered: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.turn_open = False
        self.last_tag: str | None = None
        self.has_text = False

    def read(self, items: list[JSON]) -> None:
        """Check ``items`` and note their facts in the conversation."""
        for i, item in enumerate(items):
            where = f"input[{i}]"
            if not isinstance(item, dict):
                raise wrong_type(where, "an object", item)
            kind = item.get("type") or "message"
            if not isinstance(kind, str) or kind not in _ITEMS:
                raise invalid_value(f"{where}.type", kind, tuple(_ITEMS))
            known_fields(item, where, _ITEMS[kind])
            self._check_id(item, kind, where)
            self.found.last_tool = None
            match kind:
                case "message":
                    self._message(item, where)
                case "function_call":
                    self._call(item, where)
                case "function_call_output":
                    self._output(item, where)
                case _:
                    self._reasoning(item, where, items[i + 1] if i + 1 < len(items) else None)
        for call in self.calls:
            if call not in self.answered:
                raise RequestError(f"No tool output found for function call {call}.", "input")

    def _check_id(self, item: Body, kind: str, where: str) -> None:
        name = item.get("id")
        if name is None:
            return
        prefix = _ID_PREFIXES.get(kind)
        if not isinstance(name, str) or (prefix and not name.startswith(prefix)):
            raise RequestError(
                f"Invalid '{where}.id': '{name}'. Expected an ID that begins with '{prefix}'.",
                f"{where}.id",
                "invalid_value",
            )
        if name in self.ids:
            raise RequestError(
                f"Duplicate item found with id {name}. Remove duplicate items from your input and try again.", "input"
            )
        self.ids.add(name)
        own = _OWN_ID.fullmatch(name)
        if own and own[1].startswith("r"):
            self._require_reasoning(own[1], name, kind)

    def _require_reasoning(self, needed: str, name: str, kind: str) -> None:
        # The proof that the client keeps reasoning items: the id can only be explained by the sealed item before it.
        if needed not in self.tags:
            raise RequestError(
                f"Item '{name}' of type '{kind}' was provided without its required 'reasoning' item: 'rs_{needed}'.",
                "input",
            )

    def _model_item(self, shared: str | None) -> None:
        # Results may stand between the calls of one turn; only a call with another tag then begins a new turn.
        if not self.turn_open and (shared is None or shared != self.last_tag):
            self.found.turn += 1
        self.turn_open = True
        self.last_tag = shared or self.last_tag

    def _message(self, item: Body, where: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise invalid_value(f"{where}.role", role, _ROLES)
        if item.get("content") is None:
            raise missing(f"{where}.content")
        if role == "assistant":
            joined(item["content"], f"{where}.content", ("output_text", "refusal"))
            self._model_item(None)
            return
        text = joined(item["content"], f"{where}.content", ("input_text", "input_image", "input_file"))
        self.turn_open = False
        if role == "user" and not self.has_text:
            self.found.text, self.has_text = text, True

    def _call(self, item: Body, where: str) -> None:
        call = text_field(item, "call_id", where)
        text_field(item, "arguments", where)
        name = text_field(item, "name", where)
        if call in self.calls:
            raise RequestError(f"Duplicate function call with call_id {call}.", "input")
        self.calls[call] = name
        own = _OWN_ID.fullmatch(call)
        if own and own[1].startswith("r"):
            self._require_reasoning(own[1], str(item.get("id", call)), "function_call")
        self._model_item(own[1] if own else None)

    def _output(self, item: Body, where: str) -> None:
        call = text_field(item, "call_id", where)
        if call not in self.calls:
            raise RequestError(f"No tool call found for function call output with call_id {call}.", "input")
        if call in self.answered:
            raise RequestError(f"Duplicate function call output with call_id {call}.", "input")
        if item.get("output") is None:
            raise missing(f"{where}.output")
        output = joined(item["output"], f"{where}.output", ("input_text", "input_image", "input_file"))
        self.answered.add(call)
        self.turn_open = False
        self.found.last_tool = self.calls[call]
        self.found.results[self.calls[call]] = result_value(output)

    def _reasoning(self, item: Body, where: str, following: JSON) -> None:
        name = text_field(item, "id", where)
        list_field(item.get("summary"), f"{where}.summary")
        seal = item.get("encrypted_content")
        if seal is None:
            raise RequestError(
                f"Item with id '{name}' not found. Items are not persisted when `store` is set to false: ask for "
                "'reasoning.encrypted_content' in 'include' and send the item back whole.",
                "input",
            )
        if not isinstance(seal, str) or not is_sealed(seal) or name != f"rs_{tag(seal)}":
            raise RequestError(
                f"The encrypted content for item {name} could not be verified.", None, "invalid_encrypted_content"
            )
        follows = isinstance(following, dict) and (
            following.get("type") in ("function_call", "reasoning") or following.get("role") == "assistant"
        )
        if not follows:
            raise RequestError(
                f"Item '{name}' of type 'reasoning' was provided without its required following item.", "input"
            )
        self.tags.add(tag(seal))
        self._model_item(None)
