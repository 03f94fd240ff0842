"""The journal for the operator: its blocking calls in a few threads, and a run's own records with who wrote them.

A store that does not answer is not waited for here: the run is tried again later, and its status says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from agentrun.api.facts import StepFact, StepKey
from agentrun.journal.fold import fold
from agentrun.journal.fork import plan_fork, write_fork_records
from agentrun.journal.layout import RunPath
from agentrun.journal.log import EventLog, manifest_bytes, parse_manifest, read_step
from agentrun.journal.records import Record
from agentrun.journal.run import read_facts
from agentrun.observe.metrics import Metrics, StoreResult
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Plan, Snapshot
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import KeyExists, KeyMissing, Store, StoreError, StoreUnfit

T = TypeVar("T")

THREADS = 24
THREADS_PER_NAMESPACE = 16
"""So many calls of one namespace are under way at the most: journals that take long to read hold up no other tenant."""


class Journal:
    """Where every run of the cluster is kept. ``check`` is asked before each write: it raises where we do not lead.

    Cancelling a call does not stop its thread: what it was writing may be written, which every caller must bear
    anyway, as it must bear a lost answer.
    """

    def __init__(
        self, store: Store, metrics: Metrics, check: Callable[[], None], clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.clock = store, clock
        self._metrics, self._check = metrics, check
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="journal")
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By namespace, while a call of it is under way."""

    def url(self, run: RunPath) -> str:
        """Where people find the run."""
        return f"{self.store.url.rstrip('/')}/{run}/"

    async def read_manifest(self, run: RunPath) -> RunManifest | None:
        """The manifest of a run that was pinned; None: it was not. Raises Damaged, StoreError."""

        def read() -> RunManifest | None:
            try:
                data = self.store.get(run.manifest)
            except KeyMissing:
                return None
            return parse_manifest(data, run.manifest)

        return await self._do("get", run.namespace, read)

    async def pin(self, run: RunPath, manifest: RunManifest) -> RunManifest:
        """Make the manifest durable; an earlier one of that run wins and is returned. Raises Damaged, StoreError."""
        self._check()

        def write() -> RunManifest:
            data = manifest_bytes(manifest)
            try:
                self.store.create(run.manifest, data)
            except KeyExists:
                there = self.store.get(run.manifest)  # a PUT of ours, by this or an earlier leader
                return manifest if there == data else parse_manifest(there, run.manifest)
            return manifest

        return await self._do("pin", run.namespace, write)

    async def fork(
        self,
        source: RunPath,
        manifest: RunManifest,
        at: StepKey,
        seq: int | None,
        planned: Callable[[Snapshot], Plan] = plan,
    ) -> None:
        """Write what the run of ``manifest`` takes over from ``source``; its own manifest comes after.

        ``planned`` makes the plan of the source, in a thread.

        Raises:
            ForkRefused: nobody can go on from that point.
            Damaged, StoreError: the source cannot be read, or the fork not be written.
        """
        self._check()

        def write() -> None:
            fork = plan_fork(self.store, source, manifest, at, seq, now=self.clock(), planned=planned)
            write_fork_records(self.store, fork, self.clock)

        await self._do("fork", source.namespace, write)

    async def facts(self, run: RunPath) -> dict[StepKey, StepFact]:
        """What the journals of all steps say. Raises Damaged, StoreError."""
        return await self._do("facts", run.namespace, partial(read_facts, self.store, run))

    async def fact(self, run: RunPath, key: StepKey) -> StepFact:
        """What the journal of one step says. Raises Damaged, StoreError."""
        return await self._do("fact", run.namespace, lambda: fold(read_step(self.store, run, key)).fact())

    def events(self, run: RunPath) -> EventLog:
        """The run's own records, none of them read yet."""
        return EventLog(self.store, run, self.clock)

    async def refresh(self, log: EventLog) -> None:
        """Read what is new. Raises Damaged, StoreError."""
        await self._do("events", log.run.namespace, log.refresh)

    async def append(
        self, log: EventLog, kind: EventKind, body: Mapping[str, Any], unless: Callable[[Sequence[Record]], bool]
    ) -> bool:
        """Commit an event unless ``unless`` holds of what is there by then; whether it was written.

        Raises:
            NotLeader: another replica leads.
            Damaged, StoreError: it may be written or not; the same append may be tried again.
        """
        self._check()
        return await self._do("append", log.run.namespace, partial(log.append, kind, body, unless))

    async def probe(self) -> None:
        """Check that the store keeps its promises. Raises StoreUnfit, StoreUnavailable."""
        await self._do("probe", "", self.store.probe)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _do(self, operation: str, namespace: str, call: Callable[[], T]) -> T:
        gate = self._gates.get(namespace)
        if gate is None:
            gate = self._gates[namespace] = asyncio.Semaphore(THREADS_PER_NAMESPACE)
        async with gate:
            return await self._call(operation, call)

    async def _call(self, operation: str, call: Callable[[], T]) -> T:
        began = time.monotonic()
        result: StoreResult = "ok"
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except StoreError as error:
            result = "unfit" if isinstance(error, StoreUnfit) else "unavailable"
            raise
        finally:
            self._metrics.store_request(operation, result, time.monotonic() - began)
