"""A reverse proxy before an S3 server that can be told to misbehave in the ways that networks and servers do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.servers.versitygw import REGION, S3Server

_SKIPPED = {"connection", "transfer-encoding", "content-length", "expect", "date", "server"}


class Fault(Enum):
    """What can go wrong with one request."""

    DROP_ANSWER = "forward the request, then close the connection without an answer"
    CUT_ANSWER = "forward the request, then close the connection in the middle of the answer's body"
    HANG = "forward nothing and answer nothing"
    SLOW_DOWN = "503 SlowDown"
    THROTTLE = "429 TooManyRequests"
    CONFLICT = "409 ConditionalRequestConflict"
    INTERNAL = "500 InternalError"

    @property
    def answer(self) -> tuple[int, str] | None:
        """Status and S3's error code, where the proxy answers by itself."""
        status, _, code = self.value.partition(" ")
        return (int(status), code) if status.isdigit() else None


@dataclass
class _Plan:
    fault: Fault
    method: str
    skip: int
    times: int


class FlakyProxy:
    """The proxy. ``requests`` counts what arrived; ``ignore_conditions`` makes it a server that knows none."""

    def __init__(self, upstream: S3Server) -> None:
        self.upstream = upstream
        self.ignore_conditions = False
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def fail(self, fault: Fault, method: str = "PUT", *, times: int = 1, skip: int = 0) -> None:
        """Let ``skip`` requests of ``method`` pass, then do ``fault`` to the next ``times``."""
        with self._lock:
            self._plans.append(_Plan(fault, method, skip, times))

    def close(self) -> None:
        """Stop: connections to the endpoint are refused from here on, open ones end."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()

    def next_fault(self, method: str) -> Fault | None:
        """Record a request of ``method``; the fault that is due."""
        with self._lock:
            self.requests.append(method)
            for plan in self._plans:
                if plan.method == method and plan.times:
                    if plan.skip:
                        plan.skip -= 1
                        return None
                    plan.times -= 1
                    return plan.fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], proxy: FlakyProxy) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End the open connections: their threads read an end of file and finish."""
        for connection in list(self._open):
            with suppress(OSError):  # gone already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that give up in the middle of an answer are what this proxy is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def serve(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = proxy.next_fault(self.command)
        if fault is Fault.HANG:
            proxy.closing.wait()
            self.close_connection = True
        elif fault is not None and fault.answer is not None:
            status, code = fault.answer
            self._answer(status, {}, f"<Error><Code>{code}</Code><Message>made up</Message></Error>".encode())
        else:
            status, headers, answer = self._forward(body)
            if fault is Fault.DROP_ANSWER:
                self.close_connection = True
            else:
                self._answer(status, headers, answer, cut=fault is Fault.CUT_ANSWER)

    do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _SKIPPED}
        if self.server.proxy.ignore_conditions:
            headers = self._signed({k: v for k, v in headers.items() if not k.lower().startswith("if-")}, body)
        connection = http.client.HTTPConnection(urlsplit(self.server.proxy.upstream.endpoint).netloc, timeout=30)
        try:
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _signed(self, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """``headers`` signed anew: the client's signature covers the condition that was taken out."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        upstream = self.server.proxy.upstream
        unsigned = {k: v for k, v in headers.items() if k.lower() not in {"authorization", "x-amz-date"}}
        request = AWSRequest(self.command, f"http://{self.headers['Host']}{self.path}", unsigned, body)
        S3SigV4Auth(Credentials(upstream.access_key, upstream.secret_key), "s3", REGION).add_auth(request)
        return dict(request.headers.items())

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _SKIPPED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Print nothing."""


@contextmanager
def flaky_proxy(upstream: S3Server) -> Iterator[FlakyProxy]:
    """A proxy before ``upstream`` until the block ends."""
    proxy = FlakyProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
