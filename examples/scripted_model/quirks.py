"""How endpoints answer that are not OpenAI's: each quirk changes a finished answer, as some endpoint was seen to do.

A profile has its quirks always; a rule, or one of its failures, has more with ``quirks: [NAME, …]``. A quirk that has
nothing to change leaves the answer as it is. Only answers that are not streamed have quirks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from .conversation import JSON, Body

Quirk = Callable[[Body], None]
"""Changes an answer of either API in place."""

LONG = "x" * 3000


def _chat(answer: Body) -> Iterator[Body]:
    yield from (choice["message"] for choice in answer.get("choices", ()))


def _items(answer: Body, kind: str) -> Iterator[Body]:
    yield from (item for item in answer.get("output", ()) if item.get("type") == kind)


def _functions(answer: Body) -> Iterator[Body]:
    """What holds ``arguments``, in either API."""
    for message in _chat(answer):
        yield from (call["function"] for call in message.get("tool_calls") or ())
    yield from _items(answer, "function_call")


def _calls(answer: Body) -> Iterator[tuple[Body, str]]:
    """What holds a call's id, and under which key."""
    for message in _chat(answer):
        yield from ((call, "id") for call in message.get("tool_calls") or ())
    yield from ((item, "call_id") for item in _items(answer, "function_call"))


def _texts(answer: Body) -> Iterator[tuple[Body, str]]:
    """What holds a text of the answer, and under which key."""
    yield from ((message, "content") for message in _chat(answer) if isinstance(message.get("content"), str))
    for item in _items(answer, "message"):
        yield from ((part, "text") for part in item["content"] if part.get("type") == "output_text")


def _id(value: Callable[[int], JSON]) -> Quirk:
    def quirk(answer: Body) -> None:
        for n, (call, key) in enumerate(_calls(answer)):
            call[key] = value(n)

    return quirk


def _id_missing(answer: Body) -> None:
    for call, key in _calls(answer):
        del call[key]


def _id_long(answer: Body) -> None:
    for call, key in _calls(answer):
        call[key] += f"__thought__{LONG}"


def _id_nine(answer: Body) -> None:
    for call, key in _calls(answer):
        call[key] = call[key][-9:].rjust(9, "0")


def _arguments(write: Callable[[str], JSON]) -> Quirk:
    def quirk(answer: Body) -> None:
        for function in _functions(answer):
            function["arguments"] = write(function["arguments"])

    return quirk


def _nothing_as(value: JSON) -> Quirk:
    """No arguments, written as ``value``."""
    return _arguments(lambda text: value if text.replace(" ", "") == "{}" else text)


def _arguments_missing(answer: Body) -> None:
    for function in _functions(answer):
        if function["arguments"].replace(" ", "") == "{}":
            del function["arguments"]


def _text(write: Callable[[str], str]) -> Quirk:
    def quirk(answer: Body) -> None:
        for holder, key in _texts(answer):
            holder[key] = write(holder[key])

    return quirk


def _only_json(write: Callable[[str], str]) -> Quirk:
    return _text(lambda text: write(text) if text[:1] in ("{", "[") else text)


def _content_parts(answer: Body) -> None:
    for message in _chat(answer):
        if isinstance(message.get("content"), str):
            message["content"] = [{"type": "text", "text": message["content"]}]


def _content_thinking(answer: Body) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think: {}"}], "closed": True}
    _content_parts(answer)
    for message in _chat(answer):
        if isinstance(message.get("content"), list):
            message["content"].insert(0, dict(thought))


def _content_missing(answer: Body) -> None:
    for message in _chat(answer):
        if message.get("content") is None:
            message.pop("content", None)


def _content_empty(answer: Body) -> None:
    for message in _chat(answer):
        if message.get("content") is None:
            message["content"] = ""


def _field(name: str, value: JSON) -> Quirk:
    def quirk(answer: Body) -> None:
        for message in _chat(answer):
            message[name] = value

    return quirk


def _nulls(answer: Body) -> None:
    for message in _chat(answer):
        message.update(
            dict.fromkeys(("function_call", "audio", "reasoning_content", "refusal", "provider_specific_fields"))
        )
        message.setdefault("tool_calls", None)
    for item in answer.get("output", ()):
        item["status"] = None
        if item["type"] == "reasoning":
            item["content"] = None


def _signatures(answer: Body) -> None:
    for message in _chat(answer):
        for n, call in enumerate(message.get("tool_calls") or ()):
            if n == 0:  # Gemini signs the first of parallel calls
                call["extra_content"] = {"google": {"thought_signature": SIGNATURE}}


SIGNATURE = "AgQKAThoughtSignature"


def _index(answer: Body) -> None:
    for message in _chat(answer):
        for n, call in enumerate(message.get("tool_calls") or ()):
            call["index"] = n


def _finish(write: Callable[[str], JSON]) -> Quirk:
    def quirk(answer: Body) -> None:
        for choice in answer.get("choices", ()):
            choice["finish_reason"] = write(choice["finish_reason"])

    return quirk


def _finish_error(answer: Body) -> None:
    for choice in answer.get("choices", ()):
        choice |= {"finish_reason": "error", "error": {"code": 502, "message": "Upstream error"}}
    if "output" in answer:
        answer |= {"status": "failed", "error": {"code": "server_error", "message": "Upstream error"}}


def _usage(write: Callable[[JSON], JSON]) -> Quirk:
    def quirk(answer: Body) -> None:
        answer["usage"] = {name: write(count) for name, count in answer["usage"].items()}

    return quirk


def _usage_missing(answer: Body) -> None:
    del answer["usage"]


def _legacy_call(answer: Body) -> None:
    for choice in answer.get("choices", ()):
        calls = choice["message"].pop("tool_calls", None)
        if calls:
            choice["message"]["function_call"] = calls[0]["function"]
            choice["finish_reason"] = "function_call"


def _item_ids_missing(answer: Body) -> None:
    for item in answer.get("output", ()):
        item.pop("id", None)


def _item_text(answer: Body) -> None:
    for item in _items(answer, "message"):
        item["content"] = "".join(part.get("text", "") for part in item["content"])


def _part_text(answer: Body) -> None:
    for item in _items(answer, "message"):
        for part in item["content"]:
            part["type"] = "text" if part["type"] == "output_text" else part["type"]


def _reasoning_text(answer: Body) -> None:
    if "output" in answer:
        part = {"type": "reasoning_text", "text": "Let me think."}
        name = f"rs_{answer['id'].removeprefix('resp_')}"
        answer["output"].insert(0, {"type": "reasoning", "id": name, "summary": [], "content": [part]})


def _empty_first(answer: Body) -> None:
    for message in _chat(answer):
        message |= {"content": None, "tool_calls": []}
    if "output" in answer:
        answer["output"] = []


QUIRKS: dict[str, Quirk] = {
    "id-empty": _id(lambda n: ""),
    "id-null": _id(lambda n: None),
    "id-missing": _id_missing,
    "id-same": _id(lambda n: "call_0"),  # also in every turn
    "id-number": _id(lambda n: n),
    "id-long": _id_long,
    "id-nine": _id_nine,
    "arguments-object": _arguments(json.loads),
    "arguments-twice": _arguments(json.dumps),
    "arguments-fenced": _arguments(lambda text: f"```json\n{text}\n```"),
    "arguments-trailing-comma": _arguments(lambda text: text.replace('"}', '",}')),
    "arguments-raw-newline": _arguments(lambda text: text.replace('"}', '\n"}')),
    "arguments-cut": _arguments(lambda text: text[: len(text) // 2]),
    "no-arguments-empty": _nothing_as(""),
    "no-arguments-null": _nothing_as(None),
    "no-arguments-null-text": _nothing_as("null"),
    "no-arguments-list": _nothing_as([]),
    "no-arguments-missing": _arguments_missing,
    "content-parts": _content_parts,
    "content-thinking": _content_thinking,
    "content-missing": _content_missing,
    "content-empty": _content_empty,
    "content-half-emoji": _text(lambda text: text + "\ud83d"),
    "content-bom": _text(lambda text: "\ufeff" + text),
    "content-nul": _text(lambda text: text + "\x00"),
    "think": _text(lambda text: f"<think>\nIs it {{}}?\n</think>\n\n{text}"),
    "think-closed": _text(lambda text: f"Is it {{}}?\n</think>\n\n{text}"),  # the template opened the block
    "reasoning-tags": _text(lambda text: f"<reasoning>Is it {{}}?</reasoning>{text}"),
    "cohere-marks": _text(
        lambda text: f"<|START_THINKING|>Is it {{}}?<|END_THINKING|><|START_RESPONSE|>{text}<|END_RESPONSE|>"
    ),
    "fenced": _only_json(lambda text: f"```json\n{text}\n```"),
    "prose": _only_json(lambda text: f"Here is the JSON:\n\n{text}\n\nIs there anything else?"),
    "reasoning-content": _field("reasoning_content", "Let me think."),
    "reasoning": _field("reasoning", "Let me think."),
    "reasoning-details": _field(
        "reasoning_details", [{"type": "reasoning.text", "text": "Let me think.", "format": "unknown", "index": 0}]
    ),
    "nulls": _nulls,
    "signatures": _signatures,
    "index": _index,
    "legacy-call": _legacy_call,
    "finish-stop": _finish(lambda reason: "stop" if reason == "tool_calls" else reason),
    "finish-tool-calls": _finish(lambda reason: "tool_calls"),
    "finish-null": _finish(lambda reason: None),
    "finish-error": _finish_error,
    "finish-model-length": _finish(lambda reason: "model_length"),
    "usage-floats": _usage(lambda count: float(count) if isinstance(count, int) else count),
    "usage-nulls": _usage(lambda count: None),
    "usage-texts": _usage(lambda count: str(count) if isinstance(count, int) else count),
    "usage-missing": _usage_missing,
    "item-ids-missing": _item_ids_missing,
    "item-text": _item_text,
    "part-text": _part_text,
    "reasoning-text": _reasoning_text,
    "empty": _empty_first,
}
