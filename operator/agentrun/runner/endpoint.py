"""One HTTP endpoint of a model API: sends a body, hands back parsed JSON, and turns what goes wrong into Failures.

``AsyncOpenAI`` is used for what it does well (authentication, environment, connections), through its ``post``: the
typed ``responses.create`` would walk the whole history on the way out and build models that drop what they do not know
on the way back, and the history has to stay as it came.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from agentrun.api.texts import quoted
from agentrun.api.workflow import FailureClass, Model
from agentrun.plan.address import PATHS, BadAddress, address_of
from agentrun.runner import refusals
from agentrun.runner.connections import BadEnvironment, why
from agentrun.runner.dialect import AnswerFailed, Malformed
from agentrun.runner.error_words import Said, kind_of, read_error, read_error_value
from agentrun.runner.failures import ContextOverflow, Failure, plain
from agentrun.runner.lenient import read_answer
from agentrun.runner.masking import Mask
from agentrun.runner.models import Request
from agentrun.runner.overflow import is_overflow, is_rate_limit
from agentrun.runner.retrying import Clock, Sleep, retry_after, with_retries
from agentrun.runner.secrets import MissingSecret, Secrets, header_value, read_secret
from agentrun.runner.untrusted import TooLarge, Undecodable, read_body

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER = 32 * 1024 * 1024
"""Bytes of one answer, decompressed; a turn is a few kilobytes, with images in it a few megabytes."""

CONNECT_TIMEOUT = 10.0

CHECK_ADDRESS = "check endpoint, which most often ends with /v1, and that no login page or proxy stands before it"

_TRANSIENT_CODES = frozenset({
    "server_error", "internal_error", "internal_server_error", "api_error", "overloaded", "overloaded_error", "timeout",
    "timeout_error", "vector_store_timeout", "unavailable", "service_unavailable", "bad_gateway",
})  # fmt: skip
_RATE_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "insufficient_quota"})

T = TypeVar("T")


class Rejected(Exception):
    """The endpoint refuses ``word`` (of ``refusals``), in later requests too if ``lasting``; ``failure`` is what that
    comes to where nothing can be sent instead.
    """

    def __init__(self, word: str, failure: Failure, *, lasting: bool) -> None:
        super().__init__(failure.message)
        self.word = word
        self.failure = failure
        self.lasting = lasting


KEY_VARIABLE = "OPENAI_API_KEY"

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
        self._now = now
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
            self._client.organization = self._header("OPENAI_ORG_ID")
            self._client.project = self._header("OPENAI_PROJECT_ID")
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
        known, once = self._known, set[str]()
        known |= request.refused
        body = make(request, known)
        for _ in range(REFUSALS_MAX):
            try:
                return await self._tried(body, request.timeout, read)
            except Rejected as rejected:
                without = make(request, known | once | {rejected.word})
                if without == body:
                    raise self._insisted(rejected) from rejected
                (known if rejected.lasting else once).add(rejected.word)
                request.refused.update(known)
                body = without
        raise self._final(f"the endpoint refused {REFUSALS_MAX} things of one request, one after the other")

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
            raise self._transient(f"no answer within {limit:g} s") from error
        except openai.APIConnectionError as error:
            cause = why(error.__cause__ or error)
            raise self._transient(f"the connection failed: {cause}; check endpoint, and that it is up") from error
        except openai.APIStatusError as error:
            raise self._refused(error.response, body) from error
        except openai.OpenAIError as error:
            raise self._final(f"the openai client gave up: {error}") from error
        return self._answer(response, body, read)

    def _answer(self, response: httpx2.Response, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """What ``read`` makes of a 2xx answer."""
        try:
            answer = read_answer(response.content)
        except ValueError as error:
            raise self._no_json(response, error) from error
        if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict) and "error" in answer[0]:
            [answer] = answer  # as Google words an error
        if not isinstance(answer, dict):
            said = read_error_value(answer, self._hidden)
            raise self._transient(f"a malformed answer: it is not a JSON object; it says: {said.words or 'nothing'}")
        if _is_error(answer.get("error")) or "error" in (answer.get("object"), answer.get("type")):
            raise self._failed(answer, body)
        try:
            return read(answer)
        except AnswerFailed as failed:
            raise self._failed({"error": failed.error}, body) from failed
        except Malformed as error:
            said = read_error_value({key: answer.get(key) for key in ("message", "detail", "errors")}, self._hidden)
            words = f"{error}; it says: {said.words}" if said.words else str(error)
            raise self._transient(f"a malformed answer: {words}") from error

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

    def _no_json(self, response: httpx2.Response, error: ValueError) -> Failure:
        """The Failure for a 2xx answer that is no JSON. A page stays a page however often it is asked for."""
        content_type = response.headers.get("content-type", "")
        if not response.content.strip():
            return self._transient(f"a malformed answer: {response.status_code} with an empty body; {CHECK_ADDRESS}")
        kind = kind_of(response.text, content_type)
        if not kind:
            return self._transient(
                f"a malformed answer: it is not JSON: {error}; it begins {quoted(plain(response.text, 60))}"
            )
        said = read_error(response.content, content_type, self._hidden)
        if kind == "an event stream":
            return self._final(f"the answer is an event stream, which was not asked for: {said.words}; {CHECK_ADDRESS}")
        return self._final(f"the answer is no JSON but {said.words}; {CHECK_ADDRESS}")

    def _refused(self, response: httpx2.Response, body: dict[str, Any]) -> Failure | Rejected:
        """What an answer that is not 2xx comes to."""
        status = response.status_code
        request_id = plain(response.headers.get("x-request-id", ""), 100)
        said = read_error(response.content, response.headers.get("content-type", ""), self._hidden)
        reason = plain(response.reason_phrase, 50)
        about = f"{status} {reason}".strip() + (f", request {request_id}" if request_id else "")
        return self._verdict(status, about, said, body, retry_after(response.headers, self._now))

    def _failed(self, answer: dict[str, Any], body: dict[str, Any]) -> Failure | Rejected:
        """What an error inside an answer that is otherwise 200 comes to: its code tells the status that it had."""
        said = read_error_value(answer["error"] if _is_error(answer.get("error")) else answer, self._hidden)
        status = next((int(code) for code in sorted(said.codes) if re.fullmatch(r"[45]\d\d", code)), 0)
        if said.codes & _RATE_CODES:
            status = 429
        elif not status:
            status = 500 if _TRANSIENT_CODES & {code.lower() for code in said.codes} else 400
        return self._verdict(status, "the answer is an error", said, body, None)

    def _verdict(
        self, status: int, about: str, said: Said, body: dict[str, Any], pause: float | None
    ) -> Failure | Rejected:
        """What an error comes to: a Failure, or something that can be done without."""
        words = f"{about}: {said.words}" if said.words else about
        if status == 429 or "insufficient_quota" in said.codes:
            return self._limited(words, said.codes, pause)
        if status == 402:
            return self._final(f"{words}; {self._key_from} has no credit left: check plan and billing")
        if status == 401:
            # Without the API's own words: they quote the key, some of them whole.
            return self._final(f"{about}: the credentials were refused; check {self._key_from}")
        if status == 403:
            return self._final(
                f"{words}; check what {self._key_from} may use, and the model's name {quoted(self.model)}"
            )
        if 300 <= status < 400:
            return self._final(f"{about}: redirects are not followed; write the final address as endpoint")
        failure = self._plain_verdict(status, words, said, body, pause)
        lower = refusals.bound(body, said)
        if lower is not None:
            return Rejected(lower[0], failure, lasting=lower[1])
        if is_overflow(status, said.text, said.codes):
            return ContextOverflow(FailureClass.PROVIDER, self._say(words), retryable=False)
        word = refusals.refusal(body, said, sure=status >= 500)
        return Rejected(word, failure, lasting=True) if word is not None else failure

    def _plain_verdict(self, status: int, words: str, said: Said, body: dict[str, Any], pause: float | None) -> Failure:
        if status == 413 and is_rate_limit(said.text, said.codes):
            message = f"{words}; the request alone is over the limit: shorten it, or ask for a higher one"
            return Failure(FailureClass.RATE_LIMITED, self._say(message), retryable=False)
        advice = refusals.advice(body, said)
        if advice:
            return self._final(f"the request was refused: {words}; {advice}")
        if status in (408, 409) or status >= 500:
            return self._transient(words, pause)
        if status in (404, 405):
            hint = f"check endpoint, api (responses or chat) and the model's name {quoted(self.model)}"
            if "/openai/deployments/" in self._address.base and not self._address.versioned:
                hint = "an endpoint of an Azure deployment needs its version: …/deployments/NAME?api-version=2024-10-21"
            return self._final(f"{words}; {hint}")
        return self._final(f"the request was refused: {words}")

    def _insisted(self, rejected: Rejected) -> Failure:
        """The Failure for something that is refused and cannot be done without."""
        if rejected.word not in refusals.BOUNDS:
            return rejected.failure
        advice = "it takes no bound of the answer: take out maxOutputTokens, and tokens and costUSD of the budget"
        return Failure(FailureClass.PROVIDER, f"{rejected.failure.message}; {advice}", retryable=False)

    def _limited(self, words: str, codes: frozenset[str], pause: float | None) -> Failure:
        if "insufficient_quota" in codes:
            return self._final(f"{words}; the quota of {self._key_from} is used up: check plan and billing")
        return Failure(FailureClass.RATE_LIMITED, self._say(words), retryable=True, retry_after=pause)

    def _transient(self, words: str, pause: float | None = None) -> Failure:
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=True, retry_after=pause)

    def _final(self, words: str) -> Failure:
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=False)

    def _say(self, words: str) -> str:
        return self._hidden(f"model {self._name} at {self._address.base}: {words}")

    def _hidden(self, text: str) -> str:
        """``text`` without the key, unless that is a placeholder, as endpoints without keys are given."""
        return Mask([self._client.api_key]).text(text)

    def _no_key(self, error: Exception) -> Failure:
        if isinstance(error, MissingSecret | BadAddress | BadEnvironment):
            message = f"model {self._name}: {error}"
        elif "api_key" in str(error):
            message = (
                f"model {self._name}: there is no API key; set {KEY_VARIABLE}, or give the model "
                "credentials: {secretRef: {name: …, key: …}}"
            )
        else:
            message = f"model {self._name}: the openai client cannot be made: {error}"
        return Failure(FailureClass.PROVIDER, message, retryable=False, happened="no")


def _is_error(error: Any) -> bool:
    """Whether an answer's ``error`` is one: some gateways always send the field, with nothing in it."""
    return any(part not in (None, "", 0, False) for part in error.values()) if isinstance(error, dict) else bool(error)
