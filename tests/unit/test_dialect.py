"""What endpoints mean: every form of an answer that was seen has one meaning, by kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.call_names import Names, name_to_send, tool_name
from agentrun.runner.dialect import (
    Malformed,
    arguments,
    arguments_to_send,
)
from agentrun.runner.lenient import read_answer
from agentrun.runner.structured import parse_structured
from tests.harness.heard_answers import ANY, chat, responses

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
