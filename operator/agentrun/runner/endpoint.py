"""One HTTP endpoint of a model API: sends a body and hands back parsed JSON; ``verdicts`` words what goes wrong.

``AsyncOpenAI`` is used for what it does well (authentication, environment, connections), through its ``post``: the
typed ``responses.create`` would walk the whole history on the way out and build models that drop what they do not know
on the way back, and the history has to stay as it came.
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
from agentrun.runner.retrying import Clock, Sleep, with_retries
from agentrun.runner.secrets import MissingSecret, Secrets, header_value, read_secret
from agentrun.runner.verdicts import Rejected, Verdicts, is_error
from agentrun.workflow.address import PATHS, BadAddress, address_of

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of one answer, decompressed; a turn is a few kilobytes, with images in it a few megabytes."""

CONNECT_TIMEOUT = 10.0

T = TypeVar("T")


KEY_VARIABLE = "OPENAI_API_KEY"
OTHER_KEYS = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
"""Variables in which other programs look for a key."""

HEADER_VARIABLES = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
"""Further variables of the environment that go out as headers."""

REFUSALS_MAX = 12
"""How often one request is made anew without something that was refused."""

Make = Callable[[Request, refusals.Refused], dict[str, Any]]
"""Makes the body of a request without what is refused."""


class Endpoint:
    """The connection to one model. Cancellation of :meth:`post` closes the connection of the call in hand."""

    def __init__(self, model: Model, secret: Secrets, *, sleep: Sleep, now: Clock) -> None:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415  (a second of imports, paid only by who asks a model)

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
                max_retries=0,  # ours are in with_retries: counted, bounded and visible
                http_client=openai.DefaultAsyncHttpxClient(
                    event_hooks={"response": [self._bound]},
                    # A redirect would take the key and the history to a host that nobody allowed.
                    follow_redirects=False,
                    transport=transport,
                    headers={"Accept-Encoding": "gzip"},
                ),
            )
            transport.check(str(self._client.base_url))
            # An empty variable, as compose files write it, is not set: its header would be empty, and is refused.
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
            raise self._no_key(error) from error  # certificates and proxies of the environment are read here too
        self._verdicts = Verdicts(model, self._address, self._key_from, self._client.api_key, now)
        # Azure's deployments take their key by another name, and a token of Entra by the usual one.
        self._headers = {"api-key": self._client.api_key} if self._address.versioned else {}

    @staticmethod
    def _key(secret: Secrets, model: Model) -> str | None:
        """The key that requests carry; None: openai says that there is none."""
        if model.credentials is not None:
            return read_secret(secret, model.credentials.secret_ref)
        key = os.environ.get(KEY_VARIABLE, "")
        return header_value(key, KEY_VARIABLE) if key else None

    @staticmethod
    def _header(variable: str) -> str | None:
        text = os.environ.get(variable, "").strip()
        return header_value(text, variable) if text else None

    async def post(self, request: Request, make: Make, read: Callable[[dict[str, Any]], T]) -> T:
        """What ``read`` makes of the answer to ``request``, which it may refuse by raising ``Malformed`` or
        ``AnswerFailed``.

        What the endpoint refuses and can be done without is added to ``request.refused``, and the request made again
        without it. Such a try is no model call: nothing was answered.

        Raises:
            Failure: as ``ModelClient.ask`` says.
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
        raise self._verdicts.final(f"the endpoint refused {REFUSALS_MAX} things of one request, one after the other")

    async def _tried(self, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        return await with_retries(lambda: self._once(body, limit, read), self._sleep)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _once(self, body: dict[str, Any], limit: float, read: Callable[[dict[str, Any]], T]) -> T:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        try:
            # httpx2's timeouts are per read: a server that drips would never meet one of them.
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
            words = f"the connection failed: {why(error.__cause__ or error)}; check endpoint, and that it is up"
            raise self._verdicts.transient(words) from error
        except openai.APIStatusError as error:
            raise self._verdicts.refused(error.response, body) from error
        except openai.OpenAIError as error:
            raise self._verdicts.final(f"the openai client gave up: {error}") from error
        return self._answer(response, body, read)

    def _answer(self, response: httpx2.Response, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What ``read`` makes of a 2xx answer."""
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
        """Put a body of at most MAX_ANSWER in place of one that could go on for ever."""
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
        response.encoding = "utf-8"  # not one that the sender chooses: rot13 and idna are none of text
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
