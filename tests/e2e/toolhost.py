"""A host of HTTP tools that answers as a test tells it to, in threads, so that a test may wait for other processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from examples.serving import Server


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; ``target`` as it stood in the request line, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[["Handler"], None]


class ToolHost:
    """The host, as a context manager, at ``address`` and ``port`` (0: a free one).

    A request is in ``asked`` before it is answered.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._address = (address, port)
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = {}
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None, "use it in a `with`"
        return f"http://{self._address[0]}:{self._server.server_address[1]}"

    def on(self, path: str, *answers: Answer) -> None:
        """Answer requests for ``path`` (without query) with ``answers`` in order; the last is repeated."""
        with self._lock:
            self._answers[path] = list(answers)

    def asked(self, path: str | None = None) -> list[Asked]:
        """What arrived, in order; for ``path`` alone where one is given."""
        with self._lock:
            return [one for one in self._asked if path is None or one.target.partition("?")[0] == path]

    def __enter__(self) -> Self:
        self._server = _Server(self._address, self).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.stop()

    def take(self, asked: Asked) -> Answer:
        """Note a request; how to answer it."""
        with self._lock:
            self._asked.append(asked)
            answers = self._answers.get(asked.target.partition("?")[0])
            if not answers:
                return reply({"error": "there is no such tool"}, 404)
            return answers.pop(0) if len(answers) > 1 else answers[0]


class _Server(Server):
    def __init__(self, address: tuple[str, int], host: ToolHost) -> None:
        self.host = host
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.host.take(Asked(self.command, self.path, headers, body))(self)

    do_GET = do_POST = _serve  # noqa: N815

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Answer in full."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pause(self, seconds: float) -> bool:
        """Wait; whether the server was stopped meanwhile."""
        return self.server.stopping.wait(seconds)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Print nothing: ``asked`` says it."""


def reply(body: Any = None, status: int = 200, **headers: str) -> Answer:
    """An answer; a body that is not bytes is sent as JSON. ``content_type="x"`` sets Content-Type."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content_type": "application/json", **headers}
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return lambda handler: handler.send(status, named, data)


def late(seconds: float, then: Answer) -> Answer:
    """``then``, after a pause."""

    def answer(handler: Handler) -> None:
        if handler.pause(seconds):
            handler.close_connection = True
        else:
            then(handler)

    return answer


def held(release: threading.Event, then: Answer) -> Answer:
    """``then``, once ``release`` is set (or the server stops)."""

    def answer(handler: Handler) -> None:
        while not release.is_set():
            if handler.pause(0.01):
                handler.close_connection = True
                return
        then(handler)

    return answer


def cut(handler: Handler) -> None:
    """No answer: the connection ends."""
    handler.close_connection = True


def endless(sent: list[int], limit: int) -> Answer:
    """A body that goes on until the client leaves, or until ``limit`` bytes; ``sent`` gets their number."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.send_header("Connection", "close")
        handler.end_headers()
        count, chunk = 0, b"x" * 65_536
        try:
            while count < limit:
                handler.wfile.write(chunk)
                count += len(chunk)
        finally:
            sent.append(count)
            handler.close_connection = True

    return answer
