"""The shop's backend that the refund example works on: orders, customers and payments.

    python -m examples.refund.backend --port 0 --port-file F --dir STATE

The environment variable BACKEND_TOKEN holds the token that payments ask for (``Authorization: Bearer …``).

| request | answer |
|---|---|
| ``GET /orders/{id}`` | the order with its items and total |
| ``GET /customers?email=…`` | ``{customers: […]}``, empty if there is none |
| ``GET /customers/{id}/notes`` | ``{notes: […]}`` |
| ``POST /customers/{id}/notes`` | ``{text, orderId?}`` becomes a note, once per Idempotency-Key |
| ``POST /refunds`` | ``{orderId, amount}`` is paid, *each time*: on purpose nothing here is idempotent |
| ``GET /payments`` | ``{payments: […]}``, what was paid |
| ``GET /control``, ``POST /control`` | scripted trouble, see below |

``POST /control {"pause_payment_after_commit": 30}`` makes and records the next payment and holds its answer back for
30 seconds: time to kill whoever asked for it. ``{"fail_payments": 503, "times": 2}`` answers the next two with 503 and
pays nothing. ``{"pause_order_look_up": 30}`` holds back an order. Each is for one request unless ``times`` says
otherwise; 0 ends it. A restart forgets them.

STATE/payments.jsonl and STATE/notes.jsonl are the truth: a line is on disk (fsync) before its answer leaves, and a
restarted backend goes on from them.
"""

from __future__ import annotations

import argparse
import hmac
import json
import math
import os
import sys
import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from examples.serving import Server, serve

TOKEN = "BACKEND_TOKEN"  # noqa: S105 - the variable's name
Body = dict[str, Any]

ORDERS: dict[str, Body] = {
    "4711": {
        "id": "4711",
        "customer": {"email": "ana@example.com"},
        "items": [
            {"sku": "LAMP-2", "name": "lamp", "quantity": 1, "price": 129.0},
            {"sku": "BULB-E27", "name": "bulb", "quantity": 1, "price": 9.9},
        ],
        "total": 138.9,
        "currency": "EUR",
    },
    "1042": {
        "id": "1042",
        "customer": {"email": "ben@example.com"},
        "items": [{"sku": "MUG-1", "name": "mug", "quantity": 1, "price": 12.5}],
        "total": 12.5,
        "currency": "EUR",
    },
}
CUSTOMERS: dict[str, Body] = {
    "881": {"id": "881", "name": "Ana", "email": "ana@example.com", "since": "2021-03-02"},
    "882": {"id": "882", "name": "Ben", "email": "ben@example.com", "since": "2024-11-19"},
}

_MAX_BODY = 1024 * 1024


class RefusedError(Exception):
    """A request that is answered with ``status`` and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Ledger:
    """A file of JSON lines that are on disk once ``append`` returns, with the lines in memory as they were read.

    Losing the memory is harmless: it is read from the file again.
    """

    def __init__(self, path: Path) -> None:
        existing = path.read_text().splitlines() if path.exists() else []
        self.lines: list[Body] = [json.loads(line) for line in existing]
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, line: Body) -> None:
        """Record ``line``, with ``n`` and ``at`` before it. The caller holds the backend's lock."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        whole = {"n": len(self.lines) + 1, "at": at, **line}
        os.write(self._file, json.dumps(whole, ensure_ascii=False).encode() + b"\n")
        os.fsync(self._file)
        self.lines.append(whole)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Backend:
    """The backend as a context manager that serves while it is open; ``folder`` holds its state.

    Raises:
        OSError: the folder cannot be used, or the address not bound.

    """

    def __init__(self, folder: Path, token: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._folder = folder
        self._token = token
        self._address = (host, port)
        self._lock = threading.Lock()
        self._trouble: dict[str, tuple[float, int]] = {}
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is served.

        Raises:
            RuntimeError: the backend is not open.

        """
        if self._server is None:
            raise RuntimeError("the backend is not open: use it in a `with`")
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The base URL: ``http://HOST:PORT``."""
        return f"http://{self._address[0]}:{self.port}"

    @property
    def payments(self) -> list[Body]:
        """What was paid so far, in order."""
        with self._lock:
            return list(self._payments.lines)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            self._payments = opened.enter_context(closing(Ledger(self._folder / "payments.jsonl")))
            self._notes = opened.enter_context(closing(Ledger(self._folder / "notes.jsonl")))
            self._server = _Server(self._address, self).start()
            opened.callback(self._server.stop)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        self._server = None

    def answer(self, method: str, target: str, headers: Any, raw: bytes) -> tuple[int, Body, float]:
        """Status, body, and the seconds to hold them back.

        Raises:
            RefusedError: the request cannot be served.

        """
        url = urlsplit(target)
        match (method, *url.path.strip("/").split("/")):
            case ("GET", "orders", order):
                found = _known(ORDERS, order, "order")
                with self._lock:
                    return 200, found, self._take("pause_order_look_up")
            case ("GET", "customers"):
                email = parse_qs(url.query).get("email")
                if not email:
                    raise RefusedError(400, "say whom you look for: /customers?email=ana@example.com")
                return 200, {"customers": [one for one in CUSTOMERS.values() if one["email"] == email[0]]}, 0
            case ("GET", "customers", customer, "notes"):
                _known(CUSTOMERS, customer, "customer")
                with self._lock:
                    return 200, {"notes": [note for note in self._notes.lines if note["customer"] == customer]}, 0
            case ("POST", "customers", customer, "notes"):
                _known(CUSTOMERS, customer, "customer")
                return *self._note(customer, headers.get("Idempotency-Key"), _json(raw)), 0
            case ("POST", "refunds"):
                self._check_token(headers.get("Authorization", ""))
                return self._pay(headers.get("Idempotency-Key"), _json(raw))
            case ("GET", "payments"):
                self._check_token(headers.get("Authorization", ""))
                return 200, {"payments": self.payments}, 0
            case ("POST", "control"):
                return 200, self._control(_json(raw)), 0
            case ("GET", "control"):
                return 200, self._control({}), 0
            case _:
                raise RefusedError(404, f"there is no {method} {url.path}")

    def _check_token(self, given: str) -> None:
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise RefusedError(401, "payments ask for the header Authorization: Bearer with the backend's token")

    def _note(self, customer: str, key: str | None, body: Body) -> tuple[int, Body]:
        text = body.get("text")
        if not key:
            raise RefusedError(400, "a note needs the header Idempotency-Key")
        if not isinstance(text, str) or not text:
            raise RefusedError(422, "a note needs a text")
        note = {"customer": customer, "text": text, "orderId": body.get("orderId"), "idempotencyKey": key}
        with self._lock:
            earlier = next((line for line in self._notes.lines if line["idempotencyKey"] == key), None)
            if earlier is None:
                self._notes.append(note)
                return 201, self._notes.lines[-1]
        if {**earlier, **note} != earlier:
            raise RefusedError(409, f"the Idempotency-Key {key} was used for another note")
        return 200, earlier

    def _pay(self, key: str | None, body: Body) -> tuple[int, Body, float]:
        order = body.get("orderId")
        amount = body.get("amount")
        if not isinstance(order, str):
            raise RefusedError(422, "a refund needs an orderId (a text)")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < math.inf:
            raise RefusedError(422, "a refund needs an amount above 0")
        total = _known(ORDERS, order, "order")["total"]
        if round(amount, 2) != amount or amount > total:
            raise RefusedError(422, f"the amount must have at most two decimals and be at most the order's {total}")
        with self._lock:
            failing = self._take("fail_payments")
            if failing:
                raise RefusedError(int(failing), "payments are out of order, as somebody asked for; nothing was paid")
            payment = f"pay_{len(self._payments.lines) + 1:04d}"
            self._payments.append({"id": payment, "orderId": order, "amount": amount, "idempotencyKey": key})
            return 201, self._payments.lines[-1], self._take("pause_payment_after_commit")

    def _take(self, kind: str) -> float:
        value, times = self._trouble.get(kind, (0, 0))
        if times > 1:
            self._trouble[kind] = (value, times - 1)
        else:
            self._trouble.pop(kind, None)
        return value

    def _control(self, body: Body) -> Body:
        kinds = ("pause_order_look_up", "pause_payment_after_commit", "fail_payments")
        unknown = body.keys() - {*kinds, "times"}
        if unknown:
            raise RefusedError(422, f"unknown {', '.join(sorted(unknown))}; known are {', '.join(kinds)}, times")
        times = body.get("times", 1)
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise RefusedError(422, "times must be a whole number of at least 1")
        wanted = {kind: body[kind] for kind in kinds if kind in body}
        for kind, value in wanted.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
            if not number or (kind == "fail_payments" and value != 0 and not 400 <= value <= 599):
                raise RefusedError(422, f"{kind} cannot be {value!r}")
        with self._lock:
            for kind, value in wanted.items():
                self._trouble[kind] = (value, times)
                if value == 0:
                    del self._trouble[kind]
            return {kind: {"value": value, "times": left} for kind, (value, left) in self._trouble.items()}


def _known(things: dict[str, Body], name: str, kind: str) -> Body:
    if name not in things:
        raise RefusedError(404, f"there is no {kind} {name}; there are {', '.join(sorted(things))}")
    return things[name]


def _json(raw: bytes) -> Body:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise RefusedError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return body


class _Server(Server):
    def __init__(self, address: tuple[str, int], backend: Backend) -> None:
        self.backend = backend
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._respond(b"")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._send(411, {"error": "a request needs a Content-Length of at most 1 MiB"})
            return
        self._respond(self.rfile.read(int(length)))

    def _respond(self, raw: bytes) -> None:
        try:
            status, body, pause = self.server.backend.answer(self.command, self.path, self.headers, raw)
        except RefusedError as refusal:
            self._send(refusal.status, {"error": str(refusal)})
            return
        if pause and self.server.stopping.wait(pause):
            self.close_connection = True
            return
        self._send(status, body)

    def _send(self, status: int, body: Body) -> None:
        payload = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Say nothing: the ledgers say it."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 for options that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m examples.refund.backend", description="The shop's backend.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one")
    parser.add_argument("--port-file", type=Path, help="write the port there once it is served")
    parser.add_argument("--dir", type=Path, required=True, help="the folder with what it wrote down")
    options = parser.parse_args()
    token = os.environ.get(TOKEN)
    if not token:
        parser.error(f"set the environment variable {TOKEN} to the token that payments are to ask for")
    try:
        serve(Backend(options.dir, token, host=options.host, port=options.port), options.port_file)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
