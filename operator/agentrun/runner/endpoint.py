"""One HTTP endpoint of a model API: sends a body and returns parsed JSON. ``verdicts`` turns errors into Failures.

``AsyncOpenAI`` does authentication, environment and connections. Only its ``post`` is used: the typed
``responses.create`` would walk the whole history of a request, and build models of the answer that drop unknown fields.
The history has to stay as it arrived.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentrun.api.workflow import FailureClass, Model
from agentrun.runner import refusals
from agentrun.runner.bounded_body import TooLarge, Undecodable, read_body
from agentrun.runner.connections import BadEnvironment, why
from agentrun.runner.dialect import AnswerFailed, Malformed
from agentrun.runner.failures import Failure
from agentrun.runner.lenient import read_answer
from agentrun.runner.models import Request
from agentrun.runner.retries import Clock, Sleep, with_retries
from agentrun.runner.secrets import MissingSecret, Secrets, header_value, read_secret
from agentrun.runner.verdicts import Rejected, Verdicts, is_error
from agentrun.workflow.address import PATHS, BadAddress, address_of

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER = 32 * 1024 * 1024
"""The most bytes of one answer, decompressed. A turn is a few kilobytes; with images, a few megabytes."""

CONNECT_TIMEOUT = 10.0

T = TypeVar("T")


KEY_VARIABLE = "OPENAI_API_KEY"
OTHER_KEYS = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
"""Variables that other programs read a key from. An error message names those that are set."""

HEADER_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Further environment variables that are sent as headers."""

REFUSALS_MAX = 12
"""How often one request is sent before it fails, each time without what the endpoint refused."""

Make = Callable[[Request, refusals.Refused], dict[str, Any]]
"""Makes the body of a request, without what the endpoint refuses."""


class Endpoint:
    """The connection to one model. Cancellation of :meth:`post` closes the connection of the call in hand."""

    def __init__(self, model: Model, secret: Secrets, *, sleep: Sleep, now: Clock) -> None:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415  (a second of imports, which only agent steps need)

        from agentrun.runner.transport import Transport  # noqa: PLC0415

        self.model = model.model
        self._path = PATHS[model.api]
        self._name = model.name
        self._known: set[str] = set()
        self._sleep = sleep
        if model.credentials is None:
            self._key_from = f"the environment variable {KEY_VARIABLE}"
        else:
            ref = model.credentials.secret_ref
            self._key_from = f"key {ref.key} of Secret {ref.name}"
        try:
            key = self._key(secret, model)
            self._address = address_of(model, os.environ)
            transport = Transport()
            self._client = openai.AsyncOpenAI(
                api_key=key,
                base_url=self._address.base,
                max_retries=0,  # with_retries does them: counted, bounded and visible
                http_client=openai.DefaultAsyncHttpxClient(
                    event_hooks={"response": [self._bound]},
                    # A redirect would send the key and the history to a host that nobody allowed.
                    follow_redirects=False,
                    transport=transport,
                    headers={"Accept-Encoding": "gzip"},
                ),
            )
            transport.check(str(self._client.base_url))
            # An empty variable, as compose files set it, counts as not set: endpoints refuse the empty header.
            self._client.organization, self._client.project = map(self._header, HEADER_VARIABLES)
        except (
            MissingSecret,
            BadAddress,
            openai.OpenAIError,
            OSError,
            ValueError,
            ImportError,
            httpx2.InvalidURL,
        ) as error:
            raise self._no_key(error) from error  # also for certificates and proxies of the environment
        self._verdicts = Verdicts(model, self._address, self._key_from, self._client.api_key, now)
        # Azure's deployments read a key from ``api-key``, and a token of Entra from the usual header.
        self._headers = {"api-key": self._client.api_key} if self._address.versioned else {}

    @staticmethod
    def _key(secret: Secrets, model: Model) -> str | None:
        """The key of the requests. None if there is none: the openai client raises the error."""
        if model.credentials is not None:
            return read_secret(secret, model.credentials.secret_ref)
        key = os.environ.get(KEY_VARIABLE, "")
        return header_value(key, KEY_VARIABLE) if key else None

    @staticmethod
    def _header(variable: str) -> str | None:
        text = os.environ.get(variable, "").strip()
        return header_value(text, variable) if text else None

    async def post(self, request: Request, make: Make, read: Callable[[dict[str, Any]], T]) -> T:
        """Send ``request`` and return what ``read`` makes of the answer.

        ``read`` rejects an answer by raising ``Malformed`` or ``AnswerFailed``. If the endpoint refuses an optional
        part of the request, the request is sent again without it; lasting refusals are added to ``request.refused``. A
        refused try does not count as a model call, because nothing was answered.

        Raises:
            Failure: see ``ModelClient.ask``.
        """
        known, once, guessed = self._known, set[str](), set[str]()
        known |= request.refused
        body = make(request, known)
        for _ in range(REFUSALS_MAX):
            try:
                found = await self._tried(body, request.timeout, read)
            except Rejected as rejected:
                without = make(request, known | once | guessed | {rejected.word})
                if without == body:
                    raise self._verdicts.insisted(rejected) from rejected
                {"always": known, "once": once, "if it helps": guessed}[rejected.holds].add(rejected.word)
                request.refused.update(known)
                body = without
            else:
                known |= guessed
                request.refused.update(known)
                return found
        raise self._verdicts.final(f"the endpoint refused {REFUSALS_MAX} parts of one request, one after another")

    async def _tried(self, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        return await with_retries(lambda: self._once(body, limit, read), self._sleep)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _once(self, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        from agentrun.runner.guarded_network import Forbidden  # noqa: PLC0415

        try:
            # httpx2's timeouts apply to each read: a server that sends byte by byte would never reach one.
            async with asyncio.timeout(limit):
                response = await self._client.post(
                    self._address.of(self._path),
                    cast_to=httpx2.Response,
                    body=body,
                    options={
                        "timeout": httpx2.Timeout(limit, connect=min(limit, CONNECT_TIMEOUT)),
                        "headers": self._headers,
                    },
                )
        except (TimeoutError, openai.APITimeoutError) as error:
            raise self._verdicts.transient(f"no answer within {limit:g} s") from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, Forbidden):
                raise self._verdicts.final(str(error.__cause__)) from error
            words = f"the connection failed: {why(error.__cause__ or error)}; check endpoint, and that the server is up"
            raise self._verdicts.transient(words) from error
        except openai.APIStatusError as error:
            raise self._verdicts.refused(error.response, body) from error
        except openai.OpenAIError as error:
            raise self._verdicts.final(f"the openai client gave up: {error}") from error
        return self._answer(response, body, read)

    def _answer(self, response: httpx2.Response, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Parse a 2xx answer and return what ``read`` makes of it."""
        try:
            answer = read_answer(response.content, response.headers.get("content-type", ""))
        except ValueError as error:
            raise self._verdicts.no_json(response, error) from error
        if not isinstance(answer, dict):
            raise self._verdicts.malformed("it is not a JSON object", answer)
        if is_error(answer.get("error")) or "error" in (answer.get("object"), answer.get("type")):
            raise self._verdicts.failed(answer, body)
        try:
            return read(answer)
        except AnswerFailed as failed:
            raise self._verdicts.failed({"error": failed.error}, body) from failed
        except Malformed as error:
            raise self._verdicts.malformed(str(error), answer) from error

    async def _bound(self, response: httpx2.Response) -> None:
        """Read the body, which could be endless, up to ``MAX_ANSWER`` and put the bytes in its place."""
        import httpx2  # noqa: PLC0415

        stream = response.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            return
        try:
            body = await read_body(stream, response.headers.get("content-encoding", ""), MAX_ANSWER)
        except TooLarge as error:
            raise self._verdicts.final(f"the answer is larger than {MAX_ANSWER} bytes") from error
        except Undecodable as error:
            raise self._verdicts.transient(f"the answer {error}") from error
        finally:
            await stream.aclose()
        response.headers.pop("content-encoding", None)
        response.encoding = "utf-8"  # not one that the sender chooses: rot13 and idna are no text encodings
        response.stream = httpx2.ByteStream(body)

    def _no_key(self, error: Exception) -> Failure:
        if isinstance(error, MissingSecret | BadAddress | BadEnvironment):
            message = f"model {self._name}: {error}"
        elif "api_key" in str(error):
            others = [name for name in OTHER_KEYS if os.environ.get(name)]
            message = (
                f"model {self._name}: there is no API key; set {KEY_VARIABLE}, or give the model "
                "credentials: {secretRef: {name: …, key: …}}"
            ) + (f" ({' and '.join(others)} {'is' if len(others) == 1 else 'are'} not read)" if others else "")
        else:
            message = f"model {self._name}: the openai client cannot be made: {error}"
        return Failure(FailureClass.PROVIDER, message, retryable=False, happened="no")
