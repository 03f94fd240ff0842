"""Finds a tool call that an endpoint left in a model's text, because it does not read the model's form of a call.

Pure functions. Such a text is no answer, and no call is made of it: which arguments it means depends on the model, and
only the endpoint knows the model.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from itertools import islice
from typing import Any

from agentrun.runner.dialect import ARGUMENTS
from agentrun.runner.thoughts import is_quoted
from agentrun.workflow.bounded_json import parse_json

_MARK = (
    r"(?i)<[^<>\s]{0,20}(?:tool[_▁-]?call|function_?call|function=|invoke|action_start|start_action|python_tag"
    r"|tools_prefix|dsml)"  # Qwen, GLM, DeepSeek, Kimi, Granite, MiniMax, Llama, InternLM, Cohere, Apertus, …
    r"|\[tool_(?:calls|request)\]"  # Mistral; models in LM Studio that were not trained for calls
    r"|\bfunctools\["  # Phi-4-mini
    r"|\bto=functions\."  # gpt-oss
)
"""The marks before a call, in the forms for which vLLM, SGLang, llama.cpp and LM Studio have parsers."""
_NEAR = 200
"""Characters behind a mark within which the tool is named."""
_MARKS_MAX = 50
"""The most marks of a text that are looked at."""
_CALL_KEYS = frozenset({"type", "id", "name", "function", *ARGUMENTS})
_CALL_MAX = 65_536
"""The most characters of a text that is read as one call, in JSON without marks."""


def call_in_text(text: str, tools: Collection[str]) -> str | None:
    """The one of ``tools`` that the text calls, in a model's own form; None if it calls none.

    The form is a mark with the tool's name close behind it, or a text that is nothing but the JSON of a call, as Llama
    writes it. A mark in quotes or in code is no call.
    """
    if not tools:
        return None
    for mark in islice(_pattern().finditer(text), _MARKS_MAX):
        if is_quoted(text, mark.start()):
            continue
        near = text[mark.start() : mark.end() + _NEAR]
        named = [(found.start(), name) for name in tools if (found := re.search(_whole(name), near)) is not None]
        if named:
            return min(named)[1]
    return _as_json(text, tools)


@cache
def _pattern() -> re.Pattern[str]:
    """Compiled when first needed, so that it does not delay the start of the process."""
    return re.compile(_MARK)


def _whole(name: str) -> str:
    return rf"(?<![\w-]){re.escape(name)}(?![\w-])"


def _as_json(text: str, tools: Collection[str]) -> str | None:
    stripped = text.strip()
    if not stripped.startswith(("{", "[")) or len(stripped) > _CALL_MAX:
        return None
    try:
        value: Any = parse_json(stripped)
    except ValueError:
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict) or not value.keys() <= _CALL_KEYS:
        return None
    call = value.get("function", value)
    if not isinstance(call, dict) or not any(key in call for key in ARGUMENTS):
        return None
    return next((name for name in tools if call.get("name") == name), None)
