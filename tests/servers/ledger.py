"""The outside world of a crash test: it writes down every request with its Idempotency-Key before it answers.

| request | answer |
|---|---|
| ``GET /read/{id}`` | what is known of ``id``; no effect |
| ``POST /idempotent/{what}`` | one effect for each Idempotency-Key, however often it is asked |
| ``POST /once/{what}`` | an effect *each time*: nothing here protects from a second call |
| ``POST /refused`` | 422: the other side says no |

An effect's answer depends on its key alone, so that it does not show in which order requests came.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from examples.serving import Server

Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """A request as it arrived, with what it is answered."""

    method: str
    path: str
    key: str | None
    body: Any
    status: int
    answer: dict[str, Any]


class Ledger:
    """The server at ``address``, as a context manager.

    ``recorded`` is called after each line is written and before its answer.
    """

    def __init__(self, recorded: Callable[[], None] = lambda: None, address: str = "127.0.0.1") -> None:
        self._recorded = recorded
        self._address = address
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None, "use it in a `with`"
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def lines(self) -> list[Line]:
        """What arrived, in order."""
        with self._lock:
            return list(self._lines)

    def __enter__(self) -> Self:
        self._server = _Server((self._address, 0), self).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.stop()

    def take(self, method: str, path: str, key: str | None, body: Any) -> Answer:
        """Record a request, then say what it is answered."""
        head, _, what = path.strip("/").partition("/")
        match method, head:
            case "GET", "read":
                status, answer = 200, {"id": what, "known": f"all about {what}"}
            case "POST", "idempotent" | "once" if key:
                status, answer = 201, {"what": what, "receipt": hashlib.sha256(key.encode()).hexdigest()[:12]}
            case "POST", "idempotent" | "once":
                status, answer = 400, {"error": "a request with an effect needs an Idempotency-Key"}
            case "POST", "refused":
                status, answer = 422, {"error": "no"}
            case _:
                status, answer = 404, {"error": f"there is no {method} {path}"}
        with self._lock:
            self._lines.append(Line(method, path, key, body, status, answer))
        self._recorded()
        return status, answer


class _Server(Server):
    def __init__(self, address: tuple[str, int], ledger: Ledger) -> None:
        self.ledger = ledger
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:  # who sent it was killed in the middle: nobody does what they did not hear to the end
            self.close_connection = True
            return
        key = self.headers.get("Idempotency-Key")
        status, answer = self.server.ledger.take(self.command, self.path, key, json.loads(raw) if raw else None)
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Print nothing: the lines say it."""
