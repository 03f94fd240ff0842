"""Removes the thoughts that an endpoint left in a model's text, because it does not know the model's marks.

Pure functions. Thoughts in fields or parts of their own are no text: ``dialect`` does not read them.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice

_THOUGHTS = {
    "<think>": "</think>",  # DeepSeek R1, Qwen3, GLM, Granite 3.3, Hunyuan, …: vLLM's "Reasoning Outputs"
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE Deep; Gemini, from its OpenAI endpoint
    "<reasoning>": "</reasoning>",  # gpt-oss, from Bedrock
    "<seed:think>": "</seed:think>",  # Seed-OSS: vLLM's parser "seed_oss"
    "<mm:think>": "</mm:think>",  # MiniMax-M3: SGLang's reasoning parser
    "[think]": "[/think]",  # Magistral, Mistral Small 4: vLLM's parser "mistral"
    "◁think▷": "◁/think▷",  # Kimi: SGLang's "Reasoning Parser"
    "<|open|>think<|sep|>": "<|close|>think<|sep|>",  # Kimi K3: vLLM's parser "kimi_k3"
    "<|start_thinking|>": "<|end_thinking|>",  # Cohere's Command A: vLLM's parser "cohere_command3"
    "<|channel>thought": "<channel|>",  # Gemma 4: vLLM's parser "gemma4"
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus: vLLM's parser "apertus"
    "<|channel|>analysis<|message|>": "<|end|>",  # gpt-oss: OpenAI's "Harmony response format"
}
"""The marks around a thought, in small letters, and where they are documented."""
_ALONE = tuple(mark for mark in _THOUGHTS.values() if mark != "<|end|>")
"""The end marks that are found without a start mark. ``<|end|>`` also ends whole answers (Phi)."""
_ANSWERS = {
    "<response>": "</response>",  # Granite 3.3
    "<answer>": "</answer>",  # Hunyuan: vLLM's parser "hunyuan_a13b"
    "<|start_response|>": "<|end_response|>",  # Cohere's Command A
    "<|start_text|>": "<|end_text|>",  # Cohere's Command A Plus
    "<|open|>response<|sep|>": "<|close|>response<|sep|>",  # Kimi K3
}
"""The marks around the answer after a thought."""
_FINAL_CHANNEL = r"(?i)<\|channel\|>\s*final\s*(?:<\|[a-z_]+\|>[^<]*)?<\|message\|>"
_MARK = r"<\|(?:end|return|start|call)\|>"
_IN_WORDS = (
    r"(?s)Here(?:'s| is) my thought process:.*?Here(?:'s| is) my response:"  # Granite 3.2: vLLM's parser "granite"
    r"|analysis.*?assistantfinal"  # gpt-oss, from servers that leave out the special tokens of its channels
)
_SPACE = " \t\r\n\ufeff"
_LEAD = 100
"""Characters at the beginning of a text, within which the mark before an answer stands."""
_BLOCKS_MAX = 20
_MARKS_MAX = 50
"""The most marks of a text that are weighed against each other."""


def without_thoughts(text: str) -> str:
    """``text`` without the model's thoughts, if the endpoint left them at the beginning of the text.

    Blocks between marks of ``_THOUGHTS`` at the very beginning are removed, and the marks around the answer behind
    them. A block without an end mark is removed to the end of the text. If the template wrote the start mark, only the
    end mark is there: everything up to it is removed. Marks elsewhere, as in JSON, in quotes or in prose, stay.
    """
    text = text.removeprefix("\ufeff")
    inner = text.lstrip(_SPACE)
    begin = inner[:1]
    if begin == "<" and inner.startswith("<|") and (final := re.search(_FINAL_CHANNEL, inner)) is not None:
        return re.split(_MARK, inner[final.end() :], maxsplit=1)[0].lstrip()
    rest = inner
    if begin in ("<", "[", "◁"):
        for _ in range(_BLOCKS_MAX):
            opening = _patterns()[0].match(rest)
            if opening is None:
                break
            end = _end(rest, opening.end(), opening[1].lower())
            if end is None:
                return ""
            rest = rest[end:]
    elif begin in ("H", "a") and (spoken := re.match(_IN_WORDS, inner)) is not None:
        rest = inner[spoken.end() :]
    if rest is inner and (begin not in ("{", "[") or inner.startswith("[/")) and not inner.startswith("```"):
        rest = inner[_unopened(inner) :]
    answer = _unwrapped(rest, thought=rest is not inner)
    return text if answer is inner else answer.lstrip()


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """The patterns of a start mark at the beginning, of a start mark or an end mark, and of the mark before an answer.

    They are compiled when first needed, so that they do not delay the start of the process.
    """
    starts, ends, answers = ("|".join(map(re.escape, marks)) for marks in (_THOUGHTS, _ALONE, _ANSWERS))
    found = rf"(?i)[\s\ufeff]*({starts})", rf"(?i)({starts})|{ends}", rf"(?i)\s*({answers})"
    return re.compile(found[0]), re.compile(found[1]), re.compile(found[2])


def _end(text: str, start: int, mark: str) -> int | None:
    """Where the block ends whose start mark, ``mark``, ends at ``start``; None if it has no end mark.

    Blocks inside the block are part of it. Where start marks and end marks do not match, the first end mark counts.
    """
    closing = re.escape(_THOUGHTS[mark])
    first = re.compile(rf"(?i){closing}").search(text, start)
    if first is None:
        return None
    open_blocks = 1
    for found in islice(re.compile(rf"(?i)({re.escape(mark)})|{closing}").finditer(text, start), _MARKS_MAX):
        if not is_quoted(text, found.start()):
            open_blocks += 1 if found[1] else -1
            if not open_blocks:
                return found.end()
    return first.end()


def _unopened(text: str) -> int:
    """Where the thought ends that has only an end mark; 0 if there is none.

    The end mark stands at the beginning of a line or directly behind a word, and has no start mark before it.
    """
    if not any(sign in text for sign in ("</", "[/", "◁/", "|>")):
        return 0
    small = text.lower()
    if not any(mark in small for mark in _ALONE):
        return 0
    open_blocks = 0
    for found in islice(_patterns()[1].finditer(text), _MARKS_MAX):
        start, end = found.span()
        if is_quoted(text, start):
            continue
        if found[1]:
            open_blocks += 1
        elif open_blocks:
            open_blocks -= 1
        else:
            before = text[max(start - 200, 0) : start].rstrip(" \t")[-1:]
            glued = before == text[start - 1 : start] and before not in "`'(["
            if before in ("", "\n") or (glued and text[end : end + 1] not in tuple("`')],.;:?!")):
                return end
    return 0


def is_quoted(text: str, place: int) -> bool:
    """Whether ``place`` is inside quotes or code, as far as its line and the Markdown fences before it tell."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return bool(line.count('"') % 2 or line.count("`") % 2 or text.count("```", 0, place) % 2)


def _unwrapped(text: str, *, thought: bool) -> str:
    """``text`` without the marks around the answer. Marks that could be the answer's own count only behind a thought
    and around all the rest.
    """
    opening = _patterns()[2].match(text) if "<" in text[:_LEAD] else None
    if opening is None:
        return text
    closing = _ANSWERS[opening[1].lower()]
    inner = text[opening.end() :]
    if opening[1].startswith("<|"):
        return re.split(re.escape(closing), inner, maxsplit=1, flags=re.IGNORECASE)[0]
    inner = inner.rstrip()
    closed = inner[-len(closing) :].lower() == closing
    return inner[: -len(closing)].rstrip() if thought and closed else text
