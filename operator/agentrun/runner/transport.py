"""The way of a request to its host: directly, or through the proxy that the environment names for it.

It also keeps the beginning of each answer as it came over the wire. The HTTP library refuses an answer that breaks
HTTP's grammar as a whole; its status line says nevertheless that the call was answered, and how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from agentrun.runner.connections import BadEnvironment, Proxy, proxy_for, tls, why

KEPT = 64 * 1024
"""Bytes of an answer's beginning that are kept."""

_STATUS = re.compile(rb"\s*HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?!\d)[^\n]*\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")

_heard: ContextVar[bytearray | None] = ContextVar("heard", default=None)


def listen() -> bytearray:
    """From now on this task keeps the beginning of what it receives, here. Clear it when a new answer begins."""
    heard = bytearray()
    _heard.set(heard)
    return heard


def answered(heard: bytes | bytearray) -> tuple[int, bytes] | None:
    """The status of the answer that begins with ``heard``, and what came behind its status line.

    None: no whole status line came. Interim answers (1xx) are passed over.
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
    """A proxy could not be reached, or did not pass the request on. Its message says why, and which proxy."""

    is_explained = True


class Transport(httpx2.AsyncBaseTransport):
    """A client's ``transport``. The environment is read when it is made, certificates too.

    Raises:
        BadEnvironment: certificates cannot be used.
    """

    def __init__(self, limits: httpx2.Limits | None = None) -> None:
        self._limits = limits or httpx2.Limits(max_connections=100, max_keepalive_connections=20)
        self._tls = tls()
        self._ways: dict[str, httpx2.AsyncHTTPTransport] = {}

    def check(self, url: str) -> Proxy | None:
        """The proxy that a request to ``url`` goes through.

        Raises:
            BadEnvironment: it cannot be used.
        """
        proxy = proxy_for(url)
        if proxy is not None and (problem := proxy.problem) is not None:
            raise BadEnvironment(problem)
        return proxy

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the base class. Raises BadEnvironment, too."""
        proxy = self.check(str(request.url))
        try:
            return await self._way(proxy).handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            if proxy is None:
                raise
            raise ProxyFailed(f"{proxy.shown}: {why(error)}") from error

    def _way(self, proxy: Proxy | None) -> httpx2.AsyncHTTPTransport:
        key = "" if proxy is None else proxy.url
        if key not in self._ways:
            through = None
            if proxy is not None:
                over_tls = self._tls if proxy.url.lower().startswith("https:") else None
                try:
                    through = httpx2.Proxy(proxy.url, ssl_context=over_tls)
                except (ValueError, httpx2.InvalidURL) as error:
                    raise BadEnvironment(f"{proxy.shown} cannot be used: {error}") from error
            way = httpx2.AsyncHTTPTransport(verify=self._tls, proxy=through, limits=self._limits)
            pool = way._pool  # noqa: SLF001  (httpx2 passes on no network backend; httpcore2 takes one)
            pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001
            self._ways[key] = way
        return self._ways[key]

    async def aclose(self) -> None:
        """Close all connections."""
        for way in self._ways.values():
            await way.aclose()


class _Backend(httpcore2.AsyncNetworkBackend):
    """Makes connections that are listened to."""

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
    """A connection that shows what is read from it to the task that reads."""

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
