"""Calls an ``http`` tool: one request, or for effects that allow it a few, and an honest word on what is known.

Whether a failed call may have been carried out is told from the request itself: until its first byte is handed to
the network nothing can have happened, from then on anything can.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agentrun import __version__
from agentrun.api.values import JSON, seconds
from agentrun.api.workflow import Effect, FailureClass, Tool
from agentrun.plan.http import compile_http
from agentrun.runner.connections import tls
from agentrun.runner.failures import Failure, Happened, plain
from agentrun.runner.http_request import Prepared, Refused, prepare
from agentrun.runner.http_response import Response, ToolOutput, phrase, refusal, understand
from agentrun.runner.retrying import Clock, Sleep, retry_after, with_retries
from agentrun.runner.secrets import SHORTEST_SECRET, MissingSecret, Secrets, read_secret
from agentrun.runner.untrusted import TooLarge, Undecodable, read_body

if TYPE_CHECKING:
    import httpx2

__all__ = ["HttpTool", "ToolOutput"]


class HttpTool:
    """One tool. Nothing is imported or opened before the first call. Tasks may share it."""

    def __init__(self, tool: Tool, secret: Secrets, *, sleep: Sleep = asyncio.sleep, now: Clock = time.time) -> None:
        self._tool = tool
        self._http = tool.http
        self._compiled = compile_http(tool.http)
        self._secret = secret
        self._sleep = sleep
        self._now = now
        self._opened: httpx2.AsyncClient | None = None

    async def call(
        self,
        args: dict[str, JSON],
        about: Mapping[str, JSON] | None = None,
        *,
        idempotency_key: str | None = None,
        timeout: float = float("inf"),  # noqa: ASYNC109  (bounds each try; the caller bounds the whole)
        before_send: Callable[[], None] | None = None,
    ) -> ToolOutput:
        """Call the tool with ``args``, which fit its parameters; ``about`` holds ``inputs`` and ``run``.

        A ReadOnly or Idempotent tool is tried up to three times; a ``Once`` tool exactly once, on a connection of
        its own. The idempotency key is sent for all but ReadOnly tools. Each try is bounded by the tool's timeout
        and ``timeout``, in seconds. ``before_send`` is asked when the connection stands and nothing of the request has
        been sent; what it raises ends the call. Cancellation closes the connection; the call may have been carried out.

        Raises:
            Failure: of class Tool: there was no answer (408, 429, 5xx, no connection), or a Secret is missing.
                Its ``happened`` says whether the call may have been carried out.
        """
        variables: dict[str, JSON] = {**(about or {}), "args": args}
        try:
            request = prepare(self._http, self._compiled, variables)
        except Refused as error:
            return refusal(str(error))
        limit = min(seconds(self._http.timeout), timeout)
        key = None if self._tool.effect is Effect.READ_ONLY else idempotency_key

        async def once() -> ToolOutput:
            return await self._once(request, variables, key, limit, before_send)

        return await once() if self._tool.effect is Effect.ONCE else await with_retries(once, self._sleep)

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _once(
        self,
        request: Prepared,
        variables: Mapping[str, JSON],
        key: str | None,
        limit: float,
        before_send: Callable[[], None] | None,
    ) -> ToolOutput:
        import httpx2  # noqa: PLC0415  (lazy: only who calls a tool pays for it)

        token = self._token()
        headers = {**request.headers, "Accept-Encoding": "gzip"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key else {}
        sent: Happened = "no"

        async def trace(event: str, info: dict[str, Any]) -> None:
            # The request to a proxy to open a tunnel is not yet ours.
            nonlocal sent
            if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
                if before_send is not None:
                    before_send()
                sent = "unknown"

        try:  # before the clock runs: reading certificates is nothing that the other side did
            client = self._client()
        except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
            raise self._failure(f"certificates or proxy of the environment cannot be used: {error}", "no") from error
        try:
            # httpx2's own timeouts are per read: a server that drips would never meet one of them.
            async with (
                asyncio.timeout(limit),
                client.stream(
                    request.method, request.url, headers=headers, content=request.content, extensions={"trace": trace}
                ) as answer,
            ):
                encoding = answer.headers.get("content-encoding", "")
                problem, content = None, b""
                try:
                    content = await read_body(answer.aiter_raw(), encoding, self._http.max_bytes)
                except TooLarge:
                    problem = f"its body is larger than the tool's maxBytes, {self._http.max_bytes}"
                except Undecodable as error:
                    problem = f"its body {error}"
        except TimeoutError as error:
            raise self._failure(f"no answer within {limit:g} s", sent) from error
        except httpx2.InvalidURL as error:
            return refusal(f"the request has no valid URL: {plain(str(error), 200)}")
        except httpx2.TransportError as error:
            reason = _hidden(token, str(error)) or type(error).__name__
            words = "the connection failed" if sent == "no" else "the connection was lost after the request was sent"
            raise self._failure(f"{words}: {reason}", sent) from error
        response = _without(token, answer, content)
        if (failure := self._no_answer(response)) is not None:
            raise failure
        if problem is not None:
            return refusal(f"the call was answered with HTTP {phrase(response.status)}, but {problem}", response.status)
        return understand(response, self._compiled, variables)

    def _no_answer(self, response: Response) -> Failure | None:
        """The Failure that a status stands for which says nothing about the call itself."""
        status = response.status
        if status not in (408, 429) and status < 500:
            return None
        said = plain(response.content[:1000].decode(errors="replace"), 300)
        happened: Happened = "no" if status == 429 else "unknown"
        pause = retry_after(response.headers, self._now)
        return self._failure(f"HTTP {phrase(status)}" + (f": {said}" if said else ""), happened, pause)

    def _failure(self, words: str, happened: Happened, pause: float | None = None) -> Failure:
        host = self._http.url.split("/")[2]
        message = f"tool {self._tool.name} ({self._http.method} {host}): {words}"
        return Failure(FailureClass.TOOL, message, retryable=True, retry_after=pause, happened=happened)

    def _token(self) -> str | None:
        """The bearer token, read for each call anew: Secrets are rotated while steps run."""
        if self._http.auth is None:
            return None
        try:
            return read_secret(self._secret, self._http.auth.bearer.secret_ref)
        except MissingSecret as error:
            message = f"tool {self._tool.name}: {error}"
            raise Failure(FailureClass.TOOL, message, retryable=False, happened="no") from error

    def _client(self) -> httpx2.AsyncClient:
        if self._opened is None:
            import httpx2  # noqa: PLC0415

            # A kept connection may be closed by the server just as we write to it, and then nobody knows whether the
            # request was seen. For Once that would wait for a person, so each of its calls has a fresh connection.
            kept = 0 if self._tool.effect is Effect.ONCE else None
            self._opened = httpx2.AsyncClient(
                verify=tls(),
                timeout=None,  # asyncio.timeout bounds the whole
                follow_redirects=False,
                limits=httpx2.Limits(max_keepalive_connections=kept),
                # Proxies and certificate authorities of the environment, as companies set them; httpx2 reads no netrc.
                trust_env=True,
                # A cookie of one call would be missing after a resume, so none is kept.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                headers={"User-Agent": f"agentrun/{__version__}"},
            )
        return self._opened


def _hidden(token: str | None, text: str) -> str:
    return text if token is None or len(token) < SHORTEST_SECRET else _forms(token).sub("***", text)


def _forms(token: str) -> re.Pattern[str]:
    r"""``token`` as it stands, as JSON may escape it (``\/``, ``\u002B``), and as a URL does."""
    escaped = {c: f"\\\\{re.escape(c)}|" if c in '/"\\' else "" for c in set(token)}
    each = (f"(?:{re.escape(c)}|{escaped[c]}\\\\u00(?i:{ord(c):02x})|%(?i:{ord(c):02x}))" for c in token)
    return re.compile("".join(each))


def _without(token: str | None, answer: httpx2.Response, content: bytes) -> Response:
    """The response, without the token where a server echoes what it was sent: models and journals read on."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if token is not None and len(token) >= SHORTEST_SECRET:
        content = _forms(token).sub("***", content.decode("latin-1")).encode("latin-1")
        headers = {name: _hidden(token, value) for name, value in headers.items()}
    return Response(answer.status_code, headers, content)
