"""What is answered, before either API gives it its form: a rule and a failure made into texts, calls and usage."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .conversation import Conversation
from .script import JSON, Failure, Rule, ScriptError, as_text, render

CREATED = 1767225600
"""When every answer says it was made (2026-01-01, Unix seconds): a repeated request gets the same bytes."""

_SEAL = "gAAAAABscripted"
_DELTA = 24
_REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; ``cached`` are part of ``input``, ``reasoning`` of ``output``."""

    input: int
    cached: int
    output: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One model turn. ``calls`` are (name, arguments as text); ``incomplete`` says why it was cut short."""

    text: str | None
    refusal: str | None
    calls: tuple[tuple[str, str], ...]
    seal: str | None
    incomplete: str | None
    usage: Usage
    tag: str
    """The part that the ids of this turn have in common."""

    def call_id(self, index: int) -> str:
        """The id of the call ``index``."""
        return f"call_{self.tag}{index:02x}"


def compose(rule: Rule, failure: Failure | None, asked: Conversation, captures: Mapping[str, str]) -> Answer:
    """The turn that ``rule`` scripts for ``asked``; of failures only a refusal and an incomplete answer change it.

    Raises:
        ScriptError: the rule does not fit the request.

    """
    if len(rule.calls) > 1 and not asked.parallel:
        raise ScriptError(f"{len(rule.calls)} tool_calls, but the request says parallel_tool_calls: false")
    text = None if rule.text is None and not rule.as_json else _text(rule, asked, captures)
    calls = tuple((call.name, _arguments(call.args, asked, captures)) for call in rule.calls)
    refusal = incomplete = None
    if failure and failure.kind == "refuse":
        refusal = failure.value if isinstance(failure.value, str) else _REFUSAL
        text, calls = None, ()
    if failure and failure.kind == "incomplete":
        incomplete = failure.value
        # As the real ones do it: what was begun is there, and cut in the middle, a call's arguments included.
        if text is not None:
            text, calls = text[: len(text) // 2], ()
        else:
            calls = tuple((name, arguments[: len(arguments) // 2]) for name, arguments in calls[:1])
    seal = _sealed(asked.digest) if rule.reasoning else None
    written = len(text or refusal or "") + sum(len(name) + len(arguments) for name, arguments in calls)
    reasoning = rule.usage.get("reasoning", 0)
    usage = Usage(
        input=rule.usage.get("input", max(1, asked.size // 4)),
        cached=rule.usage.get("cached", 0),
        output=rule.usage.get("output", max(1, written // 4) + reasoning),
        reasoning=reasoning,
    )
    return Answer(text, refusal, calls, seal, incomplete, usage, tag(seal) if seal else asked.digest[:22])


def tag(seal: str) -> str:
    """The part of the ids of a turn that binds its calls and its message to the reasoning ``seal`` before them."""
    return "r" + hashlib.sha256(seal.encode()).hexdigest()[:21]


def is_sealed(seal: str) -> bool:
    """Whether ``seal`` is an encrypted_content that some server of this kind made, unchanged."""
    return seal == _seal(seal[len(_SEAL) : len(_SEAL) + 32])


def pieces(text: str) -> Iterator[str]:
    """``text`` in the pieces that a stream carries."""
    for start in range(0, len(text), _DELTA):
        yield text[start : start + _DELTA]


def _sealed(digest: str) -> str:
    return _seal(hashlib.sha256(f"reasoning {digest}".encode()).hexdigest()[:32])


def _seal(nonce: str) -> str:
    # Opaque to clients, checkable without memory: the second half is a digest of the first.
    check = hashlib.sha256(f"{_SEAL}{nonce}".encode()).digest()
    return f"{_SEAL}{nonce}{base64.urlsafe_b64encode(check).decode()}"


def _text(rule: Rule, asked: Conversation, captures: Mapping[str, str]) -> str:
    value = render(rule.text, captures, asked.results)
    return json.dumps(value, ensure_ascii=False) if rule.as_json else as_text(value)


def _arguments(args: JSON, asked: Conversation, captures: Mapping[str, str]) -> str:
    return as_text(render(args, captures, asked.results))
