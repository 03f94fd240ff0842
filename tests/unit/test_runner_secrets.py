"""Keys and tokens, and the environment of a step's process: what is sent, what is hidden, what cannot be used."""

from __future__ import annotations

import json

import pytest

from agentrun.api.workflow import Model
from agentrun.runner.connections import tls
from agentrun.runner.failures import ContextOverflow, Failure
from agentrun.runner.models import Request, open_model
from tests.harness.loopback import loopback, raw, reply
from tests.harness.model_bench import KEY, ModelBench, message, response, text
from tests.harness.tool_bench import AUTH, ToolBench

UNUSABLE = pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTP_PROXY", "foo://x"), ("SSL_CERT_FILE", "/nothing")]
)

# -- of tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["hunter2-very-secret ", " hunter2-very-secret"])
async def test_a_token_with_blanks_around_it_is_sent_without_them_and_quoted_nowhere(
    shop: ToolBench, token: str
) -> None:
    """h11 quoted the header that it did not take, token and all, and the call counted as one that may have happened."""
    found = await shop.call({}, reply({}), auth=AUTH, secret=lambda _: f"{token}\n")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("token", "echo"),
    [
        ("abcd/efgh/ijkl0123", rb'{"auth":"Bearer abcd\/efgh\/ijkl0123"}'),
        ("abcd+efgh+ijkl0123", rb'{"auth":"Bearer abcd\u002Befgh\u002Bijkl0123"}'),
        ("abcd<efgh&ijkl0123", rb'{"auth":"Bearer abcd\u003cefgh\u0026ijkl0123"}'),
    ],
)
async def test_a_token_that_is_echoed_escaped_is_replaced_too(shop: ToolBench, token: str, echo: bytes) -> None:
    found = await shop.call({}, reply(echo), auth=AUTH, secret=lambda _: token)
    assert token not in found.text
    assert token not in json.dumps(found.output)


@UNUSABLE
async def test_an_environment_that_cannot_be_used_is_no_call_that_may_have_happened(
    shop: ToolBench, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    tls.cache_clear()
    monkeypatch.setenv(name, value)
    with pytest.raises(Failure) as failed:
        await shop.tool(url="http://shop.invalid/x").call({}, idempotency_key="k")
    tls.cache_clear()
    assert failed.value.happened == "no"


async def test_a_token_after_a_backslash_leaves_json_whole(shop: ToolBench) -> None:
    found = await shop.call({}, reply(rb'{"p":"C:\\tok-12345678"}'), auth=AUTH, secret=lambda _: "tok-12345678")
    assert found.output == {"p": "C:\\***"}


# -- of models -------------------------------------------------------------------------------------------------------


async def no_sleep(_: float) -> None:
    pass


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY} "])
async def test_the_key_of_the_environment_is_sent_without_what_surrounds_it(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A Secret made with ``echo`` ends with a line break: the error quoted the header whole, into the journal."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    async with loopback() as server:
        server.then(reply(response(message(text("hello")))))
        model = Model.model_validate({"name": "main", "model": "m", "endpoint": f"{server.url}/v1"})
        client = open_model(model, lambda _: key, sleep=no_sleep)
        try:
            assert (await client.ask(Request("", [], timeout=5))).text == "hello"
        finally:
            await client.close()
        assert server.received[-1].headers["authorization"] == f"Bearer {KEY}"


async def test_a_key_that_stands_where_an_error_is_cut_is_hidden(model: ModelBench) -> None:
    with pytest.raises(Failure) as failed:
        await model.ask(reply({"error": {"message": "x" * 290 + KEY}}, status=403))
    assert KEY[:8] not in failed.value.message


@pytest.mark.parametrize("charset", ["rot13", "idna", "undefined", "zlib"])
async def test_an_error_in_a_charset_that_is_none_is_read(model: ModelBench, charset: str) -> None:
    head = f"HTTP/1.1 400 X\r\nContent-Type: text/plain; charset={charset}\r\nContent-Length: 2\r\n\r\n"
    with pytest.raises(Failure):
        await model.ask(raw(head.encode() + b"no"))


@UNUSABLE
async def test_an_environment_that_cannot_be_used_is_said(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    tls.cache_clear()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv(name, value)
    with pytest.raises(Failure):
        open_model(Model.model_validate({"name": "main", "model": "m"}), lambda _: "", sleep=no_sleep)
    tls.cache_clear()


@pytest.mark.parametrize("key", ["x", "null", "error"])
async def test_a_placeholder_for_a_key_changes_no_answer(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Endpoints without keys are given any: it was replaced in the middle of words, and of JSON."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    async with loopback() as server:
        model = Model.model_validate({"name": "main", "model": "m", "endpoint": f"{server.url}/v1"})
        client = open_model(model, lambda _: "", sleep=no_sleep)
        error = {"message": "maximum context length", "code": "context_length_exceeded"}
        server.then(reply({"error": error}, status=400))
        with pytest.raises(ContextOverflow):
            await client.ask(Request("", [], timeout=5))
        server.then(reply({"error": {"message": "busy", "code": None, "status": 1}}))
        with pytest.raises(Failure):
            await client.ask(Request("", [], timeout=5))
        await client.close()


@pytest.mark.parametrize("key", ["  ", "schl\u00fcssel-0123456789"])
async def test_a_key_of_the_environment_that_no_header_takes_is_named(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(Failure, match="OPENAI_API_KEY") as failed:
        open_model(Model.model_validate({"name": "main", "model": "m"}), lambda _: "", sleep=no_sleep)
    assert "0123456789" not in failed.value.message
