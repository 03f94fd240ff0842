"""Model clients against a server that misbehaves: every failure has its class, its words, and its number of tries."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.tools import SecretKey
from agentrun.api.workflow import FailureClass, Model
from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.dialect import Malformed
from agentrun.runner.failures import ContextOverflow, Failure
from agentrun.runner.models import Request, Usage, open_model
from agentrun.runner.structured import parse_structured
from agentrun.workflow.bounded_json import parse_json
from tests.harness.loopback import cut, endless, hang, loopback, raw, reply
from tests.harness.model_bench import (
    KEY,
    NOW,
    OK,
    SCHEMA,
    TOOL,
    ModelBench,
    call,
    completion,
    message,
    response,
    text,
)

LOOSE = {"type": "object", "properties": {"refund": {"type": "boolean"}}}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "opaque==",
    "future_field": {"a": 1},
}


async def test_a_turn(model: ModelBench) -> None:
    items = [REASONING, message(text("hel"), text("lo")), call('{"orderId": "4711"}')]
    turn = await model.ask(reply(response(*items)), tools=[TOOL], max_output_tokens=100)
    assert turn.items == items
    assert (turn.text, turn.refusal, turn.incomplete) == ("hello", None, None)
    assert [(c.id, c.name, c.args, c.error) for c in turn.calls] == [
        ("call_1", "look_up_order", {"orderId": "4711"}, None)
    ]
    assert turn.usage == Usage(input=50, cached=10, output=7)
    assert (turn.response_id, turn.model) == ("resp_1", "gpt-5.5-1")
    [sent] = model.server.received
    assert (sent.method, sent.target, sent.headers["authorization"]) == ("POST", "/v1/responses", f"Bearer {KEY}")
    assert sent.json == {
        "model": "gpt-5.5",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "instructions": "Decide.",
        "input": [{"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "name": "look_up_order",
                "description": "The order.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "parallel_tool_calls": True,
        "max_output_tokens": 100,
    }


async def test_the_history_goes_back_as_it_came(model: ModelBench) -> None:
    first = await model.ask(reply(response(REASONING, call("{}"))))
    history = [model.client.user("hi"), *first.items, model.client.tool_result("call_1", "look_up_order", "ünïcode")]
    await model.ask(OK, history=history)
    assert model.server.received[1].json["input"] == [
        {"role": "user", "content": "hi"},
        REASONING,
        call("{}"),
        {"type": "function_call_output", "call_id": "call_1", "output": "ünïcode"},
    ]


async def test_a_chat_turn(chatty: ModelBench) -> None:
    tool_calls = [
        {"id": "c1", "type": "function", "function": {"name": "look_up_order", "arguments": '{"orderId": "1"}'}}
    ]
    turn = await chatty.ask(reply(completion("tool_calls", tool_calls=tool_calls)), tools=[TOOL], max_output_tokens=9)
    assert turn.items == [{"role": "assistant", "content": None, "tool_calls": tool_calls}]
    assert [(c.id, c.args) for c in turn.calls] == [("c1", {"orderId": "1"})]
    assert (turn.text, turn.usage) == (None, Usage(50, 10, 7))
    history = [chatty.client.user("hi"), *turn.items, chatty.client.tool_result("c1", "look_up_order", "found")]
    turn = await chatty.ask(reply(completion(content="done")), history=history, output_schema=SCHEMA)
    assert (turn.text, turn.items) == ("done", [{"role": "assistant", "content": "done"}])
    first, second = (received.json for received in chatty.server.received)
    assert first["max_completion_tokens"] == 9
    assert first["tools"][0]["function"] == {
        "name": "look_up_order",
        "description": "The order.",
        "parameters": {"type": "object", "properties": {}},
    }
    assert second["response_format"]["json_schema"] == {"name": "output", "schema": SCHEMA, "strict": True}
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert "tools" not in second
    assert "parallel_tool_calls" not in second


async def test_calls_whose_arguments_are_no_object(model: ModelBench) -> None:
    broken = [
        '{"a": ',
        "[1]",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": ' + "[" * 2000 + "]" * 2000 + "}",
    ]
    turn = await model.ask(reply(response(*(call(a, f"call_{n}") for n, a in enumerate([*broken, ""])))))
    *bad, empty = turn.calls
    assert [c.args for c in bad] == [None] * len(broken)
    assert [(c.error or "")[:30] for c in bad] == [
        "the arguments are not JSON: Ex",
        "the arguments are not a JSON o",
        "the arguments are not JSON: Na",
        "the arguments are not JSON: th",
        "the arguments are not JSON: ne",
    ]
    assert (empty.args, empty.error) == ({}, None)


async def test_commentary_is_not_the_answer(model: ModelBench) -> None:
    items = [message(text("Let me see."), phase="commentary"), message(text('{"refund": true}'), phase="final_answer")]
    turn = await model.ask(reply(response(*items)))
    assert turn.text == '{"refund": true}'
    assert turn.items == items


async def test_refusal_and_incomplete(model: ModelBench, chatty: ModelBench) -> None:
    turn = await model.ask(reply(response(message({"type": "refusal", "refusal": "I won't."}))))
    assert (turn.text, turn.refusal) == (None, "I won't.")
    cut_off = response(message(text("hel")), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    turn = await model.ask(reply(cut_off))
    assert (turn.text, turn.incomplete) == ("hel", "max_output_tokens")
    assert (await chatty.ask(reply(completion(refusal="No.")))).refusal == "No."
    assert (await chatty.ask(reply(completion("length", content="hel")))).incomplete == "max_output_tokens"


async def test_structured_output_is_strict_only_where_the_schema_can_be(model: ModelBench) -> None:
    await model.ask(OK, output_schema=SCHEMA)
    await model.ask(OK, output_schema=LOOSE)
    await model.ask(OK, output_schema={"type": "array"})
    strict, loose, in_words = (received.json for received in model.server.received)
    assert strict["text"]["format"] == {"type": "json_schema", "name": "output", "schema": SCHEMA, "strict": True}
    assert loose["text"]["format"]["strict"] is False
    assert "text" not in in_words
    assert in_words["instructions"].startswith("Decide.\n\nAnswer with JSON only")


async def test_rate_limited_then_fine(model: ModelBench) -> None:
    turn = await model.ask(reply(status=429, retry_after="7"), reply(status=429, retry_after_ms="1500"), OK)
    assert turn.text == "hello"
    assert [7 <= model.pauses[0] < 9, 1.5 <= model.pauses[1] < 4] == [True, True]


async def test_rate_limited_for_good(model: ModelBench) -> None:
    failure = await model.fails(reply({"error": {"message": "Slow down."}}, status=429, retry_after="7"))
    assert (failure.failure_class, failure.retryable, failure.retry_after) == (FailureClass.RATE_LIMITED, True, 7.0)
    assert "Slow down." in failure.message
    assert len(model.server.received) == 3


async def test_a_long_pause_is_left_to_the_caller(model: ModelBench) -> None:
    failure = await model.fails(reply(status=429, retry_after=formatdate(NOW + 600, usegmt=True)))
    assert (failure.retry_after, model.pauses, len(model.server.received)) == (600.0, [], 1)


@pytest.mark.parametrize(("said", "pause"), [("soon", None), ("-5", 0.0), ("1e300", 86_400.0), ("nan", None)])
async def test_what_is_no_sensible_pause(model: ModelBench, said: str, pause: float | None) -> None:
    assert (await model.fails(reply(status=429, retry_after=said))).retry_after == pause


async def test_a_used_up_quota_is_not_waited_for(model: ModelBench) -> None:
    body = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
    failure = await model.fails(reply(body, status=429))
    assert (failure.failure_class, failure.retryable, model.pauses) == (FailureClass.PROVIDER, False, [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply({"error": {"message": "Oh dear."}}, status=500, x_request_id="req_9"), "request req_9: Oh dear."),
        (reply(b"<html>bad gateway</html>", status=502, content_type="text/html"), "502 Because: an HTML page"),
        (reply(status=408), "408"),
        (reply(status=409), "409"),
        (cut(), "the connection failed"),
        (cut(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"), "the connection failed"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "the connection failed"),
        (reply(b'{"output": [', content_type="application/json"), "malformed answer: it is not JSON"),
        (reply(b"\xff\xfe"), "malformed answer: it is not JSON"),
        (reply([]), "not a JSON object"),
        (reply(response(status="in_progress")), 'its status is "in_progress"'),
        (reply(response(status="failed", error={"code": "server_error", "message": "Sorry."})), "Sorry."),
        (reply(b"\x0b\x02\x80hi", content_encoding="gzip"), "not the gzip"),
        (reply(b"\x0b\x02\x80hi", content_encoding="br"), 'encoded as "br"'),
    ],
)
async def test_what_may_pass_is_tried_thrice(model: ModelBench, answer: Any, words: str) -> None:
    failure = await model.fails(answer)
    assert words in failure.message
    assert (failure.failure_class, failure.retryable) == (FailureClass.PROVIDER, True)
    assert (len(model.server.received), len(model.pauses)) == (3, 2)
    assert 0.5 <= model.pauses[0] < model.pauses[1] + 0.5 <= 9


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            reply({"error": {"message": f"Incorrect API key: {KEY}"}}, status=401),
            "check key api-key of Secret model-key",
        ),
        (reply(status=403), "check what key api-key of Secret model-key may use"),
        (reply(status=404), 'check endpoint, api (responses or chat) and the model\'s name "gpt-5.5"'),
        (reply({"error": {"message": f"Bad \x1b[31m {KEY}"}}, status=400), "Bad \\u001b[31m ***"),
        (reply({"detail": "x"}, status=422), "the request was refused: 422"),
        (reply(status=307, location="http://elsewhere.example/v1"), "redirects are not followed"),
        (reply({"error": {"code": "model_unknown", "message": "Which?"}}), "the answer is an error: Which?"),
    ],
)
async def test_what_cannot_pass_is_tried_once(model: ModelBench, answer: Any, words: str) -> None:
    failure = await model.fails(answer)
    assert words in failure.message
    assert (failure.failure_class, failure.retryable) == (FailureClass.PROVIDER, False)
    assert not isinstance(failure, ContextOverflow)
    assert len(model.server.received) == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply({"error": {"code": "context_length_exceeded", "message": "Too long."}}, status=400),
        reply({"error": {"message": "This model's maximum context length is 8192 tokens."}}, status=400),
        reply(response(status="failed", error={"code": "context_length_exceeded", "message": "Too long."})),
    ],
)
async def test_an_overflow_is_told_apart(model: ModelBench, answer: Any) -> None:
    failure = await model.fails(answer)
    assert isinstance(failure, ContextOverflow)
    assert (failure.retryable, len(model.server.received)) == (False, 1)


async def test_a_server_that_hangs_or_drips(model: ModelBench) -> None:
    failure = await model.fails(hang(), timeout=0.05)
    assert "no answer within 0.05 s" in failure.message
    failure = await model.fails(hang(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"), timeout=0.05)
    assert (failure.failure_class, failure.retryable) == (FailureClass.PROVIDER, True)
    assert model.server.connections == 6  # on a busy machine not every request comes to be read in that time


async def test_nobody_listens(model: ModelBench) -> None:
    async with loopback() as gone:
        pass
    there = Model.model_validate({"name": "main", "model": "m", "endpoint": gone.url})

    async def sleep(_: float) -> None:
        return None

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_API_KEY", KEY)
        client = open_model(there, lambda ref: "", sleep=sleep)
    with pytest.raises(Failure, match=r"the connection failed: .*; check endpoint") as caught:
        await client.ask(Request("", [], timeout=5))
    assert caught.value.retryable
    await client.close()


async def test_an_endless_answer_is_given_up(model: ModelBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrun.runner.endpoint.MAX_ANSWER", 1_000_000)
    failure = await model.fails(endless(b" " * 65_536, "application/json"))
    assert "larger than 1000000 bytes" in failure.message
    bomb = gzip.compress(b" " * 50_000_000)
    failure = await model.fails(reply(bomb, content_encoding="gzip"))
    assert "larger than 1000000 bytes" in failure.message
    assert len(model.server.received) == 2


async def test_gzip_is_understood(model: ModelBench) -> None:
    packed = gzip.compress(json.dumps(response(message(text("hello")))).encode())
    assert (await model.ask(reply(packed, content_encoding="gzip"))).text == "hello"


async def test_a_model_without_reasoning(model: ModelBench) -> None:
    refused = reply({"error": {"message": "Encrypted content is not supported with this model."}}, status=400)
    assert (await model.ask(refused, OK)).text == "hello"
    assert (await model.ask(OK)).text == "hello"
    assert [received.json.get("include") for received in model.server.received] == [
        ["reasoning.encrypted_content"],
        None,
        None,
    ]
    assert (await model.fails(refused)).retryable is False


async def test_cancellation_ends_the_call_at_once(model: ModelBench) -> None:
    task = asyncio.create_task(model.ask(hang()))
    await model.server.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(model.server.received) == 1


async def test_the_connection_is_kept(model: ModelBench) -> None:
    for _ in range(3):
        await model.ask(OK)
    assert model.server.connections == 1


def missing(ref: SecretKey) -> str:
    raise FileNotFoundError(f"/secrets/{ref.name}/{ref.key}")


@pytest.mark.parametrize(
    ("credentials", "secret", "words"),
    [
        (None, missing, "there is no API key; set OPENAI_API_KEY, or give the model credentials"),
        (True, missing, "key api-key of Secret model-key cannot be read"),
        (True, lambda _: "\n", "key api-key of Secret model-key is empty"),
        (True, lambda _: "sk-a\r\nX-Evil: 1", "key api-key of Secret model-key contains a line break"),
    ],
)
def test_no_key(monkeypatch: pytest.MonkeyPatch, credentials: Any, secret: Any, words: str) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    ref = {"secretRef": {"name": "model-key", "key": "api-key"}} if credentials else None
    model = Model.model_validate({"name": "main", "model": "m", "credentials": ref})
    with pytest.raises(Failure) as caught:
        open_model(model, secret)
    assert words in caught.value.message
    assert "Evil" not in caught.value.message
    assert (caught.value.retryable, caught.value.happened) == (False, "no")


@pytest.mark.parametrize(
    ("answer", "schema", "value", "error"),
    [
        ('{"refund": true}', SCHEMA, {"refund": True}, None),
        ('```json\n{"refund": true}\n```', LOOSE, {"refund": True}, None),
        (' ```\r\n{"refund": true}\r\n``` \n', LOOSE, {"refund": True}, None),
        ('```json\n{"refund": true}\n```', SCHEMA, {"refund": True}, None),
        ("Sure! Here it is", LOOSE, None, "the answer is not JSON"),
        ("```python\n1\n```", LOOSE, None, "the answer is not JSON"),
        ("```", LOOSE, None, "the answer is not JSON"),
        ('{"refund": "yes"}', LOOSE, {"refund": "yes"}, 'refund: "yes" is not of type "boolean"'),
        ("", LOOSE, None, "the answer is not JSON"),
    ],
)
def test_reading_structured_output(answer: str, schema: Any, value: Any, error: str | None) -> None:
    found, errors = parse_structured(answer, schema)
    assert found == value
    assert [e[: len(error or "")] for e in errors] == ([error] if error else [])


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.text(max_size=3)
    | st.sampled_from(["message", "{}", "completed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["output", "type", "content", "text", "status", "usage", "choices", "message", "tool_calls", "function"]
            ),
            inner,
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["output", "status", "usage", "choices", "id", "model"]), json_like))
def test_whatever_is_answered_is_a_turn_or_malformed(answer: dict[str, Any]) -> None:
    for read in (responses_turn.read_turn, chat_turn.read_turn):
        with suppress(Malformed):
            turn = read(answer)
            assert json.loads(json.dumps(turn.items)) == turn.items


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=10))
def test_json_within_bounds_reads_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("said", ['[{"refund": true}]', '{"output": {"refund": true}}'])
def test_the_value_alone_in_a_list_or_below_a_name_is_taken(said: str) -> None:
    assert parse_structured(said, SCHEMA) == ({"refund": True}, [])
    assert parse_structured(said.replace("true", "1"), SCHEMA)[1]
