"""A reverse proxy before the API server or the store, which can disturb every call of the operator.

The operator speaks plain HTTP to it, so it runs unchanged. A ``Rule`` sees each call twice: before it is passed on, and
after the upstream has carried it out. Each time the rule can wait, drop the connection (``Lost``), or answer in the
upstream's place.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

Side = Literal["before", "after"]

_HOP_BY_HOP: Final = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive"}


@dataclass(frozen=True)
class Call:
    """A request: what it is about, and its number among this proxy's requests that are about the same."""

    method: str
    what: str
    number: int
    path: str = ""

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"

    @property
    def watches(self) -> bool:
        """Whether its response is a stream of events."""
        return self.what.startswith("watch ")

    def __str__(self) -> str:
        return f"{self.what} #{self.number}"


class Lost(Exception):
    """Raised by a rule: the connection ends without a response."""


@dataclass(frozen=True)
class Answer:
    """A response that the proxy sends in the upstream's place."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Rule = Callable[[Call, Side], Awaitable[Answer | None]]


async def nothing(_: Call, __: Side) -> Answer | None:
    """The rule that passes everything on."""
    return None


def refusal(status: int, reason: str, *, retry_after: int | None = None) -> Answer:
    """An error response in the API server's form."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "made up"}
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Answer(status, headers, json.dumps(body | {"code": status}).encode())


EXPIRED: Final = b'{"type":"ERROR","object":{"kind":"Status","status":"Failure","reason":"Expired","code":410}}\n'
"""The watch event for a resourceVersion that is too old to continue from."""


class Proxy:
    """The proxy to ``upstream``. It listens on the loopback interface, and belongs to the event loop that opened it.

    ``name`` maps a request's method and target to what it is about. ``calls`` has every call in order. A watch is cut
    off after ``watch_seconds``; ``last_word`` is sent before.
    """

    def __init__(self, upstream: str, name: Callable[[str, str], str], *, trust: ssl.SSLContext | None = None) -> None:
        self.rule: Rule = nothing
        self.watch_seconds: float | None = None
        self.last_word = b""
        self.calls: list[Call] = []
        self._upstream, self._name = upstream, name
        self._trust: ssl.SSLContext | bool = True if trust is None else trust
        self._counts: Counter[str] = Counter()
        self._serving: set[asyncio.Task[web.StreamResponse]] = set()

    async def open(self) -> str:
        """Start listening, and return the base URL."""
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=0),
        )
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening, and end the open connections."""
        serving = list(self._serving)
        for task in serving:
            task.cancel()  # otherwise the watch of a client that is gone would continue
        await asyncio.gather(*serving, return_exceptions=True)
        await self._runner.cleanup()
        await self._session.close()
        await asyncio.sleep(0)  # the transports close in the loop's next turn: aiohttp's "Graceful shutdown"

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        # In its own task: a request is passed on even if its client dies.
        task = asyncio.create_task(self._handle(request))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return await task

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionError as error:  # the client was killed as it wrote
            return web.Response(status=502, text=str(error))
        what = self._name(request.method, request.raw_path)
        self._counts[what] += 1
        call = Call(request.method, what, self._counts[what], request.raw_path)
        self.calls.append(call)
        try:
            found = await self.rule(call, "before")
            return await (self._pass_on(request, body, call) if found is None else _answer(request, found))
        except Lost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)  # nobody reads it
        except (ConnectionError, aiohttp.ClientError) as error:  # the client or the upstream is gone
            return web.Response(status=502, text=str(error))

    async def _pass_on(self, request: web.BaseRequest, body: bytes, call: Call) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as got:
            if call.watches and got.status == 200:
                await self.rule(call, "after")
                return await self._stream(request, got)
            whole = await got.read()
            kept = {k: v for k, v in got.headers.items() if k.lower() not in _HOP_BY_HOP}
            found = await self.rule(call, "after")
            return await _answer(request, found or Answer(got.status, kept, whole))

    async def _stream(self, request: web.BaseRequest, got: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(TimeoutError, aiohttp.ClientPayloadError):
            async with asyncio.timeout(self.watch_seconds):
                async for line in got.content:
                    await response.write(line)
                await response.write_eof()
                return response
        if self.last_word:
            await response.write(self.last_word)
            await response.write_eof()
            return response
        raise Lost


async def _answer(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    await response.prepare(request)
    await response.write_eof()
    return response


def of_kubernetes(method: str, target: str) -> str:
    """What a request to the API server is about: ``create pods``, ``watch agentruns``, ``patch agentruns/status``."""
    url = urlsplit(target)
    parts = url.path.strip("/").split("/")
    at = {"api": 2, "apis": 3}.get(parts[0], 0)
    if len(parts) <= at:
        return f"get {url.path}"
    if parts[at] == "namespaces" and len(parts) > at + 2:
        at += 2
    resource, name, sub = [*parts[at:], "", ""][:3]
    verb = method.lower()
    if method == "POST":
        verb = "create"
    elif method == "DELETE" and not name:
        verb = "deletecollection"
    elif method == "GET" and not name:
        verb = "watch" if "watch" in parse_qs(url.query) else "list"
    return f"{verb} {resource}{f'/{sub}' if sub else ''}"


def of_store(method: str, target: str) -> str:
    """What a request to the store is about: ``put events/``, ``get run.json``, ``list steps/refund/``."""
    url = urlsplit(target)
    prefix = parse_qs(url.query).get("prefix")
    key = prefix[0] if prefix else url.path.strip("/").partition("/")[2]
    # [PREFIX/]NAMESPACE/NAME-UID/WHAT, where WHAT is the same in every run
    found = re.search("-[0-9a-f]{32}/(.*)", key)
    what = found[1] if found else "probe"
    return f"{'list' if prefix else method.lower()} store {what}"
