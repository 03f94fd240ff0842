"""Calls an ``http`` tool: one request, or a few if the tool's effect allows it.

The request itself tells whether a failed call may have been carried out: before its first byte is handed to the
network, the call surely was not; from then on, it may have been.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agentrun import __version__
from agentrun.api.tools import Effect, Tool
from agentrun.api.values import JSON, seconds
from agentrun.api.workflow import FailureClass
from agentrun.runner.bounded_body import TooLarge, Undecodable, read_body
from agentrun.runner.charsets import declared, decoded
from agentrun.runner.connections import BadEnvironment, why
from agentrun.runner.failures import Failure, Happened, plain
from agentrun.runner.http_body import Refused
from agentrun.runner.http_request import Prepared, prepare
from agentrun.runner.http_response import Response, carried_out, phrase, refusal, understand
from agentrun.runner.masking import Mask
from agentrun.runner.retries import Clock, Sleep, retry_after, with_retries
from agentrun.runner.secrets import MissingSecret, Secrets, read_secret
from agentrun.runner.tool_client import ToolOutput
from agentrun.workflow.http import compile_http, media_type

if TYPE_CHECKING:
    import httpx2

    from agentrun.runner.transport import Transport


class HttpTool:
    """One tool. It imports and opens nothing before the first call. Tasks may share it."""

    def __init__(self, tool: Tool, secret: Secrets, *, sleep: Sleep = asyncio.sleep, now: Clock = time.time) -> None:
        self._tool = tool
        self._http = tool.http
        self._compiled = compile_http(tool.http)
        self._secret = secret
        self._sleep = sleep
        self._now = now
        self._opened: httpx2.AsyncClient | None = None
        self._transport: Transport

    async def call(
        self,
        args: dict[str, JSON],
        about: Mapping[str, JSON] | None = None,
        *,
        idempotency_key: str | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> ToolOutput:
        """Call the tool with ``args``, which fit its parameters; ``about`` holds ``inputs`` and ``run``.

        A ReadOnly or Idempotent tool is tried up to three times; a ``Once`` tool exactly once, on a new connection.
        The idempotency key is sent for all but ReadOnly tools. The tool's timeout limits each try; the caller limits
        the whole call. ``before_send`` is called when the connection is open and nothing of the request has been sent;
        an exception that it raises ends the call. Cancellation closes the connection; the call may have been carried
        out.

        Raises:
            Failure: of class Tool: there was no answer (408, 429, 5xx, 302 to a ``Once`` call, no connection), the
                answer to a ReadOnly or Idempotent call did not arrive whole, a Secret is missing, or a proxy or
                certificate of the environment cannot be used. Its ``happened`` says whether the call may have been
                carried out.
        """
        variables: dict[str, JSON] = {**(about or {}), "args": args}
        try:
            request = prepare(self._http, self._compiled, variables)
        except Refused as error:
            return refusal(str(error))
        limit = seconds(self._http.timeout)
        key = None if self._tool.effect is Effect.READ_ONLY else idempotency_key

        async def once() -> ToolOutput:
            return await self._once(request, variables, key, limit, before_send)

        try:
            return await (once() if self._tool.effect is Effect.ONCE else self._repeated(once))
        except Refused as error:
            return refusal(str(error))

    async def _repeated(self, once: Callable[[], Awaitable[ToolOutput]]) -> ToolOutput:
        """Up to three tries. If one of them was carried out, the result says so, however the last try ends."""
        kept: dict[str, JSON] | None = None

        async def watched() -> ToolOutput:
            nonlocal kept
            try:
                return await once()
            except Failure as failure:
                kept = failure.kept or kept
                raise

        try:
            output = await with_retries(watched, self._sleep)
        except Failure as failure:
            if kept is not None:
                failure.happened, failure.kept = "yes", kept
            raise
        return replace(output, kept=output.kept or kept) if output.is_error else output

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
        token = self._token()
        mask = Mask([token] if token else [])
        response = await self._exchange(request, token, mask, key, limit, before_send)
        if (failure := self._no_answer(response, mask)) is not None:
            raise failure
        if response.passing and carried_out(response.status) and self._tool.effect is not Effect.ONCE:
            output = understand(response, self._compiled, variables, mask)
            words = output.text.partition("\n")[0]
            if self._tool.effect is Effect.READ_ONLY:
                raise self._failure(words, "unknown")
            raise self._failure(words, "yes", kept=output.kept)
        return understand(response, self._compiled, variables, mask)

    async def _exchange(
        self,
        request: Prepared,
        token: str | None,
        mask: Mask,
        key: str | None,
        limit: float,
        before_send: Callable[[], None] | None,
    ) -> Response:
        """The response, as far as it arrived. Once its status line is there, the call counts as answered.

        Raises:
            Failure: no status line arrived.
            Refused: the request has no valid URL, or its host is forbidden.
        """
        import httpx2  # noqa: PLC0415  (lazy: only a process that calls a tool needs it)

        from agentrun.runner.guarded_network import Forbidden  # noqa: PLC0415
        from agentrun.runner.transport import listen  # noqa: PLC0415

        headers = {**request.headers, "Accept-Encoding": "gzip"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key else {}
        sent: Happened = "no"
        heard, body = listen(), bytearray()
        answer: httpx2.Response | None = None

        async def trace(event: str, info: dict[str, Any]) -> None:
            # The CONNECT that asks a proxy for a tunnel is not the tool's request.
            nonlocal sent
            if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
                heard.clear()
                if before_send is not None:
                    before_send()
                sent = "unknown"

        try:  # outside the timeout, which is for the other side: certificates may be read here
            client = self._client()
            proxy = self._transport.check(request.url)
        except BadEnvironment as error:
            raise self._failure(str(error), "no", retryable=False) from error
        through = "" if proxy is None else f" through {proxy.shown}"
        try:
            # httpx2's own timeouts apply to each read: a server that sends byte by byte would never reach one.
            async with (
                asyncio.timeout(limit),
                client.stream(
                    request.method, request.url, headers=headers, content=request.content, extensions={"trace": trace}
                ) as answer,
            ):
                # Not ``aiter_raw``, which adds three layers to the stream and nothing that is needed here.
                assert isinstance(answer.stream, httpx2.AsyncByteStream)
                await read_body(answer.stream, answer.headers.get("content-encoding", ""), self._http.max_bytes, body)
            return self._response(answer, heard, body)
        except TooLarge:
            return self._response(
                answer, heard, body, f"its body is larger than the tool's maxBytes, {self._http.max_bytes}"
            )
        except Undecodable as error:
            return self._response(answer, heard, body, f"its body {error}")
        except TimeoutError as error:
            if sent != "no" and self._is_answered(answer, heard):
                return self._response(answer, heard, body, f"its body did not come within {limit:g} s", passing=True)
            raise self._failure(f"no answer within {limit:g} s{through}", sent) from error
        except httpx2.InvalidURL as error:
            raise Refused(f"the request has no valid URL: {plain(str(error), 200)}") from error
        except Forbidden as error:
            raise Refused(str(error)) from error
        except httpx2.TransportError as error:
            reason = plain(mask.text(why(error)), 300)
            if sent != "no" and self._is_answered(answer, heard):
                return self._response(answer, heard, body, f"it cannot be read to its end: {reason}", passing=True)
            words = "the connection failed" if sent == "no" else "the connection was lost after the request was sent"
            raise self._failure(f"{words}: {reason}", sent) from error

    @staticmethod
    def _is_answered(answer: httpx2.Response | None, heard: bytearray) -> bool:
        from agentrun.runner.transport import answered  # noqa: PLC0415

        return answer is not None or answered(heard) is not None

    @staticmethod
    def _response(
        answer: httpx2.Response | None, heard: bytearray, body: bytearray, problem: str = "", *, passing: bool = False
    ) -> Response:
        """What is known of an answer. If httpx2 refused it as invalid HTTP, it is read from the received bytes."""
        from agentrun.runner.transport import answered  # noqa: PLC0415

        if answer is not None:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status_code, headers, bytes(body), problem, passing)
        found = answered(heard)
        assert found is not None
        return Response(found[0], {}, found[1], problem, passing)

    def _no_answer(self, response: Response, mask: Mask) -> Failure | None:
        """The Failure for a status that does not answer the call; None if the status is an answer."""
        status = response.status
        said = ""
        if status == HTTPStatus.FOUND and self._tool.effect is Effect.ONCE:
            target = mask.text(plain(response.headers.get("location", ""), 200))
            words = (
                f"HTTP {phrase(status)} to {target or 'nowhere'}, which does not say whether the call was carried out"
            )
            return self._failure(words, "unknown", retryable=False)
        if status not in (408, 429) and 200 <= status < 500:
            return None
        if response.content:
            content_type = response.headers.get("content-type", "")
            text, _ = decoded(response.content[:4000], declared(content_type), media_type(content_type))
            said = plain(mask.text(text), 300)
        happened: Happened = "no" if status == 429 else "unknown"
        pause = retry_after(response.headers, self._now)
        words = f"HTTP {phrase(status)}" + (f": {said}" if said else "")
        return self._failure(words, happened, pause=pause)

    def _failure(
        self,
        words: str,
        happened: Happened,
        *,
        retryable: bool = True,
        pause: float | None = None,
        kept: dict[str, JSON] | None = None,
    ) -> Failure:
        host = self._http.url.split("/")[2]
        message = f"tool {self._tool.name} ({self._http.method} {host}): {words}"
        return Failure(FailureClass.TOOL, message, retryable=retryable, retry_after=pause, happened=happened, kept=kept)

    def _token(self) -> str | None:
        """The bearer token. It is read for each try, because Secrets are rotated while steps run."""
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

            from agentrun.runner.transport import Transport  # noqa: PLC0415

            # The server may close a kept connection while the request is written, and then it is not known whether the
            # request was seen. A Once call would wait for a person, so each has a new connection.
            kept = 0 if self._tool.effect is Effect.ONCE else None
            # It uses the proxies and certificate authorities that the environment names.
            self._transport = Transport(httpx2.Limits(max_keepalive_connections=kept))
            self._opened = httpx2.AsyncClient(
                transport=self._transport,
                timeout=None,  # asyncio.timeout limits the whole try
                follow_redirects=False,
                # A cookie from an earlier call would be missing after a resume, so no cookie is kept.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                headers={"User-Agent": f"agentrun/{__version__}"},
            )
        return self._opened
