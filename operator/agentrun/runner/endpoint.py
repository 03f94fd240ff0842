"""One HTTP endpoint of a model API: sends a body, hands back parsed JSON, and turns what goes wrong into Failures.

``AsyncOpenAI`` is used for what it does well (authentication, addresses, environment, connections), through its
``post``: the typed ``responses.create`` would walk the whole history on the way out and build models that drop what
they do not know on the way back, and the history has to stay as it came.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agentrun.api.workflow import FailureClass, Model
from agentrun.runner.connections import tls
from agentrun.runner.failures import ContextOverflow, Failure, plain
from agentrun.runner.retrying import Clock, Sleep, retry_after, with_retries
from agentrun.runner.secrets import SHORTEST_SECRET, MissingSecret, Secrets, header_value, read_secret
from agentrun.runner.untrusted import TooLarge, Undecodable, parse_json, read_body

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of one answer, decompressed; a turn is a few kilobytes, with images in it a few megabytes."""

CONNECT_TIMEOUT = 10.0

_OVERFLOW = re.compile(r"context[_ ](length|window)|maximum context|(prompt|input) is too long", re.IGNORECASE)
_TRANSIENT_CODES = frozenset({"server_error", "internal_error", "overloaded", "timeout", "vector_store_timeout"})

T = TypeVar("T")


class Malformed(Exception):
    """An answer has not the shape that the API promises; the message says what is missing."""


class Rejected(Failure):
    """The API refused the request itself (400, 422): what it said is in ``reason``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(FailureClass.PROVIDER, message, retryable=False)
        self.reason = reason


KEY_VARIABLE = "OPENAI_API_KEY"


class Endpoint:
    """The connection to one model. Cancellation of :meth:`post` closes the connection of the call in hand."""

    def __init__(self, model: Model, secret: Secrets, *, sleep: Sleep, now: Clock) -> None:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415  (a second of imports, paid only by who asks a model)

        self.model = model.model
        self._name = model.name
        self._sleep = sleep
        self._now = now
        if model.credentials is None:
            self._key_from = f"the environment variable {KEY_VARIABLE}"
        else:
            ref = model.credentials.secret_ref
            self._key_from = f"key {ref.key} of Secret {ref.name}"
        try:
            key = self._key(secret, model)
            self._client = openai.AsyncOpenAI(
                api_key=key,
                base_url=model.endpoint,
                max_retries=0,  # ours are in with_retries: counted, bounded and visible
                http_client=openai.DefaultAsyncHttpxClient(
                    event_hooks={"response": [self._bound]},
                    # A redirect would take the key and the history to a host that nobody allowed.
                    follow_redirects=False,
                    verify=tls(),
                    headers={"Accept-Encoding": "gzip"},
                ),
            )
        except (MissingSecret, openai.OpenAIError, OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
            raise self._no_key(error) from error  # certificates and proxies of the environment are read here too
        self._where = _shown(str(self._client.base_url))

    @staticmethod
    def _key(secret: Secrets, model: Model) -> str | None:
        """The key that requests carry; None: openai says that there is none."""
        if model.credentials is not None:
            return read_secret(secret, model.credentials.secret_ref)
        key = os.environ.get(KEY_VARIABLE, "")
        return header_value(key, KEY_VARIABLE) if key else None

    async def post(self, path: str, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        """What ``read`` makes of the answer, which it may refuse by raising ``Malformed``.

        ``limit`` bounds each try, in seconds.

        Raises:
            Failure: as ``ModelClient.ask`` says.
        """
        return await with_retries(lambda: self._once(path, body, limit, read), self._sleep)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _once(self, path: str, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        try:
            # httpx2's timeouts are per read: a server that drips would never meet one of them.
            async with asyncio.timeout(limit):
                response = await self._client.post(
                    path,
                    cast_to=httpx2.Response,
                    body=body,
                    options={"timeout": httpx2.Timeout(limit, connect=min(limit, CONNECT_TIMEOUT))},
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            raise self._transient(f"no answer within {limit:g} s") from error
        except openai.APIConnectionError as error:
            cause = str(error.__cause__ or error) or type(error.__cause__).__name__
            raise self._transient(f"the connection failed: {cause}; check endpoint, and that it is up") from error
        except openai.APIStatusError as error:
            raise self._refused(error.response) from error
        except openai.OpenAIError as error:
            raise self._final(f"the openai client gave up: {error}") from error
        try:
            answer = parse_json(response.content.decode())
        except ValueError as error:
            raise self._transient(f"a malformed answer: it is not JSON: {error}") from error
        if not isinstance(answer, dict):
            raise self._transient("a malformed answer: it is not a JSON object")
        if answer.get("error"):
            raise self._failed(answer["error"])
        try:
            return read(answer)
        except Malformed as error:
            raise self._transient(f"a malformed answer: {error}") from error

    async def _bound(self, response: httpx2.Response) -> None:
        """Put a body of at most MAX_ANSWER in place of one that could go on for ever."""
        import httpx2  # noqa: PLC0415

        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            return
        try:
            body = await read_body(stream, response.headers.get("content-encoding", ""), MAX_ANSWER)
        except TooLarge as error:
            raise self._final(f"the answer is larger than {MAX_ANSWER} bytes") from error
        except Undecodable as error:
            raise self._transient(f"the answer {error}") from error
        finally:
            await stream.aclose()
        response.headers.pop("content-encoding", None)
        response.encoding = "utf-8"  # not one that the sender chooses: rot13 and idna are none of text
        response.stream = httpx2.ByteStream(body)

    def _refused(self, response: httpx2.Response) -> Failure:
        """The Failure for an answer that is not 2xx."""
        status = response.status_code
        request_id = response.headers.get("x-request-id", "")
        said, code = _error_in(response.text, self._hidden)
        about = f"{status} {response.reason_phrase}".strip() + (f", request {request_id}" if request_id else "")
        words = f"{about}: {said}" if said else about
        pause = retry_after(response.headers, self._now)
        if status == 429:
            return self._limited(words, code, pause)
        if status in (408, 409) or status >= 500:
            return self._transient(words, pause)
        if status == 401:
            # Without the API's own words: they quote the key, some of them whole.
            return self._final(f"{about}: the credentials were refused; check {self._key_from}")
        if status == 403:
            return self._final(f"{words}; check what {self._key_from} may use, and the model's name {self.model!r}")
        if status == 404:
            return self._final(f"{words}; check endpoint, api (responses or chat) and the model's name {self.model!r}")
        if 300 <= status < 400:
            return self._final(f"{about}: redirects are not followed; write the final address as endpoint")
        if code == "context_length_exceeded" or _OVERFLOW.search(said):
            return ContextOverflow(FailureClass.PROVIDER, self._say(words), retryable=False)
        return Rejected(self._say(f"the request was refused: {words}"), said)

    def _failed(self, error: Any) -> Failure:
        """The Failure for an error object inside an answer that is otherwise 200."""
        said, code = _words(error, self._hidden)
        if code == "context_length_exceeded" or _OVERFLOW.search(said):
            return ContextOverflow(FailureClass.PROVIDER, self._say(said), retryable=False)
        if code in ("rate_limit_exceeded", "insufficient_quota", "429"):
            return self._limited(said or code, code, None)
        words = f"the answer is an error: {said or code or 'without a message'}"
        transient = code in _TRANSIENT_CODES or code in ("408", "409") or re.fullmatch(r"5\d\d", code)
        return self._transient(words) if transient else self._final(words)

    def _limited(self, words: str, code: str, pause: float | None) -> Failure:
        if code == "insufficient_quota":
            return self._final(f"{words}; the quota of {self._key_from} is used up: check plan and billing")
        return Failure(FailureClass.RATE_LIMITED, self._say(words), retryable=True, retry_after=pause)

    def _transient(self, words: str, pause: float | None = None) -> Failure:
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=True, retry_after=pause)

    def _final(self, words: str) -> Failure:
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=False)

    def _say(self, words: str) -> str:
        return self._hidden(f"model {self._name} at {self._where}: {words}")

    def _hidden(self, text: str) -> str:
        """``text`` without the key, unless that is a placeholder, as endpoints without keys are given."""
        key = self._client.api_key
        return text.replace(key, "***") if len(key) >= SHORTEST_SECRET else text

    def _no_key(self, error: Exception) -> Failure:
        if isinstance(error, MissingSecret):
            message = f"model {self._name}: {error}"
        elif "api_key" in str(error):
            message = (
                f"model {self._name}: there is no API key; set {KEY_VARIABLE}, or give the model "
                "credentials: {secretRef: {name: …, key: …}}"
            )
        else:
            message = f"model {self._name}: the openai client cannot be made: {error}"
        return Failure(FailureClass.PROVIDER, message, retryable=False, happened="no")


def _error_in(text: str, hidden: Callable[[str], str]) -> tuple[str, str]:
    """What an error's body says, and its code: ``{"error": {"message", "code"}}``, or whatever came instead."""
    try:
        body = parse_json(text)
    except ValueError:
        return plain(hidden(text), 300), ""
    return _words(body.get("error", body) if isinstance(body, dict) else body, hidden)


def _words(error: Any, hidden: Callable[[str], str]) -> tuple[str, str]:
    """The message, without the key before it is cut, or a part of that would stay; and the code."""
    if not isinstance(error, dict):
        return plain(hidden(str(error)), 300), ""
    message, code = error.get("message"), error.get("code") or error.get("type")
    return (plain(hidden(message), 300) if isinstance(message, str) else ""), (str(code) if code else "")


def _shown(url: str) -> str:
    """``url`` without the user information that it may carry, and without its query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
