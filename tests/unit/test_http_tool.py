"""HTTP tools against servers that misbehave and arguments that attack: what is sent, what is seen, what is known."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.api.tools import Http, SecretKey
from agentrun.runner.bounded_body import TooLarge, Undecodable, read_body
from agentrun.runner.http_body import Refused
from agentrun.runner.http_request import prepare
from agentrun.runner.tool_client import ToolOutput
from agentrun.workflow.http import check_http, compile_http
from tests.harness.loopback import cut, endless, hang, loopback, raw, reply
from tests.harness.tool_bench import AUTH, TOKEN, ToolBench

# What is sent


async def test_arguments_are_the_body_by_default(shop: ToolBench) -> None:
    output = await shop.call({"orderId": "4711", "name": "Žofie 🦊"}, reply({"ok": True}))
    assert output == ToolOutput(200, {"ok": True}, '{"ok": true}')
    [sent] = shop.server.received
    assert (sent.method, sent.target, sent.json) == ("POST", "/orders", {"orderId": "4711", "name": "Žofie 🦊"})
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["idempotency-key"] == "key-1"
    assert "authorization" not in sent.headers


async def test_everything_that_can_be_a_template(shop: ToolBench) -> None:
    await shop.call(
        {"id": "ä/1", "n": 2, "tags": ["a"]},
        url="/${inputs.shop}/orders/${args.id}/x?fixed=1&at=${args.n}",
        method="PUT",
        query={"tag": "${args.tags}", "q": "a&b=${args.id}"},
        headers={"X-Order": "no ${args.n}"},
        body={"order": {"id": "${args.id}", "n": "${args.n}", "text": "n=${args.n}"}, "fixed": [True, None]},
        auth=AUTH,
    )
    [sent] = shop.server.received
    assert sent.target == "/north/orders/%C3%A4%2F1/x?fixed=1&at=2&tag=%5B%22a%22%5D&q=a%26b%3D%C3%A4%2F1"
    assert sent.headers["x-order"] == "no 2"
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"
    assert sent.json == {"order": {"id": "ä/1", "n": 2, "text": "n=2"}, "fixed": [True, None]}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_methods_without_a_body(shop: ToolBench, method: str) -> None:
    await shop.call({"a": 1}, raw(b"HTTP/1.1 204 No Content\r\n\r\n"), method=method, effect="ReadOnly")
    [sent] = shop.server.received
    assert (sent.method, sent.body, sent.headers.get("content-type")) == (method, b"", None)
    assert "idempotency-key" not in sent.headers


async def test_a_text_under_a_type_of_its_own_stands_as_it_is(shop: ToolBench) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    await shop.call({"a": "x y"}, headers=form, body="a=${args.a}")
    await shop.call({"a": "x y"}, body="a=${args.a}")
    assert [sent.body for sent in shop.server.received] == [b"a=x%20y", b'"a=x y"']


@pytest.mark.parametrize("value", [".", "..", "", "../admin", "a/../../b", "..\\admin", "x/."])
async def test_a_value_cannot_leave_its_segment(shop: ToolBench, value: str) -> None:
    output = await shop.call({"id": value}, url="/orders/${args.id}")
    assert (output.status, output.is_error) == (None, True)
    assert "in the URL's path" in output.text
    assert shop.server.received == []


@pytest.mark.parametrize(
    "url", ["/a/.${args.id}", "/a/%2e${args.id}/b", "/a/${args.id}${args.id}/b", "/a/${args.id}?x"]
)
def test_dots_are_found_however_they_come_together(url: str) -> None:
    http = Http(url=f"http://shop.example{url}")
    with pytest.raises(Refused, match="as a segment"):
        prepare(http, compile_http(http), {"args": {"id": "."}})


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\n", "\x00", "naïve", "a\x7f", "\u2028"])
async def test_a_value_cannot_leave_its_header(shop: ToolBench, value: str) -> None:
    output = await shop.call({"v": value}, headers={"X-Value": "v${args.v}v"})
    assert output.is_error
    assert output.text.startswith("the value of header X-Value contains line breaks")
    assert shop.server.received == []


async def test_a_missing_argument_is_named(shop: ToolBench) -> None:
    output = await shop.call({}, url="/orders/${args.orderId}")
    assert output.is_error
    assert "orderId" in output.text
    assert shop.server.received == []


@given(st.text(), st.text())
def test_values_never_change_what_the_url_means(path: str, query: str) -> None:
    http = Http(method="GET", url="http://shop.example/a/${args.p}/b?x=${args.q}", query={"y": "${args.q}"})
    try:
        url = prepare(http, compile_http(http), {"args": {"p": path, "q": query}}).url
    except Refused:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("http", "shop.example", "")
    first, segment, last = parts.path[1:].split("/")
    assert (first, unquote(segment), last) == ("a", path, "b")
    pairs = [pair.split("=") for pair in parts.query.split("&")]
    assert [(name, unquote(value)) for name, value in pairs] == [("x", query), ("y", query)]
    assert url.isascii()
    assert url.isprintable()


# What is seen


@pytest.mark.parametrize(
    ("answer", "output", "text"),
    [
        (reply({"a": [1, "ü"]}), {"a": [1, "ü"]}, '{"a": [1, "ü"]}'),
        (reply({"a": 1}, content_type="application/problem+json; charset=utf-8"), {"a": 1}, '{"a": 1}'),
        (reply(b"\xef\xbb\xbf[1]"), [1], "[1]"),
        (reply(b"plain \xe4", content_type="text/plain; charset=iso-8859-1"), "plain ä", "plain ä"),
        (
            reply(b"plain \xe4", content_type="text/plain; charset=unicode_escape"),
            "plain �",
            '(its charset "unicode_escape" is not supported',
        ),
        (
            reply(b"plain \xe4", content_type="text/plain; charset=nonsense"),
            "plain �",
            '(its charset "nonsense" is not',
        ),
        (reply(b"{oops", content_type="application/json"), "{oops", "(announced as JSON, but it is not: Exp"),
        (reply(b"[" * 500 + b"]" * 500), "[" * 500 + "]" * 500, "(announced as JSON, but it is not: nested"),
        (reply(b"{}", content_type=""), {}, "{}"),
        (reply(b"[1", content_type=""), "[1", "[1"),
        (reply(b"{}", content_type="application/octet-stream"), "{}", "{}"),
        (reply(b'{"a": 1}', content_type="application/vnd.shop.json"), {"a": 1}, '{"a": 1}'),
        (reply(b"\xff\x00", content_type=""), {"contentType": "application/octet-stream", "bytes": 2}, "(binary con"),
        (reply(b"\x89PNG", content_type="image/png"), {"contentType": "image/png", "bytes": 4}, "(binary content,"),
        (reply(b"", status=204), None, "(no content)"),
        (reply(gzip.compress(b"[1]", mtime=0), content_encoding="gzip"), [1], "[1]"),
    ],
)
async def test_bodies(shop: ToolBench, answer: Any, output: Any, text: str) -> None:
    found = await shop.call({}, answer)
    assert (found.output, found.is_error) == (output, False)
    assert found.text.startswith(text)


ID = b'{"id": "p-1", "note": "a"}'
PAID: dict[str, Any] = {
    "no type": reply(ID, content_type=""),
    "text": reply(ID, content_type="text/plain"),
    "bytes": reply(ID, content_type="application/octet-stream"),
    "script": reply(b")]}'\n" + ID, content_type="text/javascript"),
    "page": reply(ID, content_type="text/html"),
    "guarded": reply(b")]}',\n" + ID),
    "zero bytes": reply(ID + b"\0"),
    "a raw line break": reply(ID.replace(b'"a"', b'"a\nb"')),
    "half a character": reply(ID.replace(b'"a"', b'"\\ud83d"')),
    "deflate": reply(zlib.compress(ID), content_encoding="deflate"),
    "bare deflate": reply(zlib.compress(ID, wbits=-15), content_encoding="deflate"),
    "gzip twice": reply(gzip.compress(gzip.compress(ID, mtime=0), mtime=0), content_encoding="gzip, gzip"),
    "gzip, unpacked by a proxy": reply(ID, content_encoding="gzip"),
    "deflate, unpacked by a proxy": reply(ID, content_encoding="deflate"),
    "zstd, unpacked by a proxy": reply(ID, content_encoding="zstd"),
    "a charset for a coding": reply(ID, content_encoding="utf-8"),
    "aws-chunked": reply(ID, content_encoding="aws-chunked"),
    "gzip of what a proxy unpacked": reply(gzip.compress(ID, mtime=0), content_encoding="br, gzip"),
}


@pytest.mark.parametrize("name", PAID)
async def test_output_finds_what_a_reasonable_client_finds(shop: ToolBench, name: str) -> None:
    """A payment whose answer can be read is no matter for people."""
    found = await shop.call({}, PAID[name], output="response.body.id")
    assert (found.output, found.is_error, found.kept) == ("p-1", False, None)


async def test_a_status_line_in_small_letters_says_that_the_call_was_answered(shop: ToolBench) -> None:
    found = await shop.call({}, raw(b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
    assert found.status == 200
    assert found.kept is not None


async def test_output_sees_the_response_and_the_arguments(shop: ToolBench) -> None:
    answer = reply({"items": [1, 2]}, x_total="7")
    expression = "{'n': response.body.items[1], 'h': response.headers['x-total'], 's': response.status, 'a': args.a}"
    found = await shop.call({"a": "b"}, answer, output=expression)
    assert found.output == {"n": 2, "h": "7", "s": 200, "a": "b"}
    assert json.loads(found.text) == found.output


async def test_output_without_a_value_is_an_answer_and_no_failure(shop: ToolBench) -> None:
    found = await shop.call({}, reply({"items": []}), output="response.body.total")
    assert (found.status, found.is_error) == (200, True)
    assert "answered with HTTP 200 OK, but output has no value" in found.text
    assert len(shop.server.received) == 1


async def test_a_4xx_is_the_answer(shop: ToolBench) -> None:
    found = await shop.call({}, reply({"why": "no such order" * 1000}, status=404), output="response.body.total")
    assert (found.status, found.is_error, found.output["status"]) == (404, True, 404)
    assert found.text.startswith('HTTP 404 Not Found\n{"why": "no such order')
    assert found.text.endswith("… (13011 characters in all)")
    assert len(shop.server.received) == 1


async def test_a_redirect_is_not_followed(shop: ToolBench) -> None:
    found = await shop.call({}, reply(status=307, location="http://169.254.169.254/latest/meta-data"), auth=AUTH)
    assert (found.status, found.is_error, len(shop.server.received)) == (307, True, 1)
    assert "307 Temporary Redirect to http://169.254.169.254/latest/meta-data: redirects are not followed" in found.text


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"x" * 1001, content_type="text/plain"),
        endless(b"x" * 65_536),
        reply(gzip.compress(b"x" * 100_000_000, mtime=0), content_type="text/plain", content_encoding="gzip"),
        endless(gzip.compress(b"x" * 100_000, mtime=0), content_encoding="gzip"),
    ],
)
async def test_too_large_an_answer(shop: ToolBench, answer: Any) -> None:
    found = await shop.call({}, answer, maxBytes=1000)
    assert (found.status, found.is_error) == (200, True)
    what = "the call was answered with HTTP 200 OK, but its body is larger than the tool's maxBytes, 1000"
    assert found.text.startswith(f"{what}\nReceived: xxx")
    assert found.kept is not None and (found.kept["bytes"], found.kept["whole"]) == (1001, False)
    exactly = await shop.call({}, reply(b"x" * 1000, content_type="text/plain"), maxBytes=1000)
    assert not exactly.is_error


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"\x0b\x02\x80hi", "gzip", "is not the gzip"),
        (gzip.compress(b"x" * 999, mtime=0)[:20], "gzip", "cut off"),
        (b"\x0b\x02\x80hi\x03", "br", '"br"'),
        (gzip.compress(b"\0", mtime=0)[:-4] + b"oops", "gzip", "is not the gzip"),
        (b"\xff\x80\xff", "deflate", "is not the deflate"),
        (zlib.compress(b"x" * 999)[:9], "deflate", "cut off"),
        (gzip.compress(b"x", mtime=0), "gzip, gzip, gzip, gzip", "4 times over"),
        (gzip.compress(b"\x0b\x80", mtime=0), "br, gzip", '"br"'),
    ],
)
async def test_an_answer_that_does_not_decompress(shop: ToolBench, data: bytes, encoding: str, words: str) -> None:
    found = await shop.call({}, reply(data, content_encoding=encoding))
    assert (found.status, found.is_error) == (200, True)
    assert words in found.text


async def test_an_echoed_token_is_not_seen(shop: ToolBench) -> None:
    answer = reply({"headers": {"Authorization": f"Bearer {TOKEN}"}}, x_echo=TOKEN)
    found = await shop.call({}, answer, auth=AUTH, output="[response.body, response.headers]")
    assert TOKEN not in found.text
    assert found.output[0] == {"headers": {"Authorization": "Bearer ***"}}
    failure = await shop.fails(reply(TOKEN.encode(), status=500), auth=AUTH)
    assert "***" in failure.message


async def test_no_cookie_is_kept(shop: ToolBench) -> None:
    shop.server.then(reply({}, set_cookie="session=1; Path=/"))
    tool = shop.tool()
    await tool.call({})
    await tool.call({})
    assert "cookie" not in shop.server.received[1].headers


# What is known


@pytest.mark.parametrize(
    ("answer", "happened", "words"),
    [
        (reply(status=429, retry_after="7"), "no", "HTTP 429 Too Many Requests"),
        (reply(b"oh\x1b dear", status=500), "unknown", "HTTP 500 Internal Server Error: oh\\u001b dear"),
        (reply(status=503, retry_after="7"), "unknown", "HTTP 503 Service Unavailable"),
        (reply(status=408), "unknown", "HTTP 408 Request Timeout"),
        (cut(), "unknown", "the connection was lost after the request was sent"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "unknown", "the connection was lost after"),
    ],
)
async def test_no_answer(shop: ToolBench, answer: Any, happened: str, words: str) -> None:
    failure = await shop.fails(answer)
    assert words in failure.message
    assert (failure.happened, failure.retryable) == (happened, True)
    assert failure.retry_after == (7.0 if "429" in words or "503" in words else None)
    assert (len(shop.server.received), shop.pauses) == (1, [])


@pytest.mark.parametrize("effect", ["ReadOnly", "Idempotent"])
async def test_what_may_be_repeated_is(shop: ToolBench, effect: str) -> None:
    found = await shop.call({}, cut(), reply(status=500), reply([1]), effect=effect)
    assert found.output == [1]
    assert (len(shop.server.received), len(shop.pauses)) == (3, 2)
    keys = [sent.headers.get("idempotency-key") for sent in shop.server.received]
    assert keys == ([None] * 3 if effect == "ReadOnly" else ["key-1"] * 3)
    shop.server.received.clear()
    await shop.fails(reply(status=500), effect=effect)
    assert len(shop.server.received) == 3


async def test_nobody_listens(shop: ToolBench) -> None:
    async with loopback() as gone:
        pass
    failure = await shop.fails(url=f"{gone.url}/orders")
    assert (failure.happened, failure.retryable) == ("no", True)
    assert "the connection failed" in failure.message


async def test_a_proxy_that_refuses_the_tunnel(shop: ToolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # The proxy has seen a request by then, but not ours.
    monkeypatch.setenv("HTTPS_PROXY", shop.server.url)
    failure = await shop.fails(reply(status=403), url="https://shop.invalid/orders")
    assert [sent.method for sent in shop.server.received] == ["CONNECT"]
    assert (failure.happened, failure.retryable) == ("no", True)


async def test_plain_http_spoken_to_as_https(shop: ToolBench) -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await shop.fails(url=f"https://127.0.0.1:{port}/orders")
    assert (failure.happened, failure.retryable) == ("no", True)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 20", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
async def test_a_server_that_hangs(shop: ToolBench, begin: bytes) -> None:
    failure = await shop.fails(hang(begin), timeout="400ms")
    assert (failure.happened, failure.retryable) == ("unknown", True)
    assert "no answer within 0.4 s" in failure.message


async def test_cancellation_ends_the_call_at_once(shop: ToolBench) -> None:
    task = asyncio.create_task(shop.call({}, hang(), effect="ReadOnly"))
    await shop.server.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(shop.server.received) == 1


async def test_only_once_calls_have_connections_of_their_own(shop: ToolBench) -> None:
    shop.server.then(reply([]))
    for effect, connections in (("Once", 3), ("Idempotent", 1)):
        shop.server.connections = 0
        tool = shop.tool(effect=effect)
        for _ in range(3):
            await tool.call({})
        assert shop.server.connections == connections


def no_secret(ref: SecretKey) -> str:
    raise LookupError(f"/secrets/{ref.name}")


@pytest.mark.parametrize("secret", [no_secret, lambda _: "", lambda _: "a\nb", lambda _: "a b\x00"])
async def test_a_secret_that_cannot_be_used(shop: ToolBench, secret: Any) -> None:
    failure = await shop.fails(auth=AUTH, secret=secret)
    assert "key token of Secret shop" in failure.message
    assert (failure.happened, failure.retryable, shop.server.received) == ("no", False, [])


async def test_the_secret_is_read_for_each_call(shop: ToolBench) -> None:
    tokens = iter(["first-token", "second-token"])
    shop.server.then(reply([]))
    tool = shop.tool(auth=AUTH, secret=lambda _: next(tokens))
    await tool.call({})
    await tool.call({})
    assert [sent.headers["authorization"] for sent in shop.server.received] == [
        "Bearer first-token",
        "Bearer second-token",
    ]


# What is refused before anything runs


@pytest.mark.parametrize(
    ("http", "place", "words"),
    [
        ({"url": "https://${args.host}/x"}, "http.url", "not in the scheme, host or port"),
        ({"url": "https://shop.example${args.x}"}, "http.url", "not in the scheme, host or port"),
        ({"url": "https://shop.example:${args.port}/"}, "http.url", "not in the scheme, host or port"),
        ({"url": "https://a${args.x}@shop.example/"}, "http.url", "not in the scheme, host or port"),
        ({"url": "https://user:pass@shop.example/"}, "http.url", "contains credentials"),
        ({"url": "https:///orders"}, "http.url", "no valid host"),
        ({"url": "https://shop.example:99999/"}, "http.url", "no valid host"),
        ({"url": "https://shop.example\\@evil.example/"}, "http.url", "no valid host"),
        ({"url": "https://shop.example/\x01"}, "http.url", "control character"),
        ({"url": "https://shop.example/#${args.x}"}, "http.url", "fragment"),
        ({"url": "https://shop.example/${args.x"}, "http.url", "not closed"),
        ({"url": "https://shop.example/${response.body}"}, "http.url", "response"),
        ({"query": {"q": "${nothing}"}}, "http.query.q", "nothing"),
        ({"headers": {"Host": "evil.example"}}, "http.headers.Host", "cannot be set"),
        ({"headers": {"content-length": "5"}}, "http.headers.content-length", "cannot be set"),
        ({"headers": {"Idempotency-Key": "5"}}, "http.headers.Idempotency-Key", "cannot be set"),
        ({"headers": {"X Y": "5"}}, "http.headers.X Y", "not the name of a header"),
        ({"headers": {"X\r\nY": "5"}}, "http.headers.X\r\nY", "not the name of a header"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "http.headers.x-a", "the same header as X-A"),
        ({"headers": {"authorization": "x"}, "auth": AUTH}, "http.headers.authorization", "together with auth"),
        ({"method": "GET", "body": {"a": 1}}, "http.body", "has no body"),
        ({"body": {"a": ["${args.}"]}}, "http.body.a[0]", ""),
        ({"output": "response.body +"}, "http.output", ""),
    ],
)
def test_refused_by_validation(http: dict[str, Any], place: str, words: str) -> None:
    tool = Http.model_validate({"url": "https://shop.example/", **http})
    [problem] = check_http(tool, ("http",))
    assert dotted(problem.path) == place
    assert words in problem.message
    with pytest.raises(InvalidDocument):
        compile_http(tool)


@pytest.mark.parametrize(
    "http",
    [
        {"url": "https://shop.example/${args.id}"},
        {"url": "https://shop.example?q=${args.id}"},
        {"url": "http://[::1]:8080/$${literal}"},
        {"headers": {"Authorization": "Basic ${args.x}"}, "method": "GET"},
        {"output": "response.status == 200 ? response.body : args.fallback"},
    ],
)
def test_accepted_by_validation(http: dict[str, Any]) -> None:
    assert check_http(Http.model_validate({"url": "https://shop.example/", **http}), ("http",)) == []


# Bodies


class Source:
    """Chunks without end, of which it counts how many were taken."""

    def __init__(self, *first: bytes, then: bytes) -> None:
        self.first, self.then, self.taken = first, then, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.first:
            self.taken += 1
            yield chunk
        while True:
            self.taken += 1
            yield self.then


@pytest.mark.parametrize(
    ("encoding", "source"),
    [
        ("", Source(then=b"x" * 1000)),
        ("gzip", Source(then=gzip.compress(b"x" * 1_000_000, mtime=0))),
        # A valid gzip header, and then empty blocks: input without end that never yields a byte.
        ("gzip", Source(gzip.compress(b"", mtime=0)[:10], then=b"\x00\x00\x00\xff\xff" * 200)),
    ],
)
async def test_no_more_is_read_than_the_limit_needs(encoding: str, source: Source) -> None:
    with pytest.raises(TooLarge):
        await read_body(source, encoding, 10_000)
    assert source.taken <= 80


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 50), st.booleans())
@settings(max_examples=50)
def test_concatenated_gzip_reads_as_it_was_written(parts: list[bytes], size: int, cut_off: bool) -> None:
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts)[: -4 if cut_off else None]

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(packed), size):
            yield packed[at : at + size]

    async def read() -> bytes:
        return await read_body(chunks(), "gzip", 10_000)

    if cut_off and packed:
        with pytest.raises(Undecodable):
            asyncio.run(read())
    else:
        assert asyncio.run(read()) == b"".join(parts)
