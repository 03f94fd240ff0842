"""The text of an answer, in every form that endpoints give it: parts, thoughts, marks, and JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.runner.dialect import (
    heard_content,
)
from agentrun.runner.lenient import mended
from agentrun.runner.structured import parse_structured
from agentrun.runner.thoughts import without_thoughts
from tests.harness.heard_answers import chat, responses

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
