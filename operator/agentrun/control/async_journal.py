"""The journal for the operator: runs the blocking calls of the store in a few threads.

A call fails if the store does not answer. Then the run is tried again later, and its status says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.journal.fold import fold
from agentrun.journal.fork import plan_fork, write_fork_records
from agentrun.journal.log import EventLog, manifest_bytes, parse_manifest, read_step
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.journal.runs import read_facts
from agentrun.journal.signatures import SigningKey
from agentrun.observe.metrics import Metrics, StoreResult
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Plan, Snapshot
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import KeyExists, KeyMissing, Store, StoreError, StoreUnfit

T = TypeVar("T")

THREADS = 24
THREADS_PER_NAMESPACE = 16
"""Calls of one namespace that may run at once. So journals that take long to read do not hold up other tenants."""


class Journal:
    """The journals of all runs of the cluster. ``check`` is called before each write and raises if we do not lead.

    Cancelling a call does not stop its thread, so the write may still be carried out. Every caller has to allow for
    that anyway, because an answer may be lost.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        check: Callable[[], None],
        clock: Callable[[], float] = time.time,
        key: SigningKey | None = None,
    ) -> None:
        """``key`` signs the ends of runs."""
        self.store, self.clock, self._key = store, clock, key
        self._metrics, self._check = metrics, check
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="journal")
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """By namespace, while a call of that namespace runs."""

    def url(self, run: RunPath) -> str:
        """The URL of the run's journal, for people."""
        return f"{self.store.url.rstrip('/')}/{run}/"

    async def read_manifest(self, run: RunPath) -> RunManifest | None:
        """The manifest of a run; None if the run is not pinned. Raises Damaged, StoreError."""

        def read() -> RunManifest | None:
            try:
                data = self.store.get(run.manifest)
            except KeyMissing:
                return None
            return parse_manifest(data, run.manifest)

        return await self._do("get", run.namespace, read)

    async def pin(self, run: RunPath, manifest: RunManifest) -> RunManifest:
        """Write the manifest and return it. If the run has one already, return that. Raises Damaged, StoreError."""
        self._check()

        def write() -> RunManifest:
            data = manifest_bytes(manifest)
            try:
                self.store.create(run.manifest, data)
            except KeyExists:
                there = self.store.get(run.manifest)  # this or an earlier leader has written it
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
        """Write the records that the run of ``manifest`` takes over from ``source``. The manifest is written later.

        ``planned`` computes the plan of the source, in a thread.

        Raises:
            ForkRefused: no run can continue from that point.
            Damaged, StoreError: the source cannot be read, or the fork cannot be written.
        """
        self._check()

        def write() -> None:
            fork = plan_fork(self.store, source, manifest, at, seq, now=self.clock(), planned=planned)
            write_fork_records(self.store, fork, self.clock)

        await self._do("fork", source.namespace, write)

    async def facts(self, run: RunPath) -> dict[StepKey, StepFact]:
        """The facts of all steps. Raises Damaged, StoreError."""
        return await self._do("facts", run.namespace, partial(read_facts, self.store, run))

    async def fact(self, run: RunPath, key: StepKey) -> StepFact:
        """The fact of one step, from its log. Raises Damaged, StoreError."""
        return await self._do("fact", run.namespace, lambda: fold(read_step(self.store, run, key)).fact())

    def events(self, run: RunPath, manifest: RunManifest) -> EventLog:
        """The event log of the run, which has that manifest; nothing of it is read yet."""
        return EventLog(self.store, run, self.clock, self._key.of(manifest) if self._key else None)

    async def refresh(self, log: EventLog) -> None:
        """Read the new events. Raises Damaged, StoreError."""
        await self._do("events", log.owner.namespace, log.refresh)

    async def append(
        self, log: EventLog, kind: EventKind, body: Mapping[str, Any], unless: Callable[[Sequence[Record]], bool]
    ) -> bool:
        """Write an event, unless ``unless`` holds for the events in the log by then. Return whether it was written.

        Raises:
            NotLeader: another replica leads.
            Damaged, StoreError: the event may or may not be written; the same append may be tried again.
        """
        self._check()
        return await self._do("append", log.owner.namespace, partial(log.append, kind, body, unless))

    async def probe(self) -> None:
        """Check that the store keeps the promises that the journal relies on. Raises StoreUnfit, StoreUnavailable."""
        await self._do("probe", "", self.store.probe)

    def close(self) -> None:
        """End the threads without waiting for calls that still run."""
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
