"""Errors of every shape: their words are shown, bounded and printable, and what is no JSON is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.printable import printable
from agentrun.runner.error_words import WORDS_MAX, read_error
from tests.harness.loopback import reply
from tests.harness.model_bench import KEY, OK, completion, message, model_bench, response, text

PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Sign &amp; go in\n</title></head><body>" + b"x" * 100_000 + b"</body></html>"
)

SHAPES: dict[str, tuple[Any, str]] = {
    "openai": ({"error": {"message": "Oh dear."}}, "Oh dear."),
    "text": ({"error": "Oh dear."}, "Oh dear."),
    "message": ({"message": "Oh dear."}, "Oh dear."),
    "aws": ({"Message": "Oh dear.", "__type": "ValidationException"}, "Oh dear."),
    "camel": ({"errorMessage": "Oh dear."}, "Oh dear."),
    "detail": ({"detail": "Oh dear."}, "Oh dear."),
    "fastapi": (
        {"detail": [{"loc": ["body", "tools", 0], "msg": "Oh dear.", "type": "x", "input": {"secret": 1}}]},
        "tools.0: Oh dear.",
    ),
    "fastapi-two": ({"detail": [{"loc": ["body", "a"], "msg": "x"}, {"loc": ["b"], "msg": "y"}]}, "a: x; b: y"),
    "detail-object": ({"detail": {"error": "Oh dear."}}, "Oh dear."),
    "errors": ({"errors": [{"message": "Oh"}, {"message": "dear."}]}, "Oh; dear."),
    "errors-texts": ({"errors": ["Oh", "dear."]}, "Oh; dear."),
    "errors-by-field": ({"errors": {"message": "Oh dear."}}, "Oh dear."),
    "list": ([{"error": {"message": "Oh dear.", "status": "INVALID_ARGUMENT"}}], "Oh dear."),
    "twice": ({"error": {"error": {"message": "Oh dear."}}}, "Oh dear."),
    "vllm": ({"object": "error", "message": "Oh dear.", "type": "BadRequestError"}, "Oh dear."),
    "mistral": ({"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "Oh dear."}]}}, "x: Oh dear."),
    "json-in-a-text": ({"error": {"message": json.dumps({"detail": "Oh dear."})}}, "Oh dear."),
    "nest": ({"statusCode": 400, "error": "Bad Request", "message": ["a must be b"]}, "a must be b; Bad Request"),
    "problem": (
        {"type": "about:blank", "title": "Bad", "status": 400, "detail": "Oh dear.", "instance": "/x"},
        "Oh dear.; Bad",
    ),
    "openrouter": (
        {"error": {"message": "Provider returned error", "metadata": {"raw": '{"message": "Oh dear."}'}}},
        "Provider returned error; Oh dear.",
    ),
    "zod": ({"error": {"issues": [{"path": ["messages", 0], "message": "Required"}]}}, "messages.0: Required"),
    "msg": ({"code": 1, "msg": "Oh dear."}, "Oh dear."),
    "oauth": ({"error": "invalid_request", "error_description": "Oh dear."}, "invalid_request; Oh dear."),
    "plain": (b"Oh dear.", "Oh dear."),
    "xml": (
        b"<?xml version='1.0'?><Error><Code>Bad</Code><Message>Oh dear.</Message></Error>",
        "XML document: Oh dear.",
    ),
    "soap": (b"<s:Envelope><s:Fault><faultstring>Oh dear.</faultstring></s:Fault></s:Envelope>", "Oh dear."),
    "html": (PAGE, "an HTML page: Sign & go in"),
    "html-without-a-title": (b"<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>", "an HTML page: 502 Bad"),
    "html-fragment": (b"<center>nginx</center>", "nginx"),
    "stream": (b'data: {"error": {"message": "Oh dear."}}\n\n', "an event stream: Oh dear."),
    "json-lines": (b'{"error": "Oh dear."}\n{"done": true}\n', "a stream of JSON lines: Oh dear."),
    "stream-event": (b'event: error\ndata: {"message": "Oh dear."}\n\n', "an event stream: Oh dear."),
    "bom": ("\ufeff".encode() + b'{"message": "Oh dear."}', "Oh dear."),
    "latin-1": ("Sch\xf6n".encode("latin-1"), "Sch�n"),
    "nul": ({"message": "a\x00b\x1b[31m\u202e"}, "a\\u0000b\\u001b[31m\\u202e"),
    "not-finite": (b'{"message": NaN}', '{"message": NaN}'),
    "half-json": (b'{"message": "Oh dear', '{"message": "Oh dear'),
    "number": (b"7", "7"),
    "deep": (b"[" * 2_000 + b"]" * 2_000, "[[["),
    "megabytes": (b'{"message": "' + b"Oh dear. " * 300_000 + b'"}', '{"message": "Oh dear.'),
    "long": ({"message": "Oh dear. " * 1_000}, "Oh dear. Oh dear."),
}


@pytest.mark.parametrize("name", SHAPES)
def test_words_of_an_error(name: str) -> None:
    body, words = SHAPES[name]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    for content_type in ("application/json", "text/plain", "text/html", ""):
        said = read_error(data, content_type, str)
        assert words in said.words
        assert printable(said.words) == said.words
        assert len(said.words) <= WORDS_MAX + 1
        assert "secret" not in said.words


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"{}", b"[]", b"null", b'{"error": null}', b'{"error": {}}', b'""'])
def test_an_error_without_words(body: bytes) -> None:
    assert read_error(body, "application/json", str).words == ""


async def test_errors_of_every_shape_over_http() -> None:
    async with model_bench("chat") as model:
        for name, (body, words) in SHAPES.items():
            failure = await model.fails(reply(body, status=400))
            assert words in failure.message, name
            assert "400 Because" in failure.message
        assert len(model.server.received) == len(SHAPES)
        failure = await model.fails(reply({"detail": f"key {KEY} " * 40}, status=400))
        assert "key *** key ***" in failure.message


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            reply(PAGE, content_type="text/html; charset=utf-8"),
            "not JSON but an HTML page: Sign & go in; check endpoint",
        ),
        (reply(PAGE, content_type="application/json"), "an HTML page"),
        (reply(b"<p>Please wait</p>", content_type="text/html"), "an HTML page: Please wait"),
        (reply(b"<Error><Message>No</Message></Error>", content_type="application/xml"), "an XML document: No"),
        (
            reply(b'data: {"id": 1, "choices": []}\n\ndata: [DONE]\n\n', content_type="text/event-stream"),
            "event stream",
        ),
        (reply(b": OPENROUTER PROCESSING\n\ndata: {}\n\n", content_type="text/event-stream"), "event stream"),
        (
            reply(b'{"choices": []}\n{"choices": []}\n', content_type="application/x-ndjson"),
            "a stream of JSON lines, which was not asked for",
        ),
        (reply(b"ping", content_type="text/event-stream"), "an event stream, which was not asked for"),
    ],
)
async def test_what_cannot_become_json_is_named_and_not_asked_for_again(api: str, answer: Any, words: str) -> None:
    async with model_bench(api) as model:
        failure = await model.fails(answer)
        assert words in failure.message
        assert "usually ends with /v1" in failure.message
        assert (failure.retryable, len(model.server.received)) == (False, 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(b""), "200 with an empty body"),
        (reply(b" \n\n ", content_type="text/plain"), "200 with an empty body"),
        (reply(status=204), "204 with an empty body"),
        (
            reply(b"upstream connect error"),
            'it is not JSON: Expecting value: line 1 column 1 (char 0); it begins "upstream',
        ),
        (reply({"message": "Try later"}), "it says: Try later"),
        (reply({"detail": [{"msg": "Try later"}]}), "it says: Try later"),
    ],
)
async def test_what_may_have_been_a_hiccup_is_asked_for_again(answer: Any, words: str) -> None:
    async with model_bench("chat") as model:
        failure = await model.fails(answer)
        assert words in failure.message
        assert (failure.retryable, len(model.server.received)) == (True, 3)


async def test_json_is_read_whatever_its_type_says() -> None:
    good = json.dumps(response(message(text("hello")))).encode()
    async with model_bench("responses") as model:
        for content_type in ("text/plain", "text/html", "text/event-stream", "application/octet-stream", ""):
            assert (await model.ask(reply(good, content_type=content_type))).text == "hello"
        assert (await model.ask(reply("\ufeff".encode() + good))).text == "hello"
        assert (await model.ask(reply(b"\n\n\n" + good))).text == "hello"


@pytest.mark.parametrize("empty", [None, "", {}, [], {"code": None, "message": None}, {"message": ""}])
async def test_an_empty_error_in_an_answer_is_none(empty: Any) -> None:
    async with model_bench("chat") as model:
        assert (await model.ask(reply(completion(content="hello") | {"error": empty}))).text == "hello"


@pytest.mark.parametrize(
    ("answer", "retryable", "words"),
    [
        ({"error": "Oh dear."}, False, "the answer is an error: Oh dear."),
        ({"error": {"message": "Oh dear.", "code": 503}}, True, "Oh dear."),
        ({"error": {"message": "Oh dear.", "code": "502"}}, True, "Oh dear."),
        ({"error": {"message": "Oh dear.", "type": "server_error"}}, True, "Oh dear."),
        ({"error": {"message": "Slow.", "code": 429}}, True, "Slow."),
        ({"error": {"message": "Slow.", "code": "rate_limit_exceeded"}}, True, "Slow."),
        ({"error": {"message": "Spent.", "code": "insufficient_quota"}}, False, "check plan and billing"),
        ({"error": {"message": "No.", "code": 401}}, False, "the credentials were refused"),
        ({"error": {"error": {"message": "Oh dear."}}}, False, "Oh dear."),
        ([{"error": {"message": "Oh dear.", "code": 400}}], False, "the answer is an error: Oh dear."),
        ("Oh dear.", True, "it is not a JSON object; it says: Oh dear."),
        ([], True, "it is not a JSON object"),
        ({"error": {"message": "Insufficient Balance", "code": 402}}, False, "has no credit left: check plan"),
        ({"object": "error", "message": "Oh dear.", "code": 400}, False, "the answer is an error: Oh dear."),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, True, "Overloaded"),
        ({"error": True}, False, "the answer is an error"),
    ],
)
async def test_an_error_inside_an_answer(answer: Any, retryable: bool, words: str) -> None:
    async with model_bench("chat") as model:
        failure = await model.fails(reply(answer))
        assert words in failure.message
        assert failure.retryable is retryable
        assert (await model.ask(reply(completion(content="hello")))).text == "hello"


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["", "text/html", "text/event-stream", "application/xml", "x"]))
def test_no_bytes_raise(body: bytes, content_type: str) -> None:
    words = read_error(body, content_type, str).words
    assert printable(words) == words


def test_a_page_of_brackets_takes_no_time() -> None:
    for part in (b"<", b"<a ", b"<title", b"<title><", b"data:\n", b"<message ", b"[{", b'{"error":'):
        read_error(part * 200_000, "text/html", str)


async def test_the_responses_api_says_why_a_response_failed() -> None:
    async with model_bench("responses") as model:
        failure = await model.fails(
            reply(response(status="failed", error={"code": "server_error", "message": "Sorry."}))
        )
        assert "Sorry." in failure.message
        assert (await model.ask(OK)).text == "hello"
