"""Answers of odd endpoints through the real client: what is tried again, what is final, and which history goes back."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from agentrun.api.workflow import FailureClass
from agentrun.runner import chat, refusals, responses
from agentrun.runner.error_words import read_error
from agentrun.runner.history import History
from agentrun.runner.models import Request, ToolSpec
from tests.harness.loopback import reply
from tests.harness.model_bench import OK, ModelBench, call, completion, message, response, text

CHAT_OK = reply(completion(content="hello"))


def choice(**fields: Any) -> Any:
    return reply({"choices": [{"message": {"role": "assistant", "content": "half an ans"}, **fields}]})


@pytest.mark.parametrize(
    ("answer", "kind", "retryable", "words", "requests"),
    [
        (choice(finish_reason="error", error={"code": 502, "message": "Upstream error"}),
         FailureClass.PROVIDER, True, "the answer is an error: Upstream error", 3),
        (choice(finish_reason="stop", error={"message": "Upstream error"}),
         FailureClass.PROVIDER, True, "Upstream error", 3),
        (choice(finish_reason="error", error="Upstream error"), FailureClass.PROVIDER, True, "Upstream error", 3),
        (choice(finish_reason="error", error={"code": 429, "message": "Slow down"}),
         FailureClass.RATE_LIMITED, True, "Slow down", 3),
        (choice(finish_reason="error", error={"code": 400, "message": "No such voice"}),
         FailureClass.PROVIDER, False, "No such voice", 1),
        (choice(finish_reason="error"), FailureClass.PROVIDER, True, "the answer ended with error", 3),
        (choice(finish_reason="insufficient_system_resource"),
         FailureClass.PROVIDER, True, "the answer ended with insufficient_system_resource", 3),
        (choice(finish_reason=None, native_finish_reason="abort"),
         FailureClass.PROVIDER, True, "the answer ended with abort", 3),
        (reply({"output": [], "status": "completed"}), FailureClass.PROVIDER, True, "write api: responses", 3),
    ],
)  # fmt: skip
async def test_half_an_answer_is_none(
    chatty: ModelBench, answer: Any, kind: FailureClass, retryable: bool, words: str, requests: int
) -> None:
    failure = await chatty.fails(answer)
    assert (failure.failure_class, failure.retryable, len(chatty.server.received)) == (kind, retryable, requests)
    assert words in failure.message
    assert (await chatty.ask(CHAT_OK)).text == "hello"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_response_that_failed_without_a_word_is_tried_again(model: ModelBench, status: str) -> None:
    failure = await model.fails(reply(response(status=status)))
    assert f"the answer ended with status {status}" in failure.message
    assert (failure.retryable, len(model.server.received)) == (True, 3)


async def test_bytes_that_are_no_utf8_and_halves_of_characters_are_replaced(chatty: ModelBench) -> None:
    body = json.dumps(completion(content="X")).encode()
    for said, read in ((b"Great \\ud83d", "Great \ufffd"), (b"Gr\xff\xfeat", "Gr\ufffd\ufffdat")):
        turn = await chatty.ask(reply(body.replace(b'"X"', b'"' + said + b'"'), content_type="application/json"))
        assert turn.text == read
        json.dumps(turn.items, ensure_ascii=False).encode()


# What endpoints say of a history that they do not take.

WORDS: dict[str, tuple[int, Any]] = {
    "openai-field": (400, {"error": {"message": "Unknown parameter: 'messages[1].reasoning'.",
                                     "param": "messages[1].reasoning", "code": "unknown_parameter"}}),
    "openai-part": (400, {"error": {"message": "Invalid value: 'thinking'. Supported values are: 'text' and 'refusal'.",
                                    "param": "messages[1].content[0].type"}}),
    "openai-id": (400, {"error": {"message": "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a "
                                             "string with maximum length 40, but got one with length 3040 instead.",
                                  "code": "string_above_max_length"}}),
    "openai-older": (400, {"error": {"message": "Additional properties are not allowed ('reasoning_content' was "
                                                "unexpected) - 'messages.1'"}}),
    "groq": (400, {"error": {"message": "'messages.1' : for 'role:assistant' the following must be satisfied"
                                        "[('messages.1' : property 'reasoning' is unsupported)]"}}),
    "mistral-field": (422, {"detail": [{"type": "extra_forbidden", "msg": "Extra inputs are not permitted",
                                        "loc": ["body", "messages", 1, "assistant", "reasoning_content"]}]}),
    "mistral-id": (400, {"object": "error", "message": "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a "
                                                       "length of 9.", "type": "invalid_request_error"}),
    "anthropic": (400, {"error": {"message": "messages: text content blocks must be non-empty"}}),
    "bedrock": (400, {"message": "The text field in the ContentBlock object at messages.1.content.0 is blank."}),
    "cerebras": (422, {"message": "messages.1.assistant.reasoning_content: property is unsupported"}),
    "template": (400, {"error": "Conversation roles must alternate user/assistant/user/assistant/..."}),
    "vllm": (400, {"object": "error", "message": "Unknown part type: thinking", "code": 400}),
}  # fmt: skip
RESPONSES_WORDS: dict[str, tuple[int, Any]] = {
    "status": (400, {"error": {"message": "Unknown parameter: 'input[1].status'.", "param": "input[1].status"}}),
    "sealed": (400, {"error": {"message": "The encrypted content for item rs_1 could not be verified.",
                               "code": "invalid_encrypted_content"}}),
    "alone": (400, {"error": {"message": "Item 'fc_1' of type 'function_call' was provided without its required "
                                         "'reasoning' item: 'rs_1'.", "param": "input"}}),
    "gone": (404, {"error": {"message": "Item with id 'rs_1' not found. Items are not persisted when `store` is set to "
                                        "false.", "param": "input"}}),
}  # fmt: skip
FAILING: dict[str, tuple[int, Any]] = {
    "alternate": (500, {"error": {"message": "Jinja Exception: Conversation roles must alternate user/assistant/..."}}),
    "template": (500, {"error": {"code": 500, "message": "Value is not callable: null at row 58 in template"}}),
    "go": (400, {"error": "json: cannot unmarshal array into Go struct field Request.messages.content of type string"}),
    "rust": (422, "invalid type: null, expected a string at line 1 column 200"),
    "gateway": (400, {"error": {"message": "Provider returned error", "code": 400}}),
    "nothing": (400, ""),
}
"""Where nothing names the history, or the server fails over it."""
OTHERS: list[tuple[int, Any]] = [
    (404, {"error": {"message": "The model `m` does not exist or you do not have access to it."}}),
    (400, {"error": {"message": "Invalid model name"}}),
    (400, {"error": {"message": "Your account is not active, please check your billing details."}}),
    (400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.2 with this model."}}),
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up_order", "arguments": "{}"}}


def told(found: ModelBench, items: list[Any]) -> list[Any]:
    results = [{"id": "1-0", "callId": "call_1", "tool": "look_up_order", "output": "found"}]
    return History(found.client, "hi").items([{"items": items}, {"results": results}])


@pytest.mark.parametrize("name", WORDS)
async def test_a_history_that_is_refused_goes_back_in_its_plainest_form(name: str, chatty: ModelBench) -> None:
    odd = {"content": [{"type": "thinking", "thinking": []}], "reasoning": "hm", "tool_calls": [CALL | {"index": 0}]}
    first = await chatty.ask(reply(completion("tool_calls", **odd)))
    history, refused = told(chatty, first.items), set[str]()
    status, said = WORDS[name]
    turn = await chatty.ask(reply(said, status=status), CHAT_OK, history=history, refused=refused)
    assert (turn.text, refused) == ("hello", {refusals.HISTORY})
    before, after = (received.json["messages"][2] for received in chatty.server.received[1:])
    assert before == {"role": "assistant", **odd}
    named = {**CALL, "id": "call00000"}
    assert after == {"role": "assistant", "content": "(no text)", "tool_calls": [named]}
    await chatty.ask(CHAT_OK, history=history, refused=refused)
    assert chatty.server.received[-1].json["messages"][2] == after
    assert "refused" in (await chatty.fails(reply(said, status=status), history=history, refused=refused)).message


@pytest.mark.parametrize("name", FAILING)
async def test_a_history_may_be_refused_without_a_word_of_it(name: str, chatty: ModelBench) -> None:
    """The plainest form is a guess, which is remembered once it has helped."""
    first = await chatty.ask(reply(completion("tool_calls", reasoning_content="hm", tool_calls=[CALL])))
    history, refused = told(chatty, first.items), set[str]()
    status, said = FAILING[name]
    answer = reply(said.encode() if isinstance(said, str) else said, status=status)
    if status != 500:
        failure = await chatty.fails(answer, history=history, refused=refused)
        assert str(status) in failure.message
        assert (len(chatty.server.received), refused) == (3, set())
    assert (await chatty.ask(answer, CHAT_OK, history=history, refused=refused)).text == "hello"
    assert refused == {refusals.HISTORY}
    assert "reasoning_content" not in chatty.server.received[-1].json["messages"][2]


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "The response was filtered.", "code": "content_filter", "param": "prompt"}},
        {"error": {"message": "llama2 does not support tools"}},
    ],
)
async def test_what_no_other_form_gets_around_is_asked_once(said: Any, chatty: ModelBench) -> None:
    first = await chatty.ask(reply(completion("tool_calls", reasoning_content="hm", tool_calls=[CALL])))
    failure = await chatty.fails(
        reply(said, status=400), history=told(chatty, first.items), tools=[ToolSpec("t", "T", {"type": "object"})]
    )
    assert (failure.retryable, len(chatty.server.received)) == (False, 2)


DONE = response(message(text("José 好")))
PLAIN = json.dumps(DONE).encode()
WRAPPED: dict[str, tuple[bytes, str, str]] = {
    "a list of one": (b"[" + PLAIN + b"]", "", ""),
    "a text": (json.dumps(json.dumps(DONE)).encode(), "", ""),
    "the last event": (b'{"type": "response.completed", "response": ' + PLAIN + b"}", "", ""),
    "gb18030": (json.dumps(DONE, ensure_ascii=False).encode("gb18030"), "; charset=gbk", ""),
    "utf-16": (json.dumps(DONE, ensure_ascii=False).encode("utf-16"), "; charset=utf-16", ""),
    "utf-16 unsaid": (json.dumps(DONE, ensure_ascii=False).encode("utf-16-le"), "", ""),
    "utf-8 called ascii": (json.dumps(DONE, ensure_ascii=False).encode(), "; charset=us-ascii", ""),
    "an unknown charset": (json.dumps(DONE, ensure_ascii=False).encode(), "; charset=utf8mb4", ""),
    "deflate": (zlib.compress(PLAIN), "", "deflate"),
    "bare deflate": (zlib.compress(PLAIN, wbits=-15), "", "deflate"),
    "gzip twice": (gzip.compress(gzip.compress(PLAIN)), "", "gzip, gzip"),
    "gzip and identity": (gzip.compress(PLAIN), "", "gzip, identity"),
    "gzip, unpacked by a proxy": (PLAIN, "", "gzip"),
    "br, unpacked by a proxy": (PLAIN, "", "br"),
    "a charset for a coding": (PLAIN, "", "UTF-8"),
    "no coding": (PLAIN, "", "none"),
}


@pytest.mark.parametrize("name", WRAPPED)
async def test_an_answer_in_a_wrapping_is_the_answer(name: str, model: ModelBench) -> None:
    data, charset, coding = WRAPPED[name]
    more: dict[str, Any] = {"content_encoding": coding} if coding else {}
    turn = await model.ask(reply(data, content_type=f"application/json{charset}", **more))
    assert turn.text == "José 好"


@pytest.mark.parametrize(
    ("body", "status", "kind", "pause", "words"),
    [
        ({"error": {"message": "模型不存在"}}, 404, FailureClass.PROVIDER, None, "模型不存在"),
        ({"error": {"message": "Please try again in 1m2.5s."}}, 429, FailureClass.RATE_LIMITED, 62.5, "try again"),
        ({"error": {"message": "Retry after 20 seconds"}}, 429, FailureClass.RATE_LIMITED, 20.0, "Retry after"),
        ({"error": {"message": "try again in 212ms"}}, 429, FailureClass.RATE_LIMITED, 0.212, "212ms"),
        ([{"error": {"message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34.5s"}]}}],
         429, FailureClass.RATE_LIMITED, 34.5, "Quota."),
        ({"__type": "aws#ThrottlingException", "message": "Slow."}, 400, FailureClass.RATE_LIMITED, None, "Slow"),
        ({"error": {"message": "Slow.", "code": "rate_limit_exceeded"}}, 403, FailureClass.RATE_LIMITED, None, "Slow."),
        ({"error": {"message": "No capacity."}}, 498, FailureClass.PROVIDER, None, "No capacity."),
        ({"error": "Generation failed"}, 424, FailureClass.PROVIDER, None, "Generation failed"),
        ({"base_resp": {"status_code": 1004, "status_msg": "log in first"}, "choices": None},
         200, FailureClass.PROVIDER, None, "it says: log in first"),
        ({"code": 1305, "msg": "busy"}, 200, FailureClass.PROVIDER, None, "it says: busy"),
    ],
)  # fmt: skip
async def test_errors_in_odd_words(
    chatty: ModelBench, body: Any, status: int, kind: FailureClass, pause: float | None, words: str
) -> None:
    data = json.dumps(body, ensure_ascii=False).encode("gbk")
    failure = await chatty.fails(reply(data, status=status, content_type="application/json; charset=gbk"))
    assert words in failure.message
    assert (failure.failure_class, failure.retry_after) == (kind, pause)
    assert len(chatty.server.received) == (1 if status == 404 or (pause or 0) > 60 else 3)


ANTHROPIC = {"type": "tool_use", "id": "toolu_1", "name": "look_up_order", "input": {"id": 7}}


async def test_calls_in_the_form_of_another_api_are_calls(chatty: ModelBench, model: ModelBench) -> None:
    """A text beside such a call must not be taken for the answer."""
    said = [{"type": "text", "text": "Let me see."}, ANTHROPIC]
    turn = await chatty.ask(reply(completion("tool_use", content=said)))
    assert [(one.name, one.args) for one in turn.calls] == [("look_up_order", {"id": 7})]
    items = told(chatty, turn.items)
    assert items[1]["content"] == said[:1]
    assert items[1]["tool_calls"][0]["function"] == {"name": "look_up_order", "arguments": '{"id": 7}'}
    nested = {"type": "function_call", "call_id": "c", "function": {"name": "look_up_order", "arguments": '{"id": 7}'}}
    for item in (ANTHROPIC, nested):
        turn = await model.ask(reply(response(item)))
        assert [(one.name, one.args) for one in turn.calls] == [("look_up_order", {"id": 7})]
        call = told(model, turn.items)[1]
        assert (call["type"], call["name"], call["arguments"]) == ("function_call", "look_up_order", '{"id": 7}')
        assert not {"function", "input"} & set(call)


@pytest.mark.parametrize("name", RESPONSES_WORDS)
async def test_a_response_that_is_refused_goes_back_in_its_plainest_form(name: str, model: ModelBench) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    first = await model.ask(reply(response(reasoning, message(text("Let me see.")), call("{}"))))
    history, refused = told(model, first.items), set[str]()
    status, said = RESPONSES_WORDS[name]
    assert (await model.ask(reply(said, status=status), OK, history=history, refused=refused)).text == "hello"
    assert refused == {refusals.HISTORY}
    before, after = (received.json["input"] for received in model.server.received[1:])
    assert before[1:3] == [reasoning, message(text("Let me see."))]
    assert after[1:] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call00000", "name": "look_up_order", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call00000", "output": "found"},
    ]


@pytest.mark.parametrize(("status", "said"), OTHERS)
def test_what_does_not_speak_of_the_history(status: int, said: Any) -> None:
    request = Request("Decide.", [{"role": "user", "content": "hi"}])
    read = read_error(json.dumps(said).encode(), "application/json", str)
    for make in (chat.body_of, responses.body_of):
        assert refusals.refusal(make(request, "m", frozenset()), read, sure=status >= 500) is None
