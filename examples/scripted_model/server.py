"""The model: lets the script answer each request, and writes the ledger.

The order matters to those who kill processes against it: a request is in the ledger before its answer leaves, and
before any scripted delay, so whoever waits for the line knows that the request arrived and how it is to end.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from . import chat, responses, responses_output
from .answer import CREATED, Answer, compose
from .conversation import Body, Conversation, RequestError
from .profile import Profile
from .profiles import PROFILES
from .script import JSON, Failure, Script, ScriptError, read
from .wire import ModelServer, Reply, dumps, error_reply, json_reply, stream_reply

_READERS = {"responses": responses.read, "chat": chat.read}
_PATH = re.compile(
    r"(?:/(?P<profile>[a-z0-9.-]+))?(?:/v1|/openai/deployments/[^/]+)/(?P<api>responses|chat/completions)"
)
_STATUS_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    503: ("server_error", "server_overloaded", "That model is currently overloaded with other requests."),
}
_OTHER_ERRORS = ("server_error", None, "The server had an error while processing your request. Sorry about that!")


class ScriptedModel:
    """A model that answers from a script, as a context manager that serves while it is open.

    ``profile`` is the endpoint that it plays at ``/v1``: a name of ``profiles.PROFILES``. Any of them is found at
    ``/NAME/v1`` as well.

    ``script`` is what a script file holds and may be replaced while the server runs, which forgets how many
    scripted failures were used up. ``requests`` are the bodies that were asked, in order, and ``ledger`` the lines
    that the ledger has for them; with ``keep=False`` neither is kept. ``key`` is the API key to require. The counts
    of used failures are the only state that answers depend on: losing them repeats the failures.

    Raises:
        ScriptError: the script cannot be read, or there is no such profile.
        OSError: the address cannot be bound, or the ledger not opened.

    """

    def __init__(
        self,
        script: JSON,
        ledger_path: Path | None = None,
        *,
        key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: bool = True,
        profile: str = "openai",
    ) -> None:
        if profile not in PROFILES:
            raise ScriptError(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}")
        self._profile = profile
        self.script = script
        self.requests: list[Body] = []
        self.ledger: list[Body] = []
        self._keep = keep
        self._key = key
        self._count = 0
        self._lock = threading.Lock()
        self._address = (host, port)
        self._ledger_path = ledger_path
        self._ledger_file: int | None = None
        self._server: ModelServer | None = None

    @property
    def url(self) -> str:
        """The base URL for a client: ``http://HOST:PORT/v1``."""
        return f"http://{self._address[0]}:{self.port}/v1"

    @property
    def port(self) -> int:
        """The port that is served.

        Raises:
            RuntimeError: the server is not open.

        """
        if self._server is None:
            raise RuntimeError("the scripted model is not open: use it in a `with`")
        return int(self._server.server_address[1])

    @property
    def script(self) -> JSON:
        """The script as it was given."""
        return self._document

    @script.setter
    def script(self, document: JSON) -> None:
        parsed = read(document)
        self._document = document
        # One assignment: a request in flight sees the old script with its counts or the new one with its own.
        self._state = (parsed, [0] * len(parsed.rules))

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            if self._ledger_path is not None:
                self._ledger_file = os.open(self._ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                opened.callback(os.close, self._ledger_file)
            self._server = ModelServer(self._address, self.answer).start()
            opened.callback(self._server.stop)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        self._server = self._ledger_file = None

    def answer(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        """The reply to one request; ``headers`` have lower-case names."""
        path, _, query = path.partition("?")
        found = _PATH.fullmatch(path)
        named = (found["profile"] or self._profile) if found else ""
        profile = PROFILES.get(named)
        api = {"responses": "responses", "chat/completions": "chat"}[found["api"]] if found else ""
        by_deployment = "/deployments/" in path
        if by_deployment and (named != "azure" or "api-version=" not in query):
            return error_reply(404, {"code": "404", "message": "Resource not found"})
        if profile is None or api not in profile.apis or method != "POST":
            return self._answer_other(method, path, headers)
        entry: Body = {
            "api": api,
            **({"profile": named} if named != "openai" else {}),
            "model": None,
            "turn": None,
            "digest": None,
            "answer": None,
            "rule": None,
            "headers": {
                "authorization": "authorization" in headers,
                "idempotency-key": headers.get("idempotency-key"),
                "user-agent": headers.get("user-agent", "")[:40],
            },
        }
        body: Body = {}
        try:
            self._check_key(headers)
            body, digest, size = _parse(raw)
            entry |= {"model": body.get("model"), "digest": digest}
            profile.check(body)
            asked = _READERS[api](profile.known(body), digest, size)
            entry["turn"] = asked.turn
            reply = self._scripted(api, asked, entry, profile)
        except RequestError as error:
            status, said = profile.errors(error.status, error.error)
            entry |= {"answer": str(status), "error": str(error)}
            reply = json_reply(status, said)
        self._record(entry, body)
        return reply

    def _scripted(self, api: str, asked: Conversation, entry: Body, profile: Profile) -> Reply:
        script, used = self._state
        self._check_model(script, asked.model)
        found = script.find(asked)
        if found is None:
            facts = {"model": asked.model, "turn": asked.turn, "after_tool": asked.last_tool, "text": asked.text[:200]}
            raise RequestError(f"No rule of the script matches {json.dumps(facts)}", None, "no_rule")
        index, rule, captures = found
        entry["rule"] = index
        with self._lock:
            failure = rule.fail[used[index]] if used[index] < len(rule.fail) else rule.fail_always
            used[index] += 1
        if failure and failure.kind in ("status", "hang"):
            entry["answer"] = str(failure.value) if failure.kind == "status" else "hang"
            return _failed(failure, rule.latency, profile)
        try:
            answer = compose(rule, failure, asked, captures)
        except ScriptError as error:
            raise RequestError(f"{rule.where}: {error}", None, "script_error") from error
        entry["answer"] = failure.kind if failure else "ok"
        entry["usage"] = {"input": answer.usage.input, "cached": answer.usage.cached, "output": answer.usage.output}
        more = (*rule.quirks, *(failure.value if failure and failure.kind == "quirks" else ()))
        reply = _answered(api, asked, answer, entry, profile, more)
        reply.delay = rule.latency
        match entry["answer"]:
            case "cut":
                reply.payload = None
            case "malformed":
                reply.payload = _malformed(reply, asked.stream)
            case _:
                pass
        return reply

    def _answer_other(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Everything that is no generation, which the ledger does not mention."""
        try:
            self._check_key(headers)
            script, _ = self._state
            if method == "GET" and path == "/v1/models":
                names = dict.fromkeys([*script.models, *(rule.match.model for rule in script.rules)])
                return json_reply(200, {"object": "list", "data": [_model(name) for name in names if name]})
            if method == "GET" and path.startswith("/v1/models/"):
                self._check_model(script, path.removeprefix("/v1/models/"))
                return json_reply(200, _model(path.removeprefix("/v1/models/")))
            raise RequestError(f"Invalid URL ({method} {path})", status=404)
        except RequestError as error:
            return error_reply(error.status, error.error)

    def _check_key(self, headers: Mapping[str, str]) -> None:
        if self._key is None:
            return
        given = headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            kind, code, message = _STATUS_ERRORS[401]
            raise RequestError(message, None, code, status=401, kind=kind)

    def _check_model(self, script: Script, model: str) -> None:
        if script.models and model not in script.models:
            message = f"The model '{model}' does not exist or you do not have access to it."
            raise RequestError(message, "model", "model_not_found", status=404)

    def _record(self, entry: Body, body: Body) -> None:
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        with self._lock:
            self._count += 1
            line = {"n": self._count, "at": at, **entry}
            if self._keep:
                self.requests.append(body)
                self.ledger.append(line)
            if self._ledger_file is not None:
                # One write to a file opened for appending: a reader never sees half a line.
                os.write(self._ledger_file, json.dumps(line).encode() + b"\n")


def _parse(raw: bytes) -> tuple[Body, str, int]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload, but what was "
            f"sent was not valid JSON: {error}"
        ) from error
    if not isinstance(body, dict):
        raise RequestError("The JSON body of your request must be an object.")
    # How the answer travels is no part of what is asked: streamed or not, a repeat is the same request.
    asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return body, hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest(), len(canonical)


def _answered(
    api: str, asked: Conversation, answer: Answer, entry: Body, profile: Profile, quirks: tuple[str, ...]
) -> Reply:
    complete = responses_output.response(asked, answer) if api == "responses" else chat.completion(asked, answer)
    entry["id"] = complete["id"]
    if not asked.stream:
        profile.distort(complete, quirks)
        reply = json_reply(200, complete)
    elif api == "responses":
        reply = stream_reply(
            f"event: {event['type']}\ndata: {dumps(event)}\n\n" for event in responses_output.events(complete)
        )
    else:
        reply = stream_reply(_chat_frames(asked, complete))
    reply.headers["x-request-id"] = f"req_{asked.digest[:32]}"
    return reply


def _chat_frames(asked: Conversation, complete: Body) -> Iterator[str]:
    for chunk in chat.chunks(asked, complete):
        yield f"data: {dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def _malformed(reply: Reply, stream: bool) -> bytes:
    if stream:
        frame = b'event: response.created\ndata: {"type": "response.created", "respon\n\n'
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(frame), frame)
    payload = reply.payload or b""
    return payload[: len(payload) // 2]


def _failed(failure: Failure, latency: float, profile: Profile) -> Reply:
    if failure.kind == "hang":
        return Reply(None, delay=failure.value)
    kind, code, message = _STATUS_ERRORS.get(failure.value, _OTHER_ERRORS)
    error = {"message": failure.message or message, "type": kind, "param": None, "code": failure.code or code}
    _, said = profile.errors(failure.value, error)
    reply = json_reply(failure.value, said)
    reply.delay = latency
    if failure.retry_after is not None:
        reply.headers["Retry-After"] = f"{failure.retry_after:g}"
    return reply


def _model(name: str) -> Body:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "script"}
