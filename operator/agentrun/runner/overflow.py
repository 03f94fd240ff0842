"""Recognizes errors that say that a request is longer than the model accepts. Each row was seen; none is documented."""

from __future__ import annotations

import re

CODES = frozenset({
    "context_length_exceeded", "context_window_exceeded", "model_context_window_exceeded", "context_too_large",
    "exceed_context_size_error", "string_above_max_length", "prompt_too_long", "request_too_large",
    "tokens_limit_reached", "1261",
})  # fmt: skip

_WORDS = (
    r"maximum context",  # OpenAI, Azure, vLLM, DeepSeek, OpenRouter, SGLang, Mistral, Fireworks
    r"max(?:imum)? model len",  # vLLM
    r"maximum prompt length",  # xAI
    r"exceed\w*\b.{0,80}\bcontext",  # llama.cpp, Ollama, OpenAI's Responses, Anthropic
    r"context[_ ](?:length|window|size|limit)s?\b.{0,60}(?:exceed|overflow|too small|is full)",  # MiniMax and others
    r"(?:longer|greater|larger) than (?:the |its )?(?:maximum |model'?s? )*(?:context|model len)",  # SGLang, LM Studio
    r"when context the overflows|context overflow|context shift is disabled",  # LM Studio, llama.cpp
    r"(?:prompt|input|request|conversation|history|context|messages?)(?: is| are)? too long",  # Anthropic, Bedrock
    r"(?<!image )(?<!file )(?:prompt|input|request|context)(?: is)? too (?:large|big)",  # proxies
    r"too many (?:input )?tokens",  # Cohere
    r"(?:input|prompt)[ _](?:tokens?|token count|length)\b.{0,60}exceed",  # Gemini, Copilot
    r"input tokens?\b.{0,40}cannot exceed",  # watsonx
    r"reduce the input token count",  # Vertex
    r"exceed\w* (?:the )?(?:model'?s? )?(?:max(?:imum)? )?(?:tokens?|input|prompt) (?:limit|length|count|size)",
    r"超长|超过.{0,12}(?:长度|上下文|token)",
    r"exceeded model token limit",  # Moonshot
    r"tokens in request more than max tokens allowed",  # Bedrock
    r"reduce the length of the (?:messages|prompt|input)",  # Groq, OpenAI
    r"range of input length should be",  # DashScope
    r"prompt exceeds max",  # GLM
    r"`?inputs`? (?:must have less than|tokens \+)",  # TGI, Together
    r"max size: \d+ tokens",  # GitHub Models
    r"string too long\. expected a string with maximum length",  # OpenAI
)
_NAME = r"(?:id|name)['\"`]?: string too long"
"""A call's id or name is too long, not the history."""
_RATE = r"tokens? per (?:min|hour|day)|requests? per (?:min|hour|day)|\b[TR]P[MD]\b|rate[_ -]?limit|quota"


def is_rate_limit(said: str, codes: frozenset[str]) -> bool:
    """Whether an error is about a rate limit, whatever its status: Groq answers 413 if a single request exceeds the
    limit of a minute.
    """
    return "rate_limit_exceeded" in codes or bool(re.search(_RATE, said, re.IGNORECASE))


def is_overflow(status: int, said: str, codes: frozenset[str]) -> bool:
    """Whether an error says that the history has to become shorter. An error about a rate limit does not."""
    if is_rate_limit(said, codes) or re.search(_NAME, said, re.IGNORECASE):
        return False
    return status == 413 or bool(codes & CODES) or bool(re.search("|".join(_WORDS), said, re.IGNORECASE))
