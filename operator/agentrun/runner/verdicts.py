"""Classifies endpoints' answers that are not turns: a Failure, or a refusal of something that can be omitted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from agentrun.api.texts import quoted
from agentrun.api.workflow import FailureClass, Model
from agentrun.runner import refusals
from agentrun.runner.error_words import EVENTS, JSON_LINES, Said, kind_of, read_error, read_error_value
from agentrun.runner.failures import ContextOverflow, Failure, plain
from agentrun.runner.masking import Mask
from agentrun.runner.overflow import is_overflow, is_rate_limit
from agentrun.runner.retries import Clock, retry_after
from agentrun.workflow.address import Address, azure_hint

if TYPE_CHECKING:
    import httpx2

CHECK_ADDRESS = "check endpoint, which usually ends with /v1, and that no login page or proxy is in front of it"
CHECK_VERSION = "check the api-version in endpoint"

_TRANSIENT_CODES = frozenset({
    "server_error", "internal_error", "internal_server_error", "api_error", "overloaded", "overloaded_error", "timeout",
    "timeout_error", "vector_store_timeout", "unavailable", "service_unavailable", "bad_gateway",
})  # fmt: skip
_RATE_CODES = frozenset({
    "rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "throttlingexception", "too_many_requests",
    "request_limit_exceeded", "engine_overloaded_error",
})  # fmt: skip
_POLICY = frozenset({"content_filter", "content_policy_violation", "invalid_api_key", "model_not_found"})
"""Codes of refusals that another form of the same request cannot avoid."""
_PASSING = frozenset({408, 409, 424, 425, 498, 499})
"""Statuses below 500 that are not the request's fault: TGI answers 424 after a failed generation, Groq 498 when it has
no capacity, and a gateway 499 for a call that it abandoned.
"""


class Rejected(Exception):
    """The endpoint refuses ``word`` (of ``refusals``). ``failure`` is raised if nothing can be sent instead.

    ``holds``: "always", for later requests too; "once", only for this request; "if it helps", a guess that holds for
    later requests once it has helped.
    """

    def __init__(self, word: str, failure: Failure, holds: Literal["always", "once", "if it helps"]) -> None:
        super().__init__(failure.message)
        self.word = word
        self.failure = failure
        self.holds = holds


class Verdicts:
    """Classifies the answers of one endpoint. ``key_from`` says, for messages, where its key comes from."""

    def __init__(self, model: Model, address: Address, key_from: str, key: str, now: Clock) -> None:
        self._model, self._address, self._key_from, self._now = model, address, key_from, now
        self._mask = Mask([key])

    def transient(self, words: str, pause: float | None = None) -> Failure:
        """A Failure that another try may avoid."""
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=True, retry_after=pause)

    def final(self, words: str) -> Failure:
        """A Failure that no other try can avoid."""
        return Failure(FailureClass.PROVIDER, self._say(words), retryable=False)

    def malformed(self, problem: str, answer: Any) -> Failure:
        """The Failure for a 2xx answer whose JSON is not a turn."""
        if isinstance(answer, dict):
            answer = {key: part for key, part in answer.items() if key not in ("choices", "output", "usage")}
        said = read_error_value(answer, self._hidden)
        words = (
            f"a malformed answer: {problem}; it says: {said.words}" if said.words else f"a malformed answer: {problem}"
        )
        return self.transient(words, said.pause)

    def no_json(self, response: httpx2.Response, error: ValueError) -> Failure:
        """The Failure for a 2xx answer that is not JSON. A page or a stream is final: another try would get it
        again.
        """
        content_type = response.headers.get("content-type", "")
        if not response.content.strip():
            return self.transient(f"a malformed answer: {response.status_code} with an empty body; {CHECK_ADDRESS}")
        kind = kind_of(response.text, content_type)
        if not kind:
            return self.transient(
                f"a malformed answer: it is not JSON: {error}; it begins {quoted(plain(response.text, 60))}"
            )
        said = read_error(response.content, content_type, self._hidden)
        if kind in (EVENTS, JSON_LINES):
            return self.final(f"the answer is {kind}, which was not asked for: {said.words}; {CHECK_ADDRESS}")
        return self.final(f"the answer is not JSON but {said.words}; {CHECK_ADDRESS}")

    def refused(self, response: httpx2.Response, body: dict[str, Any]) -> Failure | Rejected:
        """Classify an answer whose status is not 2xx."""
        status = response.status_code
        request_id = plain(response.headers.get("x-request-id", ""), 100)
        said = read_error(response.content, response.headers.get("content-type", ""), self._hidden)
        reason = plain(response.reason_phrase, 50)
        about = f"{status} {reason}".strip() + (f", request {request_id}" if request_id else "")
        return self._verdict(status, about, said, body, retry_after(response.headers, self._now))

    def failed(self, answer: dict[str, Any], body: dict[str, Any]) -> Failure | Rejected:
        """Classify an error inside a 2xx answer. The error's code stands for the status."""
        said = read_error_value(answer["error"] if is_error(answer.get("error")) else answer, self._hidden)
        status = next((int(code) for code in sorted(said.codes) if re.fullmatch(r"[45]\d\d", code)), 0)
        if not status:
            status = 500 if _TRANSIENT_CODES & {code.lower() for code in said.codes} else 400
        return self._verdict(status, "the answer is an error", said, body, None)

    def _verdict(
        self, status: int, about: str, said: Said, body: dict[str, Any], pause: float | None
    ) -> Failure | Rejected:
        """Classify an error: a Failure, or a refusal of something that can be omitted."""
        words = f"{about}: {said.words}" if said.words else about
        pause = said.pause if pause is None else pause
        codes = {code.lower().rpartition("#")[2] for code in said.codes}
        if status == 429 or "insufficient_quota" in codes or (status != 413 and codes & _RATE_CODES):
            return self._limited(words, said.codes, pause)
        if status == 402:
            return self.final(f"{words}; {self._key_from} has no credit left: check plan and billing")
        if status == 401:
            # Without the API's own message: some quote the key, even in full.
            return self.final(f"{about}: the credentials were refused; check {self._key_from}")
        if status == 403:
            return self.final(
                f"{words}; check what {self._key_from} may use, and the model's name {quoted(self._model.model)}"
            )
        if 300 <= status < 400:
            return self.final(f"{about}: redirects are not followed; write the final address as endpoint")
        failure = self._plain_verdict(status, words, said, body, pause)
        lower = refusals.bound(body, said)
        if lower is not None:
            return Rejected(lower[0], failure, "always" if lower[1] else "once")
        if is_overflow(status, said.text, said.codes):
            return ContextOverflow(FailureClass.PROVIDER, self._say(words), retryable=False)
        word = refusals.refusal(body, said, sure=status >= 500)
        if word is not None:
            return Rejected(word, failure, "always")
        # Nothing in the message is known. The most frequent cause is a history with fields of another endpoint.
        guess = status in (400, 422) and not refusals.advice(body, said) and not _POLICY & codes
        return Rejected(refusals.HISTORY, failure, "if it helps") if guess else failure

    def _plain_verdict(self, status: int, words: str, said: Said, body: dict[str, Any], pause: float | None) -> Failure:
        if status == 413 and is_rate_limit(said.text, said.codes):
            message = f"{words}; the request alone is over the limit: shorten it, or request a higher limit"
            return Failure(FailureClass.RATE_LIMITED, self._say(message), retryable=False)
        advice = refusals.advice(body, said)
        if advice:
            return self.final(f"the request was refused: {words}; {advice}")
        if status in _PASSING or status >= 500:
            return self.transient(words, pause)
        if status in (404, 405):
            hint = f"check endpoint, api (responses or chat) and the model's name {quoted(self._model.model)}"
            return self.final(f"{words}; {azure_hint(self._address, self._model.api) or hint}")
        if re.search(r"api[-_ ]?version", said.text, re.IGNORECASE):
            return self.final(f"{words}; {azure_hint(self._address, self._model.api) or CHECK_VERSION}")
        return self.final(f"the request was refused: {words}")

    def insisted(self, rejected: Rejected) -> Failure:
        """The Failure for something that is refused and cannot be omitted."""
        if rejected.word not in refusals.BOUNDS:
            return rejected.failure
        advice = (
            "it does not accept a limit on the answer: remove maxOutputTokens, and tokens and costUSD of the budget"
        )
        return Failure(FailureClass.PROVIDER, f"{rejected.failure.message}; {advice}", retryable=False)

    def _limited(self, words: str, codes: frozenset[str], pause: float | None) -> Failure:
        if "insufficient_quota" in codes:
            return self.final(f"{words}; the quota of {self._key_from} is used up: check plan and billing")
        return Failure(FailureClass.RATE_LIMITED, self._say(words), retryable=True, retry_after=pause)

    def _say(self, words: str) -> str:
        return self._hidden(f"model {self._model.name} at {self._address.base}: {words}")

    def _hidden(self, text: str) -> str:
        """``text`` without the key. A key shorter than ``SHORTEST_SECRET`` is not hidden."""
        return self._mask.text(text)


def is_error(error: Any) -> bool:
    """Whether an answer's ``error`` field holds an error: some gateways always send the field, but empty."""
    return any(part not in (None, "", 0, False) for part in error.values()) if isinstance(error, dict) else bool(error)
