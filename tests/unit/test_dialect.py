"""What endpoints mean: every form of an answer that was seen has one meaning, by kind."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.call_names import Names, name_to_send, tool_name
from agentrun.runner.dialect import (
    AnswerFailed,
    Malformed,
    arguments,
    arguments_to_send,
    ending,
    heard_content,
    tokens,
)
from agentrun.runner.lenient import mended, read_answer
from agentrun.runner.models import Turn
from agentrun.runner.structured import parse_structured
from agentrun.runner.thoughts import without_thoughts

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def chat(message: Any, finish: Any = "stop", **more: Any) -> Turn:
    return chat_turn.read_turn({"choices": [{"message": message, "finish_reason": finish, **more}]})


def responses(*items: Any, **more: Any) -> Turn:
    return responses_turn.read_turn({"status": "completed", "output": [*items], **more})


# Ids.


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["call_1", "call_2"], ["call_1", "call_2"]),
        (["", "", None], ["call00000", "call00001", "call00002"]),
        (["a", "a"], ["a", "call00000"]),
        (["", "call00000"], ["call00001", "call00000"]),
        ([0, 1], ["call00000", "call00001"]),
        ([{}, ["a"], True], ["call00000", "call00001", "call00002"]),
        ([" ", "\n", "a\nb", "\x00"], ["call00000", "call00001", "call00002", "call00003"]),
        (["x" * 3000], ["x" * 3000]),
        (["x" * 100_000], ["call00000"]),
        (["ünï"], ["ünï"]),
    ],
)
def test_ids(given: list[Any], made: list[str]) -> None:
    assert Names().of(given) == made


@given(st.lists(st.lists(st.sampled_from(["a", "b", "call00001", "", None, 0, [], {}]), max_size=4), max_size=4))
def test_ids_are_distinct_in_the_whole_history_and_always_the_same(turns: list[list[Any]]) -> None:
    one, other = Names(), Names()
    found = [name for ids in turns for name in one.of(ids)]
    assert found == [name for ids in turns for name in other.of(ids)]
    assert len(set(found)) == len(found) == sum(map(len, turns))
    assert all(found)


@pytest.mark.parametrize(
    ("name", "called", "sent"),
    [
        ("look_up", "look_up", "look_up"),
        (" look_up\n", "look_up", "look_up"),
        ("functions.look_up", "look_up", "look_up"),
        ("look_up<|channel|>commentary", "look_up", "look_up"),
        ("function.look_up", "look_up", "look_up"),
        ("default_api:look_up", "look_up", "look_up"),
        ("functions.look_up:0", "look_up", "look_up"),
        ("look_up:12", "look_up", "look_up"),
        ("look_up:all", "look_up:all", "look_up_all"),
        ("look_uplook_up", "look_uplook_up", "look_uplook_up"),
        ("other.look_up", "other.look_up", "other_look_up"),
        ("look up!", "look up!", "look_up_"),
        ("", "", "unnamed"),
        (None, "", "unnamed"),
        (7, "", "unnamed"),
        ("x" * 100, "x" * 100, "x" * 64),
    ],
)
def test_names(name: Any, called: str, sent: str) -> None:
    assert (tool_name(name), name_to_send(name)) == (called, sent)


# Arguments.

READ: list[tuple[Any, Any]] = [
    ('{"a": 1}', {"a": 1}),
    ({"a": 1}, {"a": 1}),
    ("", {}),
    (" \n", {}),
    (None, {}),
    ([], {}),
    *[(text, {}) for text in ("null", "{}", "[]", '""', '"{}"', "\ufeff", "\x00")],
    ('"{\\"a\\": 1}"', {"a": 1}),
    ('{"a": "b\nc\td"}', {"a": "b\nc\td"}),
    ('```json\n{"a": 1}\n```', {"a": 1}),
    ('```{"a": 1}```', {"a": 1}),
    ('\ufeff{"a": 1}', {"a": 1}),
    ('{"a": 1,}', {"a": 1}),
    ('{"a": [1, 2, ], }', {"a": [1, 2]}),
    ('{"a": ",}"}', {"a": ",}"}),
    ('{"a": ",}", }', {"a": ",}"}),
    ('{"a": 1}}', {"a": 1}),
    ('{"a": 1}\n```', {"a": 1}),
    ('{"a": 1}</tool_call>', {"a": 1}),
    ('{"a": 1}<|im_end|>', {"a": 1}),
    ('{"a": 1};', {"a": 1}),
    ('{"a": 1}{"a": 1}', {"a": 1}),
    ("{'a': 'b', 'c': True, 'd': None}", {"a": "b", "c": True, "d": None}),
    ('{"a": "half \\ud83d"}', {"a": "half \ufffd"}),
    ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ('{"a": "nul \\u0000"}', {"a": "nul \x00"}),
    ({"a": {"b": []}}, {"a": {"b": []}}),
    ('[{"a": 1}]', {"a": 1}),
    ([{"a": 1}], {"a": 1}),
    ('"[{\\"a\\": 1}]"', {"a": 1}),
    ('```\n[{"a": 1}]\n```', {"a": 1}),
    ('"\\"{\\\\\\"a\\\\\\": 1}\\""', {"a": 1}),
]
UNREAD: list[tuple[Any, str]] = [
    ('{"a": ', "Expecting value: line 1 column 6"),
    ('{"a": "b', "Unterminated string starting at: line 1 column 7"),
    ('{"a": 1} and {"a": 2}', "Extra data: line 1 column 10"),
    ('{"a": 1}{"a": 2}', "Extra data: line 1 column 9"),
    ("[1]", "not a JSON object, but a list"),
    ('[{"a": 1}, {"a": 2}]', "not a JSON object, but a list"),
    ('[["a", 1]]', "not a JSON object, but a list"),
    ('["a"]', "not a JSON object, but a list"),
    ("7", "not a JSON object, but a number"),
    (7, "not a JSON object, but a number"),
    (True, "not a JSON object, but true or false"),
    ("Paris", "Expecting value: line 1 column 1"),
    ('{"a": NaN}', "NaN is not JSON"),
    ('{"a": -Infinity}', "-Infinity is not JSON"),
    ('{"a": 1e999}', "too large"),
    ("{'a': 'it's'}", "line 1 column 2"),
    ("{'a': (1, 2)}", "line 1 column 2"),
    ("{'a': '\\d'}", "line 1 column 2"),
    ("{1: 2}", "line 1 column 2"),
    ("{a: 1}", "line 1 column 2"),
    ('{"a": ' + "[" * 2000 + "]" * 2000 + "}", "nested deeper than 100 levels"),
    ("{'a': " + "[" * 2000 + "]" * 2000 + "}", "line 1 column 2"),
    ('{"a": ' + "9" * 400 + "}", "too large"),
    ('```\n{"a": 1}\n```\n```\n{"a": 2}\n```', "line 1 column 1"),
]


@pytest.mark.parametrize(("said", "read"), READ)
def test_arguments_that_have_one_reading(said: Any, read: Any) -> None:
    assert arguments(said) == (read, None)
    assert json.loads(arguments_to_send(said)) == read


@pytest.mark.parametrize(("said", "words"), UNREAD)
def test_arguments_that_have_none_are_told_with_the_place(said: Any, words: str) -> None:
    args, error = arguments(said)
    assert args is None
    assert words in (error or "")
    sent = json.loads(arguments_to_send(said))
    shown = said if isinstance(said, str) else json.dumps(said)
    assert sent == {"unreadable": shown if len(shown) <= 4000 else shown[:4000] + "…"}


def test_arguments_that_are_json_go_back_as_they_came() -> None:
    for text in ('{"a":1}', '{ "a" : 1 }', '{"ü": "\\u00fc"}'):
        assert arguments_to_send(text) == text


@given(ANY | st.text())
def test_whatever_the_arguments_are_they_are_read_or_told_and_go_back_as_an_object(said: Any) -> None:
    args, error = arguments(said)
    assert (args is None) == (error is not None)
    assert isinstance(json.loads(arguments_to_send(said)), dict)
    json.dumps(args, allow_nan=isinstance(said, dict)).encode()


@pytest.mark.parametrize("text", ['"' * 200_000, "{" * 200_000, '{"a":' * 50_000, "[" * 200_000, ", " * 200_000])
def test_a_large_text_that_is_no_json_is_read_in_no_time(text: str) -> None:
    assert arguments(text)[0] is None
    assert parse_structured(text, {"type": "object"})[1]


# Texts.


@pytest.mark.parametrize(
    ("content", "text", "refusal"),
    [
        ("hi", "hi", None),
        ("", "", None),
        (None, None, None),
        ([], None, None),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", None),
        ([{"type": "output_text", "text": "a", "annotations": []}], "a", None),
        ([{"text": "a"}], "a", None),
        (["a", "b"], "ab", None),
        ({"type": "text", "text": "a"}, "a", None),
        ({"text": "a"}, "a", None),
        ([{"type": "text", "text": {"value": "a", "annotations": []}}], "a", None),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "?"}]}, {"type": "text", "text": "a"}], "a", None),
        ([{"type": "thinking", "thinking": "?", "signature": "x"}, {"type": "text", "text": "a"}], "a", None),
        ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}], "a", None),
        ([{"type": "reasoning_text", "text": "?"}, {"type": "output_text", "text": "a"}], "a", None),
        ([{"type": "reasoning", "summary": [{"text": "?"}]}, {"type": "text", "text": "a"}], "a", None),
        ([{"text": "?", "thought": True}, {"text": "a"}], "a", None),
        ([{"type": "text", "text": "?", "thought": True}, {"type": "text", "text": "a", "thought": False}], "a", None),
        ([{"type": "image_url", "image_url": {"url": "x"}}], None, None),
        ([{"type": "refusal", "refusal": "No."}], None, "No."),
        ([{"type": "refusal"}], None, "refused"),
        ([{"type": "text", "text": None}, {"type": "unheard_of"}], None, None),
        ({"temp": 20}, '{"temp": 20}', None),
        ([1, 2], "[1, 2]", None),
        (7, "7", None),
    ],
)
def test_content(content: Any, text: str | None, refusal: str | None) -> None:
    assert heard_content(content) == (text, refusal)


STARTS_AND_ENDS = [
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
]


def heard(said: str) -> str | None:
    """The text of an answer that says ``said``; both APIs read the same."""
    text = without_thoughts(said)
    assert chat({"content": said}).text == text
    assert responses({"type": "message", "content": [{"type": "output_text", "text": said}]}).text == text
    return text


@pytest.mark.parametrize(("start", "end"), STARTS_AND_ENDS)
@pytest.mark.parametrize("answer", ["hi", '{"a": [1]}', f"Write {STARTS_AND_ENDS[0][0]}x{STARTS_AND_ENDS[0][1]}."])
def test_a_thought_in_the_marks_of_any_model_is_no_part_of_the_answer(start: str, end: str, answer: str) -> None:
    for block in (
        f"{start}hm {{}}{end}",
        f"\ufeff\n {start}\nhm\nhm\n{end}\n\n",
        f"{start}{end}",
        f"{start}a{end}\n{start}b{end}",  # repeated
        f"{start}a {start}b{end} c{end}",  # nested
        f"{start}Is it `{end}`?{end}",
        f"{start}I may write {start}, too.{end}",
        f"hm {{}}\n{end}\n\n",  # the template wrote the start mark
        f"I need to think.{end}",
        f"{end}\n\n",
    ):
        assert heard(block + answer) == answer


@pytest.mark.parametrize("start", [start for start, _ in STARTS_AND_ENDS])
def test_a_thought_that_was_cut_off_is_no_part_of_the_answer(start: str) -> None:
    assert heard(f"{start}never over: hi") == ""
    assert chat({"content": f"{start}never over"}, "length").incomplete == "max_output_tokens"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("hi", "hi"),
        ("  hi ", "  hi "),
        ("<think></think>", ""),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>hi<|return|>", "hi"),
        ("<|channel|>analysis<|message|>hm<|end|>hi", "hi"),
        ("<|channel|>analysis<|message|>never over", ""),
        ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", "{}"),
        ("analysisWe need one word.assistantfinalhi", "hi"),
        ("analysis is what I do", "analysis is what I do"),
        ("Here is my thought process: hm\n\nHere is my response: hi", "hi"),
        ("Here's my thought process:\nhm\nHere's my response:\nhi", "hi"),
        ("Here is my thought process: add, then halve.", "Here is my thought process: add, then halve."),
        ("hi<|end|>", "hi<|end|>"),
    ],
)
def test_thoughts_are_no_part_of_the_answer(said: str, answer: str) -> None:
    assert heard(said) == answer


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>hi<|END_RESPONSE|>", "hi"),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_TEXT|>hi<|END_TEXT|><|END_OF_TURN_TOKEN|>", "hi"),
        ("<|START_RESPONSE|>hi<|END_RESPONSE|>", "hi"),
        ("<|START_RESPONSE|>cut off", "cut off"),
        ("<|open|>think<|sep|>hm<|close|>think<|sep|><|open|>response<|sep|>hi<|close|>response<|sep|>", "hi"),
        ("<think>hm</think><response>hi</response>", "hi"),
        ("<think>\nhm\n</think>\n<answer>\nhi\n</answer>\n", "hi"),
        ("<answer>hi</answer>", "<answer>hi</answer>"),
        ("<think>hm</think><response>hi</response> <more/>", "<response>hi</response> <more/>"),
    ],
)
def test_marks_around_the_answer_behind_a_thought_are_no_part_of_it(said: str, answer: str) -> None:
    assert heard(said) == answer


@pytest.mark.parametrize(("start", "end"), STARTS_AND_ENDS)
def test_marks_that_are_part_of_the_answer_stay(start: str, end: str) -> None:
    for said in (
        f"The mark {end} ends a thought.",
        f"It ends with `{end}`, not with '{end}' or \"x{end}\".",
        f"First. {start}no thought of the model{end} Then.",
        f"An example:\n{start}\nhm\n{end}\nThat is all.",
        f"An example:\n```\nhm\n{end}\n```\nThat is all.",
        json.dumps({"a": f"{start}hm{end}hi", "b": f"hm{end}hi", "c": f"hm\n{end}\nhi"}),
        f'{{"a": "hm\n{end}\nhi"}}',
        f'[{{"a": "hm{end}hi"}}]',
        f'"hm{end}hi"',
        f'It is {{"a": "hm{end}hi"}}.',
        f'```json\n{{"a": "hm\n{end}\nhi"}}\n```',
    ):
        assert heard(said) == said


def test_marks_that_are_none_stay() -> None:
    for said in (
        "<thinker>hi</thinker>",
        "<b>hi</b>",
        '{"a": "<|channel|>final<|message|>hi"}',
        "The answer is in <|channel|>final<|message|>.",
        "[1] hi [/1]",
    ):
        assert heard(said) == said


@pytest.mark.parametrize("mark", ["<think>", "</think>", "x</think>y ", "<think></think>", "`</think>`", "[", " "])
def test_a_long_text_full_of_marks_is_read_in_no_time(mark: str) -> None:
    assert isinstance(without_thoughts(mark * 300_000), str)


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


# Where the parts stand.


@pytest.mark.parametrize(
    "choices",
    [
        [{"message": {"role": "assistant", "content": "hi"}}],
        [{"message": {"role": "model", "content": "hi"}}],
        [{"message": {"role": None, "content": "hi"}}],
        [{"message": {"content": "hi"}}],
        [{"message": "hi"}],
        [{"delta": {"content": "hi"}}],
        [{"text": "hi"}],
        {"message": {"content": "hi"}},
        [{}, {"message": {"content": "hi"}}],
        [None, {"message": {"content": "hi"}}],
        [{"message": {"content": "hi"}}, {"message": {"content": "another"}}],
    ],
)
def test_where_a_message_stands(choices: Any) -> None:
    assert chat_turn.read_turn({"choices": choices}).text == "hi"


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"tool_calls": {"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}},
        {"tool_calls": [{"id": "c", "name": "f", "arguments": '{"a": 1}'}]},
        {
            "tool_calls": [None, {}, {"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            "function_call": None,
        },
        {"function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"function_call": {"name": "f", "arguments": {"a": 1}}, "tool_calls": None},
        {
            "tool_calls": [
                {"id": "c", "index": 0, "type": "function", "function": {"name": "f", "parameters": {"a": 1}}}
            ]
        },
        {"tool_calls": [{"id": "c", "type": "tool_use", "name": "f", "input": {"a": 1}}]},
        {"tool_calls": [{"id": "c", "type": None, "function": {"name": "functions.f:0", "arguments": '[{"a": 1}]'}}]},
        {"tool_calls": [], "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
    ],
)
def test_where_a_call_stands(message: Any) -> None:
    [call] = chat(message, "stop").calls
    assert (call.name, call.args, call.error) == ("f", {"a": 1}, None)
    assert call.id == ("c" if message.get("tool_calls") or "content" in message else "call00000")


@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}, {"index": "0"}])
def test_parallel_calls_are_those_of_the_list_whatever_their_index(index: Any) -> None:
    calls = [{"id": f"c{n}", "function": {"name": "f", "arguments": f'{{"a": {n}}}'}, **index} for n in range(3)]
    turn = chat({"content": None, "tool_calls": calls}, "tool_calls")
    assert [(call.id, call.args) for call in turn.calls] == [(f"c{n}", {"a": n}) for n in range(3)]


def test_calls_in_another_choice_belong_to_the_turn() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turn = chat_turn.read_turn(
        {"choices": [{"message": {"content": "Let me see."}}, {"message": {"tool_calls": calls}}]}
    )
    assert (turn.text, [call.id for call in turn.calls]) == ("Let me see.", ["c"])


@pytest.mark.parametrize(
    "answer",
    [
        {"output": "hi"},
        {"output": ["hi"]},
        {"output": {"type": "message", "content": "hi"}},
        {"output": [], "output_text": "hi", "status": "completed"},
        {"output": [{"type": "message", "content": [{"type": "text", "text": "hi"}]}]},
        {"output": [{"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}]},
        {"output": [{"type": "output_text", "text": "hi"}]},
        {"output": [{"type": "text", "text": "hi", "annotations": None}]},
        {"output": [{"type": "reasoning", "summary": None}, {"type": "message", "content": "hi", "status": None}]},
        {"output": [{"type": "message", "role": "user", "content": "no"}, {"type": "message", "content": "hi"}]},
    ],
)
def test_where_the_text_of_a_response_stands(answer: Any) -> None:
    assert responses_turn.read_turn(answer).text == "hi"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}},
        {"type": "function_call", "id": "c", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "", "id": "c", "name": "f", "arguments": '{"a": 1}'},
        {"type": "tool_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'},
        {"call_id": "c", "name": "f", "arguments": '{"a": 1}'},
    ],
)
def test_where_a_call_of_a_response_stands(item: Any) -> None:
    [call] = responses(item).calls
    assert (call.id, call.name, call.args) == ("c", "f", {"a": 1})


@pytest.mark.parametrize(
    ("read", "answer", "words"),
    [
        (chat_turn.read_turn, {}, "it has no choices"),
        (chat_turn.read_turn, {"choices": None}, "it has no choices"),
        (chat_turn.read_turn, {"choices": [None]}, "it has no choices"),
        (chat_turn.read_turn, {"choices": [], "usage": {"prompt_tokens": 5}, "error": None}, "it has no choices"),
        (chat_turn.read_turn, {"output": []}, "write api: responses"),
        (chat_turn.read_turn, {"choices": [{"message": {"role": "user", "content": "hi"}}]}, "not the assistant's"),
        (
            chat_turn.read_turn,
            {"choices": [{"message": {"tool_calls": [{"id": "a"}] * 1001}}]},
            "more than 1000 tool calls",
        ),
        (responses_turn.read_turn, {}, "it has no output"),
        (responses_turn.read_turn, {"choices": []}, "write api: chat"),
        (responses_turn.read_turn, {"output": [7]}, "not a list of objects"),
    ],
)
def test_what_has_no_meaning(read: Any, answer: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(answer)


# Bodies.


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"a": "b"}', {"a": "b"}),
        (b'\xef\xbb\xbf{"a": "b"}', {"a": "b"}),
        (b'\n\n\n{"a": "b"}\n', {"a": "b"}),
        (b'{"a": "b\nc"}', {"a": "b\nc"}),
        (b'{"a": "half \\ud83d"}', {"a": "half \ufffd"}),
        (b'{"a": "\\ude00 half"}', {"a": "\ufffd half"}),
        (b'{"a": "\xed\xa0\xbd"}', {"a": "\ufffd"}),
        (b'{"a": "\xff"}', {"a": "\ufffd"}),
        (b'{"a\\ud83d": 1}', {"a\ufffd": 1}),
        (b'[{"text": "a\\ud83d"}, {"text": "\\ude00b"}]', [{"text": "a\U0001f600"}, {"text": "b"}]),
        (b'{"logprob": -Infinity, "b": [NaN]}', {"logprob": "-Infinity", "b": ["NaN"]}),
        (b'{"a": 1e999}', {"a": "1e999"}),
        (b'{"a": ' + b"9" * 400 + b"}", {"a": "9" * 400}),
    ],
)
def test_bodies_that_have_one_reading(body: bytes, read: Any) -> None:
    found = read_answer(body)
    assert found == read
    assert json.loads(json.dumps(found, ensure_ascii=False).encode()) == read


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"<html>", b"[" * 5000, b"[" * 200 + b"]" * 200, b"{}{}"])
def test_bodies_that_have_none(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (each has its own words)
        read_answer(body)


def test_a_number_that_json_cannot_say_is_no_argument() -> None:
    body = read_answer(b'{"choices": [{"message": {"tool_calls": [{"function": {"arguments": {"a": [NaN]}}}]}}]}')
    assert isinstance(body, dict)
    [call] = chat_turn.read_turn(body).calls
    assert (call.args, call.error) == (None, "the arguments are not JSON: NaN is not JSON")


# Structured output.

SCHEMA = {"type": "object", "required": ["temp"], "properties": {"temp": {"type": "number"}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"temp": 20}',
        '\ufeff{"temp": 20}',
        '```json\n{"temp": 20}\n```',
        '```\n{"temp": 20}\n```\n',
        '```JSON {"temp": 20}```',
        'Here is the JSON:\n```json\n{"temp": 20}\n```\nAnything else?',
        'It is {"temp": 20}. Anything else?',
        'For {city} it is {"temp": 20} [1]',
        'Not {"error": "x"} but {"temp": 20}',
        'I thought of {"temp": 1}, but:\n```json\n{"temp": 20}\n```',
        '{"temp": 20,}',
        "{'temp': 20}",
        '"{\\"temp\\": 20}"',
        '{"temp": 20}\n{"temp": 20}',
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_that_has_one_reading(text: str, strict: bool) -> None:
    schema = {**SCHEMA, "additionalProperties": False} if strict else SCHEMA
    assert parse_structured(text, schema) == ({"temp": 20}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"temp": 20} or {"temp": 21}', "it holds more than one JSON value"),
        ("Sure!", "the answer is not JSON: Expecting value: line 1 column 1"),
        ('{"temp": ', "the answer is not JSON"),
        ("", "the answer is not JSON"),
        ('It is {"temp": "warm"}.', 'temp: "warm" is not of type "number"'),
        ('{"temp": "warm"}', 'temp: "warm" is not of type "number"'),
        ("{city} {street} " * 100, "the answer is not JSON"),
    ],
)
def test_an_answer_that_has_none(text: str, words: str) -> None:
    _, errors = parse_structured(text, SCHEMA)
    assert words in "; ".join(errors)


@given(st.text())
def test_what_is_mended_is_json(text: str) -> None:
    with suppress(ValueError):
        value = mended(text)
        assert json.loads(json.dumps(value, allow_nan=False)) == value
