"""The script: rules, how they are read from a file, and which of them answers a conversation.

Everything here is pure. The format is described in the package's docstring.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .quirks import QUIRKS

JSON = Any
"""A JSON value."""

_TEMPLATE = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")
_FAILURES = ("status", "hang", "cut", "malformed", "refuse", "incomplete", "quirks")
_INCOMPLETE = ("max_output_tokens", "content_filter")


class ScriptError(ValueError):
    """The script cannot be read, or a rule of it cannot answer this request. The message names the place."""


class Facts(Protocol):
    """What a rule may ask about a conversation; all of it derived from the request alone."""

    @property
    def model(self) -> str:
        """The model that was asked for."""

    @property
    def text(self) -> str:
        """The first text of a user."""

    @property
    def turn(self) -> int:
        """How many turns the model has had."""

    @property
    def last_tool(self) -> str | None:
        """The tool whose result is the last item."""

    @property
    def results(self) -> Mapping[str, JSON]:
        """The latest result of each tool."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One scripted way not to answer: ``kind`` is the key that the script used, ``value`` what stood behind it."""

    kind: str
    value: JSON
    retry_after: float | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The conditions of a rule; those that are None hold for every request."""

    text: str | None
    regex: re.Pattern[str] | None
    model: str | None
    turn: int | None
    after_tool: str | None

    def captures(self, facts: Facts) -> dict[str, str] | None:
        """The named groups of the regex if every condition holds, else None."""
        found = self.regex.search(facts.text) if self.regex else None
        holds = (
            (self.text is None or self.text in facts.text)
            and (self.regex is None or found is not None)
            and (self.model is None or self.model == facts.model)
            and (self.turn is None or self.turn == facts.turn)
            and (self.after_tool is None or self.after_tool == facts.last_tool)
        )
        if not holds:
            return None
        return {name: text for name, text in found.groupdict().items() if text is not None} if found else {}


@dataclass(frozen=True, slots=True)
class Call:
    """A scripted tool call; ``args`` that are a text are sent as they are, to play a model that writes no JSON."""

    name: str
    args: JSON


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``text`` is a template, or with ``as_json`` a JSON value of templates."""

    where: str
    match: Match
    text: JSON
    as_json: bool
    calls: tuple[Call, ...]
    reasoning: bool
    usage: Mapping[str, int]
    quirks: tuple[str, ...]
    latency: float
    fail: tuple[Failure, ...]
    fail_always: Failure | None


@dataclass(frozen=True, slots=True)
class Script:
    """A script as read. ``models`` is empty when every model's name is accepted."""

    rules: tuple[Rule, ...]
    models: tuple[str, ...]

    def find(self, facts: Facts) -> tuple[int, Rule, dict[str, str]] | None:
        """The first rule that matches, with its index and what its regex captured."""
        for index, rule in enumerate(self.rules):
            captures = rule.match.captures(facts)
            if captures is not None:
                return index, rule, captures
        return None


def render(template: JSON, captures: Mapping[str, str], results: Mapping[str, JSON]) -> JSON:
    """``template`` with every ``{{…}}`` in it replaced; a text that is one ``{{…}}`` whole keeps the value's type.

    Raises:
        ScriptError: a name is not there.

    """
    match template:
        case str():
            whole = _TEMPLATE.fullmatch(template)
            if whole:
                return _look_up(whole[1], captures, results)
            return _TEMPLATE.sub(lambda found: as_text(_look_up(found[1], captures, results)), template)
        case list():
            return [render(part, captures, results) for part in template]
        case dict():
            return {name: render(part, captures, results) for name, part in template.items()}
        case _:
            return template


def as_text(value: JSON) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _look_up(name: str, captures: Mapping[str, str], results: Mapping[str, JSON]) -> JSON:
    head, *path = name.split(".")
    if head != "tool" or not path:
        if name in captures:
            return captures[name]
        raise ScriptError(f"{{{{{name}}}}}: the rule's regex has no group of that name; it has {_names(captures)}")
    tool, *fields = path
    if tool not in results:
        raise ScriptError(f"{{{{{name}}}}}: the history has no result of {tool!r}; it has results of {_names(results)}")
    value = results[tool]
    for field in fields:
        if isinstance(value, dict) and field in value:
            value = value[field]
        elif isinstance(value, list) and field.isdecimal() and int(field) < len(value):
            value = value[int(field)]
        else:
            raise ScriptError(f"{{{{{name}}}}}: there is no {field!r} in {as_text(value)[:200]}")
    return value


def read(document: JSON) -> Script:
    """The script in ``document``: what the YAML file holds.

    Raises:
        ScriptError: it does not have the form that the package's docstring describes.

    """
    fields = _fields(document, "the script", "rules", "models")
    rules = _list(fields.get("rules"), "rules")
    if not rules:
        raise ScriptError("rules: a script needs at least one rule")
    models = [_text(model, f"models[{i}]") for i, model in enumerate(_list(fields.get("models", []), "models"))]
    return Script(tuple(_rule(rule, f"rules[{i}]") for i, rule in enumerate(rules)), tuple(models))


def _rule(document: JSON, where: str) -> Rule:
    fields = _fields(
        document,
        where,
        *("match", "text", "json", "tool_calls", "reasoning", "usage", "quirks", "latency", "fail", "fail_always"),
    )
    if "text" in fields and "json" in fields:
        raise ScriptError(f"{where}: say `text` or `json`, not both")
    if not fields.keys() & {"text", "json", "tool_calls", "fail_always"}:
        raise ScriptError(f"{where}: no answer; add `text`, `json`, `tool_calls` or `fail_always`")
    calls = _list(fields.get("tool_calls", []), f"{where}.tool_calls")
    fail = _list(fields.get("fail", []), f"{where}.fail")
    usage = _fields(fields.get("usage", {}), f"{where}.usage", "input", "cached", "output", "reasoning")
    reasoning = fields.get("reasoning", False)
    if not isinstance(reasoning, bool):
        raise ScriptError(f"{where}.reasoning: expected true or false")
    return Rule(
        where=where,
        match=_match(fields.get("match", {}), f"{where}.match"),
        text=fields["json"] if "json" in fields else _optional_text(fields, "text", where),
        as_json="json" in fields,
        calls=tuple(_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)),
        reasoning=reasoning,
        usage={name: _count(value, f"{where}.usage.{name}") for name, value in usage.items()},
        quirks=_quirks(fields.get("quirks", []), f"{where}.quirks"),
        latency=_seconds(fields.get("latency", 0), f"{where}.latency"),
        fail=tuple(_failure(failure, f"{where}.fail[{i}]") for i, failure in enumerate(fail)),
        fail_always=_failure(fields["fail_always"], f"{where}.fail_always") if "fail_always" in fields else None,
    )


def _match(document: JSON, where: str) -> Match:
    fields = _fields(document, where, "text", "regex", "model", "turn", "after_tool")
    pattern = _optional_text(fields, "regex", where)
    try:
        regex = re.compile(pattern) if pattern is not None else None
    except re.error as error:
        raise ScriptError(f"{where}.regex: {error}") from error
    return Match(
        text=_optional_text(fields, "text", where),
        regex=regex,
        model=_optional_text(fields, "model", where),
        turn=_count(fields["turn"], f"{where}.turn") if "turn" in fields else None,
        after_tool=_optional_text(fields, "after_tool", where),
    )


def _call(document: JSON, where: str) -> Call:
    fields = _fields(document, where, "name", "args")
    args = fields.get("args", {})
    if not isinstance(args, dict | str):
        raise ScriptError(f"{where}.args: expected an object, or a text to send as it is")
    return Call(_text(fields.get("name"), f"{where}.name"), args)


def _failure(document: JSON, where: str) -> Failure:
    fields = _fields(document, where, *_FAILURES, "retry_after", "code", "message")
    kinds = [kind for kind in _FAILURES if kind in fields]
    if len(kinds) != 1:
        raise ScriptError(f"{where}: say exactly one of {', '.join(_FAILURES)}")
    kind, value = kinds[0], fields[kinds[0]]
    if kind != "status" and fields.keys() & {"retry_after", "code", "message"}:
        raise ScriptError(f"{where}: retry_after, code and message belong to `status`")
    match kind:
        case "status":
            valid = isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599
        case "hang":
            value = _seconds(value, f"{where}.hang")
            valid = True
        case "incomplete":
            valid = value in _INCOMPLETE
        case "quirks":
            value = _quirks(value, f"{where}.quirks")
            valid = True
        case "refuse":
            valid = value is True or (isinstance(value, str) and value != "")
        case _:
            valid = value is True
    if not valid:
        raise ScriptError(f"{where}.{kind}: {value!r} is not something that `{kind}` can be")
    wait = _seconds(fields["retry_after"], f"{where}.retry_after") if "retry_after" in fields else None
    return Failure(kind, value, wait, _optional_text(fields, "code", where), _optional_text(fields, "message", where))


def _quirks(value: JSON, where: str) -> tuple[str, ...]:
    names = tuple(_text(name, f"{where}[{i}]") for i, name in enumerate(_list(value, where)))
    unknown = [name for name in names if name not in QUIRKS]
    if unknown:
        raise ScriptError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(QUIRKS)}")
    return names


def _fields(value: JSON, where: str, *known: str) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise ScriptError(f"{where}: expected a mapping with {', '.join(known)}")
    unknown = [str(name) for name in value if name not in known]
    if unknown:
        raise ScriptError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return value


def _list(value: JSON, where: str) -> Sequence[JSON]:
    if not isinstance(value, list):
        raise ScriptError(f"{where}: expected a list")
    return value


def _text(value: JSON, where: str) -> str:
    if not isinstance(value, str):
        raise ScriptError(f"{where}: expected a text, not {value!r}")
    return value


def _optional_text(fields: Mapping[str, JSON], name: str, where: str) -> str | None:
    return _text(fields[name], f"{where}.{name}") if name in fields else None


def _count(value: JSON, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ScriptError(f"{where}: expected a whole number of at least 0, not {value!r}")
    return value


def _seconds(value: JSON, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ScriptError(f"{where}: expected seconds, not {value!r}")
    return float(value)


def _names(mapping: Mapping[str, JSON]) -> str:
    return ", ".join(sorted(mapping)) or "none"
