"""How an answer ended, and the tokens that it took, in every endpoint's words."""

from __future__ import annotations

from typing import Any

import pytest

from agentrun.runner import chat_turn
from agentrun.runner.dialect import (
    AnswerFailed,
    Malformed,
    ending,
    tokens,
)
from tests.harness.heard_answers import chat, responses

# Endings.


@pytest.mark.parametrize(
    "reason",
    ["stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "tool_calls", "function_call", "tool_use",
     "COMPLETE", "completed", "", None, 7, {"type": "stop"}, "done", "FINISH_REASON_STOP", "finished",
     "EOS", "TOOL_CALL", "toolUse", "STOP_SEQUENCE", "stop_token", "FINISH_REASON_UNSPECIFIED", [], {}, False],
)  # fmt: skip
def test_reasons_that_mean_whole(reason: Any) -> None:
    assert ending(reason).kind == "whole"
    assert chat({"content": "hi"}, reason).text == "hi"


@pytest.mark.parametrize(
    ("reason", "named"),
    [("length", "max_output_tokens"), ("max_tokens", "max_output_tokens"), ("MAX_TOKENS", "max_output_tokens"),
     ("maxTokens", "max_output_tokens"), ("model_length", "model_length"), ("content_filter", "content_filter"),
     ("content-filter", "content_filter"), ("SAFETY", "safety"), ("RECITATION", "recitation"),
     ("PROHIBITED_CONTENT", "prohibited_content"), ("guardrail_intervened", "guardrail_intervened"),
     ("sensitive", "sensitive"), ("model_context_window_exceeded", "model_context_window_exceeded"),
     ({"unified": "length", "raw": "x"}, "max_output_tokens"), ("pause_turn", "pause_turn"),
     ("max_output_tokens", "max_output_tokens"), ("max_output_reached", "max_output_reached"),
     ("content_filtered", "content_filtered"), ("BLOCKLIST", "blocklist"), ("SPII", "spii"),
     ("IMAGE_SAFETY", "image_safety"), ("MODEL_ARMOR", "model_armor"), ("ERROR_TOXIC", "error_toxic"),
     ("ERROR_LIMIT", "error_limit"), ({"type": "max_tokens"}, "max_output_tokens")],
)  # fmt: skip
def test_reasons_that_mean_cut_off(reason: Any, named: str) -> None:
    assert chat({"content": "half"}, reason).incomplete == named


@pytest.mark.parametrize(
    "reason",
    ["error", "ERROR", "abort", "aborted", "cancelled", "failed", "insufficient_system_resource", "timeout",
     "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "engine_overloaded", {"type": "error"},
     "network_error", "USER_CANCEL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE", "malformed_model_output"],
)  # fmt: skip
def test_reasons_that_mean_failed(reason: Any) -> None:
    with pytest.raises(AnswerFailed) as caught:
        chat({"content": "half"}, reason)
    assert caught.value.error["code"] == "server_error"
    with pytest.raises(AnswerFailed):
        chat({"content": "half"}, "stop", native_finish_reason=reason)


@pytest.mark.parametrize("calls", [None, [], [None], {}, "", [{}]])
def test_a_reason_that_names_calls_where_there_are_none_changes_nothing(calls: Any) -> None:
    for said in (None, "", "Let me see."):
        turn = chat({"content": said, "tool_calls": calls}, "tool_calls")
        assert (turn.text, turn.calls, turn.incomplete) == (said or None, (), None)


def test_an_error_inside_a_choice_is_the_endpoints_word() -> None:
    for finish in ("error", "stop", None):
        with pytest.raises(AnswerFailed) as caught:
            chat({"content": "half"}, finish, error={"code": 502, "message": "Upstream error"})
        assert caught.value.error == {"code": 502, "message": "Upstream error"}


@pytest.mark.parametrize("status", ["failed", "cancelled", "error", "FAILED"])
def test_a_response_that_failed(status: str) -> None:
    with pytest.raises(AnswerFailed):
        responses(status=status)


@pytest.mark.parametrize("status", ["queued", "in_progress", "IN_PROGRESS", "requires_action"])
def test_a_response_that_is_not_over(status: str) -> None:
    with pytest.raises(Malformed, match="its status is"):
        responses(status=status)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": "incomplete", "incomplete_details": "content_filter"}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "unknown"),
        ({"status": "incomplete"}, "unknown"),
        ({"status": "completed", "incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": None}, None),
        ({"status": "success"}, None),
        ({"status": "completed", "incomplete_details": {}}, None),
    ],
)
def test_a_response_that_was_cut_off(more: dict[str, Any], named: str | None) -> None:
    assert responses(**more).incomplete == named


# Usage.


@pytest.mark.parametrize(
    ("usage", "count"),
    [({"a": 10}, 10), ({"a": 10.0}, 10), ({"a": 10.5}, 11), ({"a": "10"}, 10), ({"a": "10.5"}, 11), ({"a": None}, 0),
     ({}, 0), (None, 0), ([], 0), (7, 0), ({"a": -5}, 0), ({"a": True}, 0), ({"a": 10**30}, 0),
     ({"a": float("nan")}, 0), ({"a": float("inf")}, 0), ({"a": "many"}, 0), ({"a": "9" * 400}, 0),
     ({"a": {"b": 1}}, 0), ({"b": 3}, 3),
     ({"a": 0, "b": 3}, 3), ({"c": {"d": 4}}, 4), ({"c": None}, 0), ({"c": 7}, 0)],
)  # fmt: skip
def test_counts(usage: Any, count: int) -> None:
    assert tokens(usage, "a", "b", "c.d") == count


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10}}, (50, 10, 7)),
        ({"input_tokens": 50, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 10}}, (50, 10, 7)),
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": None}, (50, 0, 7)),
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_cache_hit_tokens": 10}, (50, 10, 7)),
        ({"prompt_tokens": 50, "total_tokens": 57}, (50, 0, 7)),
        ({"completion_tokens": 7, "total_tokens": 57}, (50, 0, 7)),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0}, (0, 0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 10}}, (5, 5, 7)),
        ({"prompt_tokens": "50", "completion_tokens": "7", "completion_tokens_details": None}, (50, 0, 7)),
        ({"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2}, (0, 0, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 7, "total_tokens": 57}, (50, 0, 7)),
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": None}}, (50, 0, 7)),
        ({"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": [{"cached_tokens": 1}]}, (50, 0, 7)),
        ({"prompt_tokens": {}, "completion_tokens": []}, (0, 0, 0)),
        (None, (0, 0, 0)),
        ("none", (0, 0, 0)),
        ([], (0, 0, 0)),
    ],
)
def test_usage_by_the_names_of_either_api(usage: Any, read: tuple[int, int, int]) -> None:
    for turn in (
        chat_turn.read_turn({"choices": [{"message": {"content": "hi"}}], "usage": usage}),
        responses(usage=usage),
    ):
        assert (turn.usage.input, turn.usage.cached, turn.usage.output) == read
