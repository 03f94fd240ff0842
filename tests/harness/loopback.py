"""An HTTP server on the loopback interface that sends exactly the bytes that a test gives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """A received request. ``headers`` have lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Loopback:
    """Answers requests with ``answers``, in order. The last one is repeated."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first request."""

    def then(self, *answers: Answer) -> None:
        self.answers[:] = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.received.append(Received(method, target, headers, body))
                self.arrived.set()
                await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client may close the connection at any time
        finally:
            writer.close()


@asynccontextmanager
async def loopback() -> AsyncIterator[Loopback]:
    """A running server. At the end every connection is dropped."""
    state = Loopback()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(state.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def reply(body: Any = b"", status: int = 200, **headers: str) -> Answer:
    """A response. A body that is not bytes is sent as JSON. ``content_type="x"`` sets Content-Type."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content_type": "application/json", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value]
    head = "\r\n".join([f"HTTP/1.1 {status} Because", f"Content-Length: {len(data)}", *lines]) + "\r\n\r\n"
    return raw(head.encode() + data)


def raw(data: bytes) -> Answer:
    """Send ``data``."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def cut(data: bytes = b"") -> Answer:
    """Send ``data``, then close the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


def hang(data: bytes = b"") -> Answer:
    """Send ``data``, then nothing for as long as the client waits."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.get_running_loop().create_future()

    return answer


def endless(chunk: bytes, content_type: str = "text/plain", **headers: str) -> Answer:
    """Send a body that ends only when the client closes the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{lines}\r\n".encode())
        while True:
            writer.write(chunk)
            await writer.drain()

    return answer
