"""Serves ``/healthz``, ``/readyz`` and ``/metrics`` over HTTP, from a daemon thread with an event loop of its own.

The operator's loop may be busy for seconds, and its probes must be answered even then. So nothing here waits for it.
Clients cannot do harm either. A connection carries one request and may last ``DEADLINE`` seconds. Beyond
``CONNECTIONS_MAX`` connections the oldest is dropped for the newest, so that idle ones cannot keep the kubelet out.
(aiohttp's server has no deadline for the head of a request and no bound on connections.) A client that goes away, at
whatever moment, leaves no line in the log. There is no authentication, and no page holds a secret. The chart's
NetworkPolicy, or a separate address for the metrics, limits who may read them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self

from agentrun.api.errors import AgentrunError
from agentrun.api.texts import quoted
from agentrun.observe.health import Health
from agentrun.observe.metrics import Metrics

DEFAULT_LISTEN = ":8080"
DEADLINE = 10.0
"""Seconds that a connection may last."""
CONNECTIONS_MAX = 64
HEAD_MAX = 16 * 1024
"""The largest request, in bytes: the request line and the headers."""

TEXT = "text/plain; charset=utf-8"

log = logging.getLogger("agentrun.observe")


class Address(NamedTuple):
    """Where to listen. An empty host means every address of the machine, in IPv4 and in IPv6 if it has both."""

    host: str
    port: int


class CannotListen(AgentrunError):
    """The address is not valid, or the server cannot listen on it."""


def listen_address(text: str, name: str = "AGENTRUN_LISTEN") -> Address | None:
    """The address in the variable ``name``: ``host:port``, ``[v6]:port`` or ``:port``; None for "" and ``off``.

    Raises:
        CannotListen: the text is no address.
    """
    text = text.strip()
    if text in {"", "off"}:
        return None
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    good = port.isascii() and port.isdigit() and int(port[:6]) <= 65535
    if not colon or not good or (":" in host and not bracketed):
        raise CannotListen(f"{name} is {quoted(text)}; write host:port, [IPv6]:port, :port, or off")
    return Address(host[1:-1] if bracketed else host, int(port))


class Answer(NamedTuple):
    """A response."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    headers: tuple[str, ...] = ()


class Server:
    """A context manager that serves within its block. After the block the thread has ended.

    Without ``health`` it has no probes, without ``metrics`` no metrics.
    """

    def __init__(
        self, address: Address, health: Health | None, metrics: Metrics | None, *, deadline: float = DEADLINE
    ) -> None:
        """Bind at once, so that the start of the operator fails if the port is taken.

        Raises:
            CannotListen: the address is in use, or does not belong to this machine.
        """
        self._health, self._metrics, self._deadline = health, metrics, deadline
        try:
            self._socket = _bind(address)
        except OSError as error:
            where = f"{address.host}:{address.port}"
            variable = "AGENTRUN_LISTEN" if health is not None else "AGENTRUN_METRICS_LISTEN"
            raise CannotListen(f"cannot listen on {where}: {error}; set {variable} to another address") from error
        self.port: int = self._socket.getsockname()[1]
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._up = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        if self._loop is None:
            raise CannotListen("the server for probes and metrics did not start; the log says why")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._up.set()  # else ``__enter__`` would wait for ever after a failed start

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._connected, sock=self._socket, limit=HEAD_MAX) as server:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(_note)
            self._up.set()
            await self._stop.wait()
            server.close()  # first, so that no new connection comes in meanwhile
            for writer in self._open.values():
                writer.transport.abort()
            if self._open:
                await asyncio.wait(self._open)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS_MAX:
            self._open.pop(next(iter(self._open))).transport.abort()
        self._open[task] = writer
        try:
            async with asyncio.timeout(self._deadline):
                await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client is gone (which shows as any of a dozen errors), or too slow
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            head = b""
            answer = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the request is too long\n")
        else:
            answer = self._answer(head)
        body = b"" if head.startswith(b"HEAD ") else answer.body
        headers = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            *answer.headers,
            "Cache-Control: no-store",
            "Connection: close",
        )
        writer.write("\r\n".join((*headers, "", "")).encode("ascii") + body)
        await writer.drain()
        # Let the client close. If this side closed first with something unread, such as a body, that would reset the
        # connection, and the client could lose an answer that it has not read yet.
        writer.write_eof()
        while await reader.read(HEAD_MAX):
            pass
        writer.close()  # flushes first: a client may have closed its own side at once
        await writer.wait_closed()

    def _answer(self, head: bytes) -> Answer:
        """The response to a request with this line and these headers (RFC 9112). A body is refused, not read."""
        line, *fields = head.decode("latin-1").split("\r\n")
        match line.split(" "):
            case [method, target, version] if version.startswith("HTTP/1."):
                pass
            case _:
                return Answer(HTTPStatus.BAD_REQUEST, b"this is not HTTP/1.1\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if method != "GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n", headers=("Allow: GET",))
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"no request body, please\n")
        return self._page(target.partition("?")[0], headers)

    def _page(self, path: str, headers: Mapping[str, str]) -> Answer:
        health, metrics = self._health, self._metrics
        if path == "/healthz" and health is not None:
            return _probe(health.live())
        if path == "/readyz" and health is not None:
            return _probe(health.ready())
        if path == "/metrics" and metrics is not None:
            return Answer(HTTPStatus.OK, *metrics.render(headers.get("accept", "")))
        there = ["/healthz", "/readyz"] * (health is not None) + ["/metrics"] * (metrics is not None)
        return Answer(HTTPStatus.NOT_FOUND, f"available here: {', '.join(there)}\n".encode())


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Replace asyncio's tracebacks: log nothing if a client is gone, and one line if there are no file handles left."""
    error = context.get("exception")
    if not isinstance(error, OSError):
        loop.default_exception_handler(context)
    elif "accept" in str(context.get("message")):
        log.warning("a probe or a scrape could not be accepted: %s", error)


def _probe(problem: str | None) -> Answer:
    if problem is None:
        return Answer(HTTPStatus.OK, b"ok\n")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{problem}\n".encode())


def _bind(address: Address) -> socket.socket:
    """A listening socket. Without a host it takes IPv4, and IPv6 too if the machine has both."""
    if not address.host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", address.port))
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return socket.create_server(place[:2], family=family)
