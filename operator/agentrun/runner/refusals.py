"""The parts of a request that an endpoint may refuse, and what is sent instead.

OpenAI-compatible endpoints differ in what they accept, and no list says how: the client learns it from refusals. Each
part that can be omitted has a word here. The client notes the word, makes the body without that part, and asks again.
The journal keeps the words, so that a run meets each refusal once per model.

An error about something that the user set and that cannot be omitted is shown to the user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Any

from agentrun.runner.error_words import Said

PARALLEL = "parallel_tool_calls"
INCLUDE = "include"
STORE = "store"
HISTORY = "history"
"""The history in its recorded form. Its plainest form is sent instead."""
STRICT_SCHEMAS = "strict-schemas"
"""``strict: true``. No schema is sent with it."""
STRICT = "strict"
"""The field ``strict``. It is omitted."""
PLAIN_SCHEMAS = "plain-schemas"
"""Full JSON Schema as parameters of tools. Only the keywords that every endpoint knows are sent (``plain_schema``)."""
JSON_SCHEMA = "json_schema"
"""The output format ``json_schema``. The schema is sent in words, and the format is ``json_object``."""
JSON_OBJECT = "json_object"
"""The output format ``json_object``. No format is sent, only the schema in words."""
FORMAT_WITH_TOOLS = "format-with-tools"
"""An output format in a request with tools. No format is sent with tools."""
INSTRUCTIONS = "instructions"
"""Responses: the field ``instructions``. A system message is sent instead."""
SYSTEM = "system"
"""System messages. The instructions are put at the beginning of the first user message."""
MAX_COMPLETION_TOKENS = "max_completion_tokens"
"""Chat: ``max_tokens`` is sent instead."""
MAX_TOKENS = "max_tokens"
MAX_OUTPUT_TOKENS = "max_output_tokens"
LONGER_THAN = ">"
"""``>8192``: a limit of the answer above 8192 tokens is refused. That limit is sent instead."""

BOUNDS = (MAX_COMPLETION_TOKENS, MAX_TOKENS, MAX_OUTPUT_TOKENS)

Refused = Set[str]
"""Words of this module that an endpoint is known to refuse."""

_WORD = (
    rf"{HISTORY}|{PLAIN_SCHEMAS}|{PARALLEL}|{INCLUDE}|{STORE}|{STRICT_SCHEMAS}|{STRICT}|{JSON_SCHEMA}|{JSON_OBJECT}"
    rf"|{FORMAT_WITH_TOOLS}|{SYSTEM}"
    rf"|{INSTRUCTIONS}|{'|'.join(BOUNDS)}|{LONGER_THAN}[1-9][0-9]{{0,8}}"
)

ROOM_MIN = 1_024
"""Tokens. If the history leaves less room than this for the answer, the history has to become shorter."""

_NOT_TAKEN = (
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|extra|not[_ ]support|forbidden|additional propert|no longer"
    r"|(?:not|n't) (?:yet |currently |a )?(?:supported|permitted|allowed|available|valid|recogni[sz]ed|known)"
    r"|(?:not|n't) implemented|(?:does|do)(?: not|n't) (?:support|accept|allow|exist)|no (?:such|support)"
    r"|disabled|disallowed|不支持|無效|无效"
)
"""Words of an error that refuses the parameter itself."""
_REFUSING = (
    rf"{_NOT_TAKEN}|unavailable|incompatible|invalid|disallowed|deprecated|\bno(?:t|n)?\b|n't\b|cannot|must "
    r"|should |expected|unable|only|instead|requires?\b|fail"
)
"""Words of an error that refuses the parameter or its value. They suffice for what the user did not choose."""
_LISTED = (
    r"expected one of|\bsupported (?:parameters|values|fields|types)\b"
    r"|(?:allowed|valid|permitted|possible) (?:values|parameters|fields|keys)|\binstead\b|\buse ['\"`]|did you mean"
)
"""Words after which an error names what it would accept, or what to write instead."""
_DISTINCT = {
    PARALLEL: r"parallel[_ ]?tool[_ -]?calls?",
    JSON_SCHEMA: r"response[_ ]?format|text\.format|output_(?:config|format)|guided_json|\bgrammar\b"
    r"|json[_ ]?schema|json[_ ]?object|json mode|response[_ ]?schema"
    r"|response[_ ]?mime|structured[_ ]outputs?|word 'json'",
    INCLUDE: r"reasoning\.encrypted_content|encrypted[_ ]content",
    MAX_COMPLETION_TOKENS: r"max_?completion_?tokens",
    MAX_TOKENS: r"max_?tokens",
    MAX_OUTPUT_TOKENS: r"max_?output_?tokens",
    SYSTEM: r"(?:messages|input)\W{1,2}0\W{1,2}role"
    r"|system (?:role|messages?|prompts?|instructions?)|role\W+system|'system'|\"system\"|`system`"
    r"|developer instruction|only user and assistant roles",
}
_HISTORY = (
    r"\b(?:messages?|input|contents)\W{0,3}\d|tool[_ ]?(?:call|use)|function[_ ]?call|\bassistant\b|encrypted|reasoning"
    r"|thinking|thought|\barguments\b|content ?block|text content|\broles?\b|template|\bitems? "
)
"""Words of an error about the history."""
_TEMPLATE = r"\bjinja|chat[ _]?template|in template|roles? must|must alternate|\bminja"
"""Words of a server's error about a history that its template does not accept."""
_HISTORY_PATH = r"(?:body\W)?(?:messages|input)\W"
_TEXT = r"['\"`]text['\"`]|text: extra"
"""The field that contains the format in Responses."""
_COMMON = (INCLUDE, STORE, STRICT, INSTRUCTIONS)
"""Parameter names that are also ordinary words. They count only if the error marks them as a name."""


def recorded(words: Iterable[str], model: str) -> set[str]:
    """The words for ``model`` among ``words`` of a journal. Unknown words, of a later version, are ignored."""
    found = (word.removeprefix(f"{model}/") for word in words if word.startswith(f"{model}/"))
    return {word for word in found if re.fullmatch(_WORD, word)}


def to_record(words: Refused, model: str) -> list[str]:
    """``words`` of ``model`` in the form of the journal."""
    return sorted(f"{model}/{word}" for word in words)


def refusal(body: dict[str, Any], said: Said, *, sure: bool = False) -> str | None:
    """The word for what ``said``, the answer to ``body``, refuses; None if it refuses nothing that can be omitted.

    ``sure``: the error must refuse it explicitly, because its status (5xx) means something else.
    """
    words = said.text
    if _tools(body) and _format(body) and _find(_TOGETHER, words) and _find(_FORMAT, words) and _find(_TOOL, words):
        return FORMAT_WITH_TOOLS
    enforced = any(schema.get("strict") is True for schema in _schemas(body))
    about_tool = _find(_TOOL_SCHEMA, words) and not _find(_FORMAT_NAME, words)
    if enforced and (_find(_SCHEMA, words) or about_tool):
        return STRICT_SCHEMAS
    if about_tool and _tools(body) and _find(_REFUSING, words):
        return PLAIN_SCHEMAS
    sent = _sent(body)
    found = next((word for name in said.names if (word := _of_path(name, sent, words))), None)
    if found is None and (_find(_REFUSING, words) or any(_find(_REFUSING, code) for code in said.codes)):
        listed = _find(_LISTED, words)
        found = _earliest(words[: listed.start()] if listed else words, sent, in_text="text" in body)
    if found is None and sure and _find(_TEMPLATE, words):
        return HISTORY
    if (sure or found in BOUNDS) and not _find(_NOT_TAKEN, " ".join((words, *said.codes))):
        return None  # the error is about a limit's value, which the user chose
    if found == STRICT and enforced and not _find(_NOT_TAKEN, words.replace("not supported", "")):
        return STRICT_SCHEMAS
    if found == JSON_SCHEMA and (_format(body) or {}).get("type") != JSON_SCHEMA:
        return JSON_OBJECT
    if found is None and (_find(_HISTORY, words) or any(re.match(_HISTORY_PATH, name) for name in said.names)):
        return HISTORY
    return found


def bound(body: dict[str, Any], said: Said) -> tuple[str, bool] | None:
    """The word for a lower limit of the answer that ``said`` would accept, and whether it holds for later requests.

    None if the error is not about the limit, or if the history leaves less than ``ROOM_MIN``.
    """
    wanted = next((body[name] for name in BOUNDS if name in body), None)
    if wanted is None:
        return None
    words = said.text.replace(",", "")
    for pattern in _ROOM:
        if found := _find(pattern, words):
            room = int(found["window"]) - int(found["input"])
            return (f"{LONGER_THAN}{room}", False) if ROOM_MIN <= room < wanted else None
    for pattern in _MOST:
        if (found := _find(pattern, words)) and 0 < int(found[1]) < wanted:
            return f"{LONGER_THAN}{int(found[1])}", True
    return None


def advice(body: dict[str, Any], said: Said) -> str:
    """What the user has to change, if ``said`` refuses something that the user set; else ""."""
    other = _OTHER_API["chat" if "messages" in body else "responses"]
    if _find(other[0], said.text) and _find(_REFUSING, said.text):
        return f"write api: {other[1]} for the model"
    if _find(_ONLY_STREAMS, said.text):
        return "it answers only as a stream, which agentrun does not ask for: name another model or endpoint"
    named = {"tools", "functions"} & set(said.names) and _find(_NOT_TAKEN, said.text)
    if _tools(body) and (named or _find(_NO_TOOLS, said.text)):
        return "it does not support tools: name another model for the step, or remove its tools"
    return ""


def bounded(wanted: int, refused: Refused) -> int:
    """``wanted`` tokens of answer, or the lower limit that the endpoint accepts."""
    most = [int(word[1:]) for word in refused if word.startswith(LONGER_THAN)]
    return min([wanted, *most])


_FORMAT = (
    r"response[_ ]?(?:format|mime|schema)|json[_ ]?(?:mode|schema|object)|structured|grammar|text\.format|controlled"
    r"|guided"
)
_TOOL = r"\btools?\b|function[_ -]?call|tool[_ -]?(?:call|use|choice)"
_OTHER_API = {
    "chat": (r"v1/responses|responses api", "responses"),
    "responses": (r"v1/chat/completions|chat[ _]?completions", "chat"),
}
_ONLY_STREAMS = r"\bonly supports? (?:the )?stream|stream\W+(?:must|should|has to) be (?:set to )?true"
_NO_TOOLS = (
    r"'tools' is not supported|(?:does|do)(?: not|n't) support (?:the use of )?(?:tools?\b|function)|support tool use"
    r"|--enable-auto-tool-choice|--jinja|tool(?:s| use| call(?:s|ing)?)? (?:is|are) not (?:supported|enabled|available)"
    r"|function call(?:s|ing)? (?:is|are) not (?:supported|enabled|available)"
)
_TOGETHER = (
    r"combin|together|incompatible|simultaneous|same time|mutually|exclusive|conflict|both|instead of"
    r"|only one of|either"
    r"|constraints? with tools|with (?:a |an |the |any |`|')?(?:response|structured|json|grammar|tools?\b|function)"
    r"|when (?:using |`|')?(?:tools?\b|func)"
)
_TOOL_SCHEMA = (
    r"(?:\btools?\b|\bfunctions?\b).{0,80}(?:schema|\.parameters|input_schema|keyword)"
    r"|function_?declarations?\W.{0,9}parameters|schema.{0,60}(?:\btools?\b|\bfunctions?\b)"
)
"""Words of an error about the parameters of a tool."""
_FORMAT_NAME = r"response[_ ]?format|text\.format|response[_ ]?schema|response[_ ]?mime"
_SCHEMA = r"invalid (?:json )?schema|(?<!json_)(?<!json )(?<!response_)(?<!response )\bschema"
"""Words of an error about a schema, as opposed to the name of the format."""

_ROOM = (
    r"maximum context length (?:is|of) (?P<window>\d+) tokens.{0,200}?(?P<input>\d+)"
    r" (?:in the messages|of text input|in your prompt|input tokens|tokens from the input)",
    r"`inputs` tokens \+ `max_new_tokens` must be <= (?P<window>\d+)\. Given: (?P<input>\d+)",
    r"exceed context limit: (?P<input>\d+) \+ \d+ > (?P<window>\d+)",
)
_NAME = r"(?:max_?(?:completion_|output_|new_)?_?tokens|(?:completion|output|maximum) tokens)[`'\"]?"
_MOST = (
    rf"{_NAME}\W+(?:value )?(?:must|should|has to) be (?:less than or equal to|at most|<=)\W{{0,3}}(\d+)",
    rf"{_NAME}.{{0,40}}? between \d+ and (\d+)",
    rf"{_NAME}.{{0,40}}? in (?:the )?(?:range )?\W{{0,3}}\d+\D{{1,5}}(\d+)",
    rf"{_NAME}.{{0,80}}?(?:greater|larger|higher|more) than (?:the )?(?:maximum |limit |of ){{0,2}}\D{{0,3}}(\d+)",
    rf"{_NAME}.{{0,40}}?(?:cannot|can't|must not|may not) exceed\W{{0,3}}(\d+)",
    rf"range of {_NAME} (?:is|should be)\W{{1,3}}\d+ ?(?:\D{{1,4}}) ?(\d+)",
    rf"{_NAME}.{{0,80}}?(?:supports?|allows?) (?:at most|up to|a maximum of) (\d+)",
    rf"{_NAME}.{{0,80}}?exceeds? .{{0,60}}?(?:max(?:imum)?|limit)[^\d]{{0,40}}(\d+)",
    rf"{_NAME}\W+\d+ ?> ?(\d+)",
    rf"{_NAME}.{{0,80}}?(?:less than or equal to|<=|at most|maximum(?: value)?(?: is| of|:)?)\W{{0,3}}(\d+)",
)


def _find(pattern: str, text: str) -> re.Match[str] | None:
    """The first match of ``pattern``. It is compiled when first needed: most processes never see a refusal."""
    return re.search(pattern, text, re.IGNORECASE | re.DOTALL)


def _format(body: dict[str, Any]) -> dict[str, Any] | None:
    """The output format that was sent; None if there was none."""
    found = body.get("response_format") or (body.get("text") or {}).get("format")
    return found if isinstance(found, dict) else None


def _tools(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [tool.get("function", tool) for tool in body.get("tools", ())]


def _schemas(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of ``body`` that have a schema and may be ``strict``."""
    kind = _format(body) or {}
    return [*_tools(body), *([kind.get("json_schema", kind)] if kind.get("type") == JSON_SCHEMA else [])]


def _sent(body: dict[str, Any]) -> list[str]:
    """The words for everything in ``body`` that can be omitted."""
    found = [word for word in (PARALLEL, INCLUDE, STORE, INSTRUCTIONS, *BOUNDS) if word in body]
    if _format(body):
        found.append(JSON_SCHEMA)
    if any("strict" in schema for schema in _schemas(body)):
        found.append(STRICT)
    first: dict[str, Any] = next(iter(body.get("messages") or body.get("input") or ()), {})
    if first.get("role") == SYSTEM or INSTRUCTIONS in body:
        found.append(SYSTEM)
    return found


def _of_path(path: str, sent: list[str], words: str) -> str | None:
    """The word for a parameter that an error names by its path, such as ``tools[0].function.strict``."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path).lower()
    parts = [part for part in re.split(r"[^a-z_0-9]+", snake) if part and part not in ("body", "generation_config")]
    if not parts:
        return None
    first, *rest = parts
    if parts[-1] == STRICT and STRICT in sent:
        return STRICT
    if first in ("response_format", "text", "response_schema", "response_mime_type", "format"):
        return JSON_SCHEMA if JSON_SCHEMA in sent else None
    if first in ("messages", "input"):
        named = rest == ["0", "role"] or _find(_DISTINCT[SYSTEM], words)
        return SYSTEM if named and SYSTEM in sent else None
    return first if first in sent and all(part.isdigit() for part in rest) else None


def _earliest(words: str, sent: list[str], *, in_text: bool) -> str | None:
    """The parameter of ``sent`` that the error names first: later ones are often a list of what is accepted."""
    places = {}
    for word in sent:
        patterns = [_DISTINCT[word]] if word in _DISTINCT else []
        patterns += [_marked(word)] if word in _COMMON else []
        patterns += [_TEXT] if in_text and word == JSON_SCHEMA else []
        found = [match.start() for p in patterns if (match := _find(rf"(?<![a-z]){p}", words))]
        if found:
            places[word] = min(found)
    if INCLUDE in places and _find(r"verif|decrypt|pars", words):
        del places[INCLUDE]  # the error is about an encrypted item of the history, not about the parameter
    if STORE in places and re.search(r"persisted|item", words, re.IGNORECASE):
        del places[STORE]  # the error is about an item that was not stored and that the history only names
    return min(places, key=lambda word: places[word], default=None)


def _marked(word: str) -> str:
    """A pattern that finds ``word`` only if the error marks it as the name of a parameter."""
    quoted = rf"(?:['\"`\[(](?:[\w.\[\]]*[.\]])?{word}(?:\[\d+\])?['\"`\])])"
    names = "(?:param(?:eter)?s?|arguments?|fields?|propert(?:y|ies)|keys?|names?|options?|supplied)"
    named = rf"(?:{names}\W{{1,4}}(?:[\w.]+, ?){{0,8}}{word}\b)"
    kind = "(?:parameter|argument|field|property|option|mode)"
    judged = rf"(?:{word}\W{{1,3}}(?:{kind} )?(?:extra inputs|is|are|was|un|not|must)\b)"
    valued = rf"(?:{word} ?=+ ?(?:true|false)\b)"
    return f"(?:{quoted}|{named}|{judged}|{valued})"
