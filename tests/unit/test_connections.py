"""Proxies and certificates of the environment: which holds for which address, and what is said of one that is unfit."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.workflow import Model
from agentrun.runner.connections import BadEnvironment, is_excluded, proxy_for, tls, why
from agentrun.runner.failures import Failure
from agentrun.runner.models import Request, open_model
from agentrun.runner.transport import answered
from tests.harness.loopback import loopback, raw, reply
from tests.harness.model_bench import KEY, message, response, text
from tests.harness.tool_bench import ToolBench

VARIABLES = [name for word in ("http", "https", "all", "no") for name in (f"{word}_proxy", f"{word}_proxy".upper())]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [*VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR"]:
        monkeypatch.delenv(name, raising=False)
    tls.cache_clear()
    yield
    tls.cache_clear()


# -- which proxy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_proxy", "excluded", "asked"),
    [
        ("localhost,127.0.0.1", ["localhost", "127.0.0.1"], ["127.0.0.2", "example.org"]),
        ("*", ["anything", "::1"], []),
        ("example.org", ["example.org", "a.example.org", "EXAMPLE.org."], ["anexample.org"]),
        (".example.org", ["a.example.org"], ["example.org"]),
        ("*.example.org", ["a.b.example.org"], ["example.org"]),
        ("10.0.0.0/8, ::1, fd00::/8", ["10.1.2.3", "::1", "fd00::1"], ["11.0.0.1", "::2"]),
        ("[::1]:8080", [], ["::1"]),
        ("example.org:443", ["example.org"], []),
        ("example.org:8443", [], ["example.org"]),
        ("http://example.org, , bad/entry, ../, 10.0.0.0/99", ["example.org"], ["10.0.0.1"]),
        ("a.org b.org", ["a.org", "b.org"], ["c.org"]),
        ("", [], ["example.org"]),
    ],
)
def test_hosts_that_are_asked_directly(no_proxy: str, excluded: list[str], asked: list[str]) -> None:
    assert [host for host in [*excluded, *asked] if is_excluded(host, 443, no_proxy)] == excluded


@given(st.text(), st.text())
def test_any_list_of_exclusions_can_be_read(host: str, no_proxy: str) -> None:
    assert is_excluded(host, 1, no_proxy) in (True, False)


@pytest.mark.parametrize(
    ("variables", "url", "used"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://x/", "the proxy http://p:1 of HTTPS_PROXY"),
        (
            {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"},
            "https://x/",
            "the proxy http://p:1 of https_proxy",
        ),
        ({"HTTPS_PROXY": "http://p:1"}, "http://x/", None),
        ({"ALL_PROXY": "p:1"}, "http://x/", "the proxy http://p:1 of ALL_PROXY"),
        ({"all_proxy": "http://p:1", "http_proxy": "http://q:1"}, "http://x/", "the proxy http://q:1 of http_proxy"),
        ({"HTTPS_PROXY": "http://me:secret@p:1/"}, "https://x/", "the proxy http://p:1/ of HTTPS_PROXY"),
        ({"ALL_PROXY": "socks5://p:1", "NO_PROXY": "x"}, "http://x/", None),
        ({"ALL_PROXY": ""}, "http://x/", None),
    ],
)
def test_the_proxy_of_an_address(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, used: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(url)
    assert (proxy.shown if proxy else None) == used


UNFIT = [
    ("ALL_PROXY", "socks5://127.0.0.1:9", "the proxy socks5://127.0.0.1:9 of ALL_PROXY is a SOCKS proxy"),
    ("all_proxy", "socks5h://u:secret-0@p:1", "the proxy socks5h://p:1 of all_proxy is a SOCKS proxy"),
    ("http_proxy", "socks4://p:1", "of a kind that is not supported (socks4)"),
    ("HTTP_PROXY", "ftp://p:1", "the proxy ftp://p:1 of HTTP_PROXY is of a kind"),
    ("http_proxy", "http://p:port", "http_proxy does not name a proxy"),
    ("http_proxy", "http://[p", "http_proxy does not name a proxy"),
    ("http_proxy", "://", "http_proxy does not name a proxy"),
    ("http_proxy", "http://a b", "http_proxy does not name a proxy"),
]


async def no_sleep(_: float) -> None:
    pass


async def asked(server_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a model at that address says."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    spec = Model.model_validate({"name": "main", "model": "m", "endpoint": f"{server_url}/v1"})
    client = await asyncio.to_thread(open_model, spec, lambda _: KEY, sleep=no_sleep)
    try:
        return str((await client.ask(Request("", [], timeout=5))).text)
    finally:
        await client.close()


@pytest.mark.parametrize(("name", "value", "words"), UNFIT)
async def test_a_proxy_that_cannot_be_used_is_named_where_it_would_be(
    shop: ToolBench, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    failure = await shop.fails(url="http://shop.invalid/orders")
    assert words in failure.message
    assert "NO_PROXY" in failure.message
    assert "secret-0" not in failure.message and "socksio" not in failure.message
    assert (failure.happened, failure.retryable) == ("no", False)
    with pytest.raises(Failure) as failed:
        await asked("http://model.invalid", monkeypatch)
    assert words in failed.value.message
    assert not failed.value.retryable


@pytest.mark.parametrize(("name", "value", "words"), UNFIT)
async def test_a_proxy_that_no_request_takes_harms_none(
    shop: ToolBench, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    del words
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert (await shop.call({})).output == {"ok": True}
    shop.server.then(reply(response(message(text("hello")))))
    assert await asked(shop.server.url, monkeypatch) == "hello"


async def test_a_proxy_that_is_not_there_is_named(shop: ToolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with loopback() as gone:
        pass
    monkeypatch.setenv("HTTP_PROXY", gone.url.replace("http://", "http://me:secret-0@"))
    failure = await shop.fails(url="http://shop.invalid/orders")
    assert f"the proxy {gone.url} of HTTP_PROXY: nothing listens there" in failure.message
    assert failure.happened == "no"


async def test_a_request_goes_through_the_proxy_and_its_end_is_heard(
    shop: ToolBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", shop.server.url)
    found = await shop.call({}, raw(b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n"), url="http://shop.invalid/orders")
    assert shop.server.received[0].target == "http://shop.invalid/orders"
    assert found.kept is not None and found.kept["status"] == 200


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture
def unfit(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "empty.pem").write_bytes(b"")
    (tmp_path / "der.crt").write_bytes(b"\x30\x82\x01\x0a")
    (tmp_path / "folder").mkdir()
    return {name: tmp_path / name for name in ("empty.pem", "der.crt", "folder", "gone.pem")}


@pytest.mark.parametrize(
    ("variable", "name", "words"),
    [
        ("SSL_CERT_FILE", "gone.pem", "cannot be read (No such file"),
        ("SSL_CERT_FILE", "empty.pem", "contains no certificate in PEM form"),
        ("SSL_CERT_FILE", "der.crt", "contains no certificate in PEM form"),
        ("SSL_CERT_FILE", "folder", "which"),
        ("SSL_CERT_DIR", "gone.pem", "not a folder with certificates"),
        ("SSL_CERT_DIR", "folder", "not a folder with certificates"),
    ],
)
async def test_certificates_that_cannot_be_used_are_named(
    shop: ToolBench, monkeypatch: pytest.MonkeyPatch, unfit: dict[str, Path], variable: str, name: str, words: str
) -> None:
    monkeypatch.setenv(variable, str(unfit[name]))
    failure = await shop.fails()
    assert f"{variable} is {unfit[name]}"[:200] in failure.message
    assert words in failure.message
    assert (failure.happened, failure.retryable) == ("no", False)
    with pytest.raises(Failure, match=variable):
        await asked(shop.server.url, monkeypatch)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    assert tls()


def test_bad_certificates_are_a_value_error() -> None:
    assert issubclass(BadEnvironment, ValueError)  # as the clients of models catch


# -- words -----------------------------------------------------------------------------------------------------------


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (socket.gaierror(-2, "Name or service not known"), "cannot be resolved"),
        (ConnectionRefusedError(111, "refused"), "nothing listens there"),
        (ssl.SSLCertVerificationError("bad"), "SSL_CERT_FILE"),
        (ExceptionGroup("several", [ConnectionRefusedError(111, "refused")]), "nothing listens there"),
        (ValueError("odd"), "All connection attempts failed"),
    ],
)
def test_what_a_failed_connection_means(cause: BaseException, words: str) -> None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        cause.verify_code = 20
    inner = caused(OSError("All connection attempts failed"), cause)
    assert words in why(caused(RuntimeError("All connection attempts failed"), inner))
    assert why(RuntimeError()) == "RuntimeError"
    assert why(RuntimeError("illegal header line: bytearray(b'X : y')")) == "illegal header line: X : y"


@pytest.fixture
async def no_files(shop: ToolBench) -> AsyncIterator[None]:
    """No file can be opened any more."""
    tls()
    await shop.call({})  # whatever opens files once
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_too_many_open_files_are_said(shop: ToolBench, no_files: None) -> None:
    failure = await shop.fails()
    assert "too many open files" in failure.message
    assert failure.happened == "no"


# -- the beginning of an answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}", (200, b"A: b\r\n\r\n{}")),
        (b"HTTP/1.1 200\n", (200, b"")),
        (b"\r\nHTTP/1.0 500 \x00\n", (500, b"")),
        (b"HTTP/2 204 \r\n", (204, b"")),
        (b"HTTP/1.1  404 Not Found\r\n", (404, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nL: x\r\n\r\nHTTP/1.1 201 Made\r\n", (201, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"HTTP/1.1 101 Switching Protocols\r\n", (101, b"")),
        (b"HTTP/1.1 200 OK", None),
        (b"HTTP/1.1 2000 OK\r\n", None),
        (b"SSH-2.0\r\n", None),
        (b"", None),
    ],
)
def test_a_status_line_is_an_answer(heard: bytes, found: Any) -> None:
    assert answered(heard) == found


@given(st.binary())
def test_any_bytes_are_an_answer_or_none(heard: bytes) -> None:
    found = answered(heard)
    assert found is None or found[0] >= 101


@pytest.mark.parametrize(
    ("code", "environment", "words"),
    [
        (20, {}, "name its certificate in SSL_CERT_FILE"),
        (19, {"REQUESTS_CA_BUNDLE": "/x"}, "in SSL_CERT_FILE (REQUESTS_CA_BUNDLE is not read)"),
        (18, {"CURL_CA_BUNDLE": "/x", "NODE_EXTRA_CA_CERTS": "/y"}, "(CURL_CA_BUNDLE and NODE_EXTRA_CA_CERTS are not"),
        (20, {"SSL_CERT_FILE": "/ca.pem"}, "SSL_CERT_FILE is /ca.pem, which does not contain its authority"),
        (10, {"REQUESTS_CA_BUNDLE": "/x"}, "correct the server's certificate, or the address"),  # it has expired
        (62, {}, "correct the server's certificate, or the address"),  # it is another host's
    ],
)
def test_what_to_do_about_a_certificate(
    code: int, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    error = ssl.SSLCertVerificationError("bad")
    error.verify_code = code
    assert words in why(caused(RuntimeError("All connection attempts failed"), error))
