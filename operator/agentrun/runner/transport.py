"""Sends a request to its host: directly, or through the proxy that the environment names for it.

The transport also keeps the first bytes of each answer as they were received. The HTTP library refuses an answer with
invalid syntax as a whole, but its status line still tells that the call was answered, and how.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from typing import Any
from urllib.request import getproxies

import httpcore2
import httpx2

from agentrun.runner.connections import BadEnvironment, Proxy, proxy_for, tls, why
from agentrun.runner.guarded_network import Forbidden, GuardedNetwork
from agentrun.workflow.network_guard import forbidden_url

KEPT = 64 * 1024
"""How many of an answer's first bytes are kept."""

_STATUS = re.compile(rb"(?i)\s*HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?!\d)[^\n]*\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")

_heard: ContextVar[bytearray | None] = ContextVar("heard", default=None)


def listen() -> bytearray:
    """Start to record what this task receives, and return the buffer. Clear the buffer when a new answer begins."""
    heard = bytearray()
    _heard.set(heard)
    return heard


def answered(heard: bytes | bytearray) -> tuple[int, bytes] | None:
    """The status of the answer that begins with ``heard``, and the bytes after its status line.

    None if there is no complete status line. Interim answers (1xx) are skipped, except 101.
    """
    at = 0
    while found := _STATUS.match(heard, at):
        status = int(found[1])
        if status == 101 or status >= 200:
            return status, bytes(heard[found.end() :])
        end = _HEAD_END.search(heard, found.end() - 2)
        if end is None:
            return None
        at = end.end()
    return None


class ProxyFailed(httpx2.ProxyError):
    """A proxy could not be reached, or did not forward the request. The message says why, and which proxy."""

    is_explained = True


class Transport(httpx2.AsyncBaseTransport):
    """A client's ``transport``. It reads the certificates and the proxy variables when it is created.

    Raises:
        BadEnvironment: certificates cannot be used.
    """

    def __init__(self, limits: httpx2.Limits | None = None) -> None:
        self._limits = limits or httpx2.Limits(max_connections=100, max_keepalive_connections=20)
        self._tls = tls()
        self._proxies = getproxies()  # it goes through the whole environment, which does not change
        self._ways: dict[str, _Way] = {}

    def check(self, url: str) -> Proxy | None:
        """The proxy for a request to ``url``; None if the request goes directly.

        Raises:
            BadEnvironment: the proxy cannot be used.
        """
        proxy = proxy_for(url, self._proxies) if self._proxies else None
        if proxy is not None and (problem := proxy.problem) is not None:
            raise BadEnvironment(problem)
        return proxy

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See the base class. Also raises BadEnvironment and Forbidden.

        A proxy resolves the host of a request itself, so only a host that is written as an address can be checked.
        """
        proxy = self.check(str(request.url)) if self._proxies else None
        if proxy is not None and (why_not := forbidden_url(str(request.url))) is not None:
            raise Forbidden(why_not)
        try:
            return await self._way(proxy).handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if proxy is None:
                raise
            raise ProxyFailed(f"{proxy.shown}: {why(error)}") from error

    def _way(self, proxy: Proxy | None) -> _Way:
        key = "" if proxy is None else proxy.url
        if key not in self._ways:
            try:
                self._ways[key] = _Way(proxy, self._tls, self._limits)
            except (ValueError, httpx2.InvalidURL) as error:
                assert proxy is not None
                raise BadEnvironment(f"{proxy.shown} cannot be used: {error}") from error
        return self._ways[key]

    async def aclose(self) -> None:
        """Close all connections."""
        for way in self._ways.values():
            await way.aclose()


class _Way(httpx2.AsyncBaseTransport):
    """A pool of connections, built from httpcore2: httpx2's own transport does not accept a network backend."""

    def __init__(self, proxy: Proxy | None, tls: ssl.SSLContext, limits: httpx2.Limits) -> None:
        shared: dict[str, Any] = {
            "ssl_context": tls,
            "max_connections": limits.max_connections,
            "max_keepalive_connections": limits.max_keepalive_connections,
            "keepalive_expiry": limits.keepalive_expiry,
        }
        network = httpcore2.AnyIOBackend()
        self._pool: httpcore2.AsyncConnectionPool
        if proxy is None:
            self._pool = httpcore2.AsyncConnectionPool(network_backend=_Backend(GuardedNetwork(network)), **shared)
            return
        # Whoever set the variable chose the proxy's address: it is nothing that a workflow or a name server says.
        shared["network_backend"] = _Backend(network)
        named = httpx2.Proxy(proxy.url)
        address, auth = _core(named.url), named.raw_auth
        if named.url.scheme.startswith("socks"):
            self._pool = httpcore2.AsyncSOCKSProxy(proxy_url=address, proxy_auth=auth, **shared)
        else:
            over_tls = tls if named.url.scheme == "https" else None
            self._pool = httpcore2.AsyncHTTPProxy(
                proxy_url=address, proxy_auth=auth, proxy_ssl_context=over_tls, **shared
            )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = httpcore2.Request(
            method=request.method,
            url=_core(request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            answer = await self._pool.handle_async_request(sent)
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error
        return httpx2.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def _core(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _as_httpx2(error: Exception) -> httpx2.TransportError:
    """The exception of httpx2 for one of httpcore2."""
    return next(_MEANT[kind] for kind in type(error).__mro__ if kind in _MEANT)(str(error))


_MEANT: dict[type[Exception], type[httpx2.TransportError]] = {
    getattr(httpcore2, kind.__name__): kind
    for kind in (
        httpx2.ConnectTimeout,
        httpx2.ReadTimeout,
        httpx2.WriteTimeout,
        httpx2.PoolTimeout,
        httpx2.ConnectError,
        httpx2.ReadError,
        httpx2.WriteError,
        httpx2.ProxyError,
        httpx2.UnsupportedProtocol,
        httpx2.LocalProtocolError,
        httpx2.RemoteProtocolError,
        httpx2.TimeoutException,
        httpx2.NetworkError,
        httpx2.ProtocolError,
    )
}
_CORE_ERRORS = tuple(_MEANT)


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, streamed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                yield part
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error

    async def aclose(self) -> None:
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()


class _Backend(httpcore2.AsyncNetworkBackend):
    """Makes connections whose received bytes are recorded."""

    def __init__(self, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (the base class has it)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that records what it receives in the buffer of the reading task (``listen``)."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._inner.read(max_bytes, timeout)
        heard = _heard.get()
        if heard is not None and len(heard) < KEPT:
            heard += data[: KEPT - len(heard)]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
