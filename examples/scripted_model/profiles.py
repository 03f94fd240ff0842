"""Endpoints that are not OpenAI's, as named profiles: how each answers, what it takes that OpenAI does not, what it
refuses, and how it words a refusal. To add an endpoint, add an entry to ``PROFILES``; to add what one of them does,
add a row to its entry. ``README.md`` lists the profiles.
"""

from __future__ import annotations

from .profile import (
    Profile,
    bare,
    blank_text,
    broken_arguments,
    detail,
    flat,
    google,
    has,
    in_text,
    lacks,
    litellm,
    long_id,
    messages,
    no_text,
    null_content,
    null_field,
    numbered,
    odd_id,
    parameter,
    together,
    unsigned,
    wrapped,
)

_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
_TOO_LONG = "Invalid 'messages[{place}]': string too long. Expected a call's id to be shorter than {} characters."
_NOTHING_SAID = "Assistant message must have either content or tool_calls, but not none."

PROFILES: dict[str, Profile] = {
    "openai": Profile(refuses=(messages(long_id, _TOO_LONG),), apis=("chat", "responses")),
    "gemini": Profile(
        quirks=("id-empty", "signatures", "finish-stop", "content-missing"),
        refuses=(
            parameter("store", 'Invalid JSON payload received. Unknown name "store": Cannot find field.'),
            together(
                "tools",
                "response_format",
                "Function calling with a response mime type: 'application/json' is unsupported",
            ),
            messages(no_text, "* GenerateContentRequest.contents[{place}].parts: contents.parts must not be empty.\n"),
            messages(
                unsigned,
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                "work correctly, and missing thought_signature may lead to degraded model performance.",
            ),
        ),
        takes=("extra_content",),
        errors=google,
    ),
    "mistral": Profile(
        quirks=("id-nine", "content-empty", "content-thinking", "index"),
        refuses=(
            parameter("max_completion_tokens", "Extra inputs are not permitted", code="extra_forbidden", status=422),
            messages(odd_id, "Tool call id was {} but must be a-z, A-Z, 0-9, with a length of 9."),
            messages(no_text, _NOTHING_SAID),
        ),
        takes=("thinking", "index"),
        errors=detail,
    ),
    "deepseek": Profile(
        quirks=("reasoning-content", "content-empty", "index"),
        refuses=(
            parameter("response_format.json_schema", "This response_format type is unavailable now"),
            messages(
                lacks("reasoning_content"),
                "Missing `reasoning_content` field in the assistant message at message index {place}.",
            ),
        ),
        takes=("reasoning_content", "index"),
    ),
    "openrouter": Profile(
        quirks=("reasoning", "reasoning-details", "nulls", "index"),
        refuses=(messages(lacks("reasoning_details"), "Reasoning details must be sent back."),),
        takes=(*_REASONING, "index"),
        errors=wrapped,
    ),
    "vllm": Profile(
        quirks=("think", "no-arguments-empty", "nulls", "reasoning-text"),
        refuses=(
            messages(broken_arguments, "{}"),
            messages(null_content, "Conversation roles must alternate user/assistant/user/assistant/..."),
        ),
        takes=("reasoning",),
        errors=flat,
        apis=("chat", "responses"),
    ),
    "llama.cpp": Profile(
        quirks=("arguments-object", "id-missing", "think-closed", "usage-missing"),
        refuses=(
            together("tools", "response_format", "Cannot use custom grammar constraints with tools."),
            messages(null_content, "Expected 'content' to be a string or an array"),
            messages(broken_arguments, "Failed to parse tool call arguments as JSON: {}"),
        ),
        takes=("reasoning_content",),
        errors=numbered,
    ),
    "azure": Profile(
        refuses=(
            messages(long_id, _TOO_LONG),
            parameter("parallel_tool_calls", "Unrecognized request argument supplied: parallel_tool_calls"),
            parameter("max_completion_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
        ),
        apis=("chat", "responses"),
    ),
    "litellm": Profile(
        quirks=("id-long", "nulls", "usage-floats", "part-text"),
        refuses=(
            parameter("parallel_tool_calls", "ollama does not support parameters: ['parallel_tool_calls']"),
            messages(null_field, "Unknown parameter: 'input[{place}].{}'."),
        ),
        errors=litellm,
        apis=("chat", "responses"),
    ),
    "ollama": Profile(
        quirks=("finish-stop", "no-arguments-null", "fenced", "reasoning", "index", "item-ids-missing"),
        refuses=(
            messages(null_content, "invalid message content type: <nil>"),
            messages(broken_arguments, "invalid tool call arguments"),
        ),
        takes=("reasoning", "index"),
        errors=in_text,
        apis=("chat", "responses"),
    ),
    "groq": Profile(
        quirks=("reasoning", "usage-floats"),
        refuses=(
            together("tools", "response_format", "json mode cannot be combined with tool/function calling"),
            messages(has("reasoning"), "'messages.{place}' : for 'role:assistant' property 'reasoning' is unsupported"),
        ),
    ),
    "bedrock": Profile(
        quirks=("reasoning-tags", "content-empty"),
        refuses=(
            messages(
                lambda message: no_text(message) or (blank_text(message) and not message.get("tool_calls")),
                "The text field in the ContentBlock object at messages.{place}.content.0 is blank.",
            ),
        ),
        errors=bare,
        apis=("chat", "responses"),
    ),
    "cohere": Profile(
        quirks=("cohere-marks", "finish-stop"),
        refuses=(
            parameter(
                "parallel_tool_calls",
                "unknown field: parameter 'parallel_tool_calls' is not a valid field",
                status=422,
            ),
            together("tools", "response_format", "cannot specify both response_format and tools"),
        ),
        errors=bare,
        apis=("chat", "responses"),
    ),
    "tgi": Profile(
        quirks=("id-number", "arguments-object", "prose", "usage-nulls"),
        refuses=(parameter("parallel_tool_calls", "unknown field `parallel_tool_calls`", status=422),),
        errors=in_text,
    ),
    "lmstudio": Profile(
        quirks=("id-same", "arguments-twice", "think", "item-text"),
        refuses=(messages(null_content, "Invalid 'content': 'content' field must be a string or an array of objects"),),
        errors=in_text,
        apis=("chat", "responses"),
    ),
    "legacy": Profile(
        quirks=("legacy-call", "finish-null", "arguments-trailing-comma", "content-bom"),
        refuses=(parameter("parallel_tool_calls", "Unrecognized request argument supplied: parallel_tool_calls"),),
    ),
}
