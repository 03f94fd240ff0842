"""What a turn of an agent costs beyond the model, the tool and, on S3, the store's PUTs.

An agent of 200 turns calls a ReadOnly tool in each. Right after it, in the same process and event loop, a bare loop
asks the same model the same questions and makes the same requests to the same tool between them: openai's ``post``
of a ready body, answered by raw bytes, and httpx2's ``get``. Then

    overhead = (the loop's time - the bare loop's time - on S3 the time inside the store's ``create``) / turns

so reading the answer, deciding, rendering the tool's request, checking its answer, building the next question from
the history, encoding records, the thread that writes them and the fold all count as ours; on the folder store so do
all its file operations and flushes. A turn commits two records (``turn`` and ``result``). Opening the attempt and
its end stand outside. What the disk alone takes for those two records is printed beside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import openai

from agentrun.api.tools import SecretKey
from agentrun.api.workflow import Model
from agentrun.attempt.exit_codes import Exit
from agentrun.runner.attempt import Attempt, run_attempt
from agentrun.runner.dispatch import work as runner_work
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.models import Item, ModelClient, Request, Turn, open_model
from agentrun.runner.ports import Ports
from agentrun.runner.responses import body_of
from agentrun.store.open import open_store
from agentrun.store.protocol import Store
from tests.bench.parts import MODEL, Parts, first_start, start_run
from tests.bench.table import Row, Series, ratios

TURNS = 200
REPEATS = 5
BAR = 0.003
RULES: list[dict[str, Any]] = [
    {"match": {"turn": TURNS}, "text": "All orders are looked up."},
    {"tool_calls": [{"name": "look_up_order", "args": {"orderId": "4711"}}], "reasoning": True},
]


def measure(parts: Parts) -> Iterator[Row]:
    """Rows for each kind of store, and for the disk alone."""
    with ExitStack() as open_parts:
        open_parts.enter_context(parts.model(RULES))
        backend = open_parts.enter_context(parts.backend())
        for name, url in parts.stores().items():
            found = [_once(url, backend, parts.new_folder()) for _ in range(REPEATS + 1)][1:]  # the first one warms up
            beyond = Series([f.overhead(without_puts=name == "S3") for f in found], "ms")
            puts = Series([f.puts / TURNS for f in found], "ms")
            bare = Series([f.bare / TURNS for f in found], "ms")
            yield Row(
                f"agent turn, {name}, beyond model and tool" + (" and PUTs" if name == "S3" else ""),
                beyond,
                bare,
                "bare model and tool",
                bar=BAR,
            )
            size = sum(found[0].sizes) // len(found[0].sizes)
            if name == "folder":
                disk = Series([f.disk for f in found], "ms")
                yield Row(
                    f"  of which in the store ({size} B a record)",
                    puts,
                    disk,
                    "two files made, fsync of each and of the folder",
                    ratios(puts.values, disk.values),
                )
            else:
                yield Row(f"  its PUTs ({size} B a record)", puts)
            cpu = Series([f.cpu / TURNS for f in found], "ms")
            yield Row("  CPU of the process", cpu, Series([f.bare_cpu / TURNS for f in found], "ms"), "bare calls")


@dataclass(slots=True)
class Found:
    """Seconds of one run of all turns, and the sizes in bytes of what it wrote."""

    loop: float = 0.0
    cpu: float = 0.0
    bare: float = 0.0
    bare_cpu: float = 0.0
    puts: float = 0.0
    disk: float = 0.0
    """Of two records, by the disk alone."""
    sizes: list[int] = field(default_factory=list)

    def overhead(self, *, without_puts: bool) -> float:
        """Seconds a turn, as the module's text defines them."""
        return (self.loop - self.bare - (self.puts if without_puts else 0.0)) / TURNS


class _TimedStore:
    """A store whose ``create`` of records is timed while ``found`` is set; all else is the store's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found: Found | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, key: str, data: bytes) -> None:
        began = time.perf_counter()
        self._store.create(key, data)
        # A part of the log is written every two seconds: how many there are depends on the machine, not on the turns.
        if self.found is not None and "/logs/" not in key:
            self.found.puts += time.perf_counter() - began
            self.found.sizes.append(len(data))


class _Recording:
    """A model's client that keeps the bodies of what it was asked."""

    def __init__(self, client: ModelClient, model: str) -> None:
        self._client, self._model = client, model
        self.api = client.api
        self.requests: list[Request] = []

    def user(self, text: str) -> Item:
        return self._client.user(text)

    def tool_result(self, call_id: str, name: str, output: str) -> Item:
        return self._client.tool_result(call_id, name, output)

    async def ask(self, request: Request) -> Turn:
        self.requests.append(request)
        return await self._client.ask(request)

    async def close(self) -> None:
        await self._client.close()


def _once(url: str, backend: str, scratch: Path) -> Found:
    store = _TimedStore(open_store(url))
    tool = {
        "name": "look_up_order",
        "description": "An order.",
        "effect": "ReadOnly",
        "parameters": {"type": "object", "required": ["orderId"], "properties": {"orderId": {"type": "string"}}},
        "http": {"method": "GET", "url": f"{backend}/orders/${{args.orderId}}"},
    }
    agent = {"prompt": "Look the orders up.", "tools": ["look_up_order"], "maxTurns": TURNS + 1}
    run = start_run(open_store(url), [{"name": "ask", "agent": agent}], tools=[tool])
    found = Found()
    recordings: list[_Recording] = []

    def recording(model: Model, secret: Callable[[SecretKey], str]) -> ModelClient:
        recordings.append(_Recording(open_model(model, secret), MODEL))
        return recordings[0]

    async def work(attempt: Attempt) -> dict[str, Any]:
        store.found = found
        began, cpu = time.perf_counter(), time.process_time()
        output = await runner_work(attempt)
        found.loop, found.cpu = time.perf_counter() - began, time.process_time() - cpu
        store.found = None
        return output

    async def both() -> None:
        ports = Ports(open_store=lambda _: store, open_model=recording)
        try:
            code, fact = await run_attempt(first_start(store, run), ports, work, Mailbox())
        finally:
            ports.progress.close()
        if code is not Exit.CLOSED or fact.usage.model_calls != TURNS + 1:
            raise RuntimeError(f"the agent did not do its turns: {code!r}, {fact}")
        await _bare(recordings[0].requests, f"{backend}/orders/4711", found)

    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # the progress lines
        asyncio.run(both())
    found.disk = median(_disk(scratch, found.sizes))
    return found


async def _bare(requests: list[Request], tool: str, found: Found) -> None:
    """The same calls by bare clients; the bodies are made beforehand."""
    bodies = [body_of(request, MODEL) for request in requests]
    async with openai.AsyncOpenAI(max_retries=0) as model, httpx2.AsyncClient() as http:
        began, cpu = time.perf_counter(), time.process_time()
        for number, body in enumerate(bodies):
            if number:
                (await http.get(tool)).raise_for_status()
            await (await model.post("/responses", cast_to=httpx2.Response, body=body)).aread()
        found.bare, found.bare_cpu = time.perf_counter() - began, time.process_time() - cpu


def _disk(folder: Path, sizes: list[int]) -> list[float]:
    """Seconds that two records of about these sizes take on the disk: created, flushed, and their folder flushed."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    found = []
    try:
        for number in range(0, min(100, len(sizes) - 1), 2):
            began = time.perf_counter()
            for size, name in ((sizes[number], f"{number}.a"), (sizes[number + 1], f"{number}.b")):
                file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
                os.write(file, b"x" * size)
                os.fsync(file)
                os.close(file)
                os.fsync(directory)
            found.append(time.perf_counter() - began)
    finally:
        os.close(directory)
    return found
