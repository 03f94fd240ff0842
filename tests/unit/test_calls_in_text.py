"""A call that the endpoint left in the model's text is found, in the form of every family of models."""

from __future__ import annotations

import pytest

from agentrun.runner.calls_in_text import call_in_text

TOOLS = ["look_up", "pay"]

CALLS = {
    "Hermes, Qwen": '<tool_call>\n{"name": "look_up", "arguments": {"id": 1}}\n</tool_call>',
    "behind words": 'I look it up first.\n\n<tool_call>{"name": "look_up", "arguments": {}}</tool_call>',
    "Qwen 3 Coder": "<tool_call>\n<function=look_up>\n<parameter=id>\n1\n</parameter>\n</function>\n</tool_call>",
    "GLM": "<tool_call>look_up\n<arg_key>id</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    "Mistral": '[TOOL_CALLS] [{"name": "look_up", "arguments": {"id": 1}}]',
    "Mistral, newer": '[TOOL_CALLS]look_up[ARGS]{"id": 1}',
    "LM Studio": '[TOOL_REQUEST]{"name": "look_up", "arguments": {}}[END_TOOL_REQUEST]',
    "Llama, tagged": '<|python_tag|>{"name": "look_up", "parameters": {"id": 1}}',
    "Llama, function": '<function=look_up>{"id": 1}</function>',
    "Llama, bare": '{"name": "look_up", "parameters": {"id": "1"}}',
    "Llama, as OpenAI's": '{"type": "function", "function": {"name": "look_up", "parameters": {"id": "1"}}}',
    "a bare list": '[{"name": "look_up", "arguments": {}}]',
    "DeepSeek V3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n{}\n```",
    "DeepSeek V3.1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    "DeepSeek V3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="look_up">\n</｜DSML｜invoke>',
    "Kimi K2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0<|tool_call_argument_begin|>{}",
    "Granite 3": '<|tool_call|>[{"name": "look_up", "arguments": {}}]',
    "Granite 20B": '<function_call> {"name": "look_up", "arguments": {}}',
    "Phi-4-mini": 'functools[{"name": "look_up", "arguments": {}}]',
    "Jamba, MiniMax-M1": '<tool_calls>\n{"name": "look_up", "arguments": {}}\n</tool_calls>',
    "MiniMax-M2": '<minimax:tool_call>\n<invoke name="look_up">\n</invoke>\n</minimax:tool_call>',
    "Seed-OSS": "<seed:tool_call>\n<function=look_up>\n</function>\n</seed:tool_call>",
    "Step 3": '<steptml:invoke name="look_up"><steptml:parameter name="id">1</steptml:parameter></steptml:invoke>',
    "Nemotron": '<TOOLCALL>[{"name": "look_up", "arguments": {}}]</TOOLCALL>',
    "LongCat": '<longcat_tool_call>{"name": "look_up", "arguments": {}}</longcat_tool_call>',
    "InternLM": '<|action_start|><|plugin|>\n{"name": "look_up", "parameters": {}}<|action_end|>',
    "Cohere": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "look_up", "parameters": {}}]<|END_ACTION|>',
    "FunctionGemma": "<start_function_call>call:look_up{id:1}<end_function_call>",
    "Gemma 4": "<|tool_call>call:look_up{id:1}<tool_call|>",
    "LFM2": "<|tool_call_start|>[look_up(id=1)]<|tool_call_end|>",
    "Apertus": '<|tools_prefix|>[{"look_up": {"id": 1}}]<|tools_suffix|>',
    "gpt-oss": "<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>{}<|call|>",
    "Anthropic's older": '<function_calls>\n<invoke name="look_up">\n</invoke>\n</function_calls>',
}


@pytest.mark.parametrize("text", CALLS.values(), ids=CALLS)
def test_a_call_that_stayed_in_the_text_is_found(text: str) -> None:
    assert call_in_text(text, TOOLS) == "look_up"
    assert call_in_text(f"\n{text}\n", TOOLS) == "look_up"


@pytest.mark.parametrize("text", CALLS.values(), ids=CALLS)
def test_there_is_no_call_without_the_tool(text: str) -> None:
    assert call_in_text(text, []) is None
    assert call_in_text(text, ["look", "up", "look_up_all"]) is None


def test_the_first_of_two_calls_is_named() -> None:
    two = '<tool_call>{"name": "pay"}</tool_call>\n<tool_call>{"name": "look_up"}</tool_call>'
    assert call_in_text(two, TOOLS) == "pay"


ANSWERS = {
    "prose": "I would look_up the order, then pay.",
    "nothing": "",
    "in quotes": 'Qwen writes "<tool_call>" and then the name, here look_up.',
    "in code": "Write `<tool_call>` before look_up.",
    "in a fence": '```xml\n<tool_call>{"name": "look_up"}</tool_call>\n```',
    "far away": "The mark <tool_call> is one of many. " + "They differ from model to model. " * 9 + "look_up",
    "another tool's": '<tool_call>{"name": "search", "arguments": {}}</tool_call>',
    "a record": '{"name": "look_up", "price": 3}',
    "a record that has no arguments": '{"name": "look_up", "type": "function"}',
    "a list of names": '["look_up", "pay"]',
    "broken": '{"name": "look_up", "arguments": ',
    "XML": "<invoice>pay</invoice>",
}


@pytest.mark.parametrize("text", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_speaks_of_a_tool_is_no_call(text: str) -> None:
    assert call_in_text(text, TOOLS) is None


def test_a_text_of_marks_is_read_in_bounded_work() -> None:
    assert call_in_text("<tool_call>" * 100_000, TOOLS) is None
    assert call_in_text("[" * 1_000_000, TOOLS) is None
    assert call_in_text("<" * 200_000 + "tool_call> look_up", TOOLS) == "look_up"
