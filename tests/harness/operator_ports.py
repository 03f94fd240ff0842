"""What an operator of the harness stands on: a store behind a hook, a journal without threads, and the cluster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from agentrun.adapters.objects import run_view, whole_command
from agentrun.control import views
from agentrun.control.async_journal import Journal
from agentrun.control.cluster import Written
from agentrun.control.thinking import Thinking
from agentrun.control.views import ApprovalView, CommandView, PodView, RunRef, RunView
from agentrun.journal.log import EventLog
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.kube.errors import Conflict
from agentrun.observe.metrics import Metrics, ReconcileResult
from agentrun.plan.snapshot import Start
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import Keys, Store
from tests.unit import record_forms

if TYPE_CHECKING:
    from tests.harness.cluster_world import Operator
    from tests.harness.kube_api import Kind

T = TypeVar("T")
V = TypeVar("V", bound=views.View)


WATCHED: Mapping[Kind, views.Kind[Any]] = {
    "pods": views.PODS,
    "approvals": views.APPROVALS,
    "commands": views.COMMANDS,
    "runs": views.RUNS,
}
assert set(WATCHED.values()) == set(views.KEPT), "a kept kind needs its row here, and in KINDS of kube_api.py"
TICK = 2e-6
"""Seconds that a call takes, so that no two calls happen at the same instant."""


class GatedStore:
    """The store of one operator. Each call passes the hook."""

    def __init__(self, store: Store, operator: Operator) -> None:
        self.url, self.remote = store.url, False
        self._store, self._operator = store, operator

    def _call(self, what: str, do: Callable[[], T]) -> T:
        self._operator.passes("before", f"store {what}")
        result = do()
        self._operator.passes("after", f"store {what}")
        return result

    def create(self, key: str, data: bytes) -> None:
        self._call(f"create {key}", lambda: self._store.create(key, data))

    def get(self, key: str) -> bytes:
        return self._call(f"get {key}", lambda: self._store.get(key))

    def list(self, prefix: str, after: str = "") -> Keys:
        return self._call(f"list {prefix}", lambda: self._store.list(prefix, after))

    def children(self, prefix: str) -> Keys:
        return self._call(f"children {prefix}", lambda: self._store.children(prefix))

    def read_version(self, key: str) -> tuple[bytes, str]:
        return self._store.read_version(key)

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        return self._store.swap(key, data, version)

    def probe(self) -> None:
        self._store.probe()


class InlineJournal(Journal):
    """The journal without threads. Each operation is one step of the event loop."""

    def __init__(self, operator: Operator, store: Store, metrics: Metrics, clock: Callable[[], float]) -> None:
        super().__init__(store, metrics, operator.check, clock, operator.world.key)
        self._operator = operator

    async def append(
        self, log: EventLog, kind: EventKind, body: Mapping[str, Any], unless: Callable[[Sequence[Record]], bool]
    ) -> bool:
        record_forms.check(kind, body)
        return await super().append(log, kind, body, unless)

    async def _do(self, operation: str, namespace: str, call: Callable[[], T]) -> T:
        await self._operator.turn()
        return call()


class InlineThinking(Thinking):
    """Long computations without a thread. Each is one step of the event loop."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self._operator = operator

    async def run(self, namespace: str, compute: Callable[[], T]) -> tuple[T, float]:
        await self._operator.turn()
        return compute(), 0.0


class Counted(Metrics):
    """Metrics that count how visits ended. A failed visit is always a defect."""

    def __init__(self) -> None:
        super().__init__()
        self.results: Counter[str] = Counter()

    def reconciled(self, result: ReconcileResult, seconds: float) -> None:
        self.results[result] += 1
        super().reconciled(result, seconds)


METRICS = Counted()


class ModelCluster:
    """The ports ``Cluster`` and ``Lists`` of one operator."""

    def __init__(self, operator: Operator) -> None:
        self._operator, self._api = operator, operator.world.api

    async def _call(self, what: str, do: Callable[[], T], *, write: bool = True) -> T:
        if write:
            self._operator.check()
        await self._operator.turn()
        self._operator.passes("before", what)
        result = do()
        self._operator.passes("after", what)
        await self._operator.turn()
        return result

    async def get_run(self, ref: RunRef) -> RunView | None:
        def get() -> RunView | None:
            found = self._api.objects["runs"].get(ref.name)
            return None if found is None else run_view(found)

        return await self._call("get_run", get, write=False)

    async def get_written(self, run: RunView) -> Written:
        def get() -> Written:
            found = self._api.objects["runs"].get(run.ref.name)
            if found is None or found["metadata"]["uid"] != run.uid:
                raise Conflict(f"run {run.ref.name} is gone")
            return Written(found["metadata"].get("labels", {}), found["spec"], len(json.dumps(found)))

        return await self._call("get_written", get, write=False)

    async def get_workflow(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return await self._call("get_workflow", lambda: self._api.workflows.get(name), write=False)

    async def create_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView:
        what = f"create_pod {start.key.path} {start.attempt}"
        return await self._call(what, lambda: self._api.create_pod(run, pinned, start))

    async def find_pod(self, run: RunView, pinned: PinnedRun, start: Start) -> PodView | None:
        return await self._call("find_pod", lambda: self._api.find_pod(run, start), write=False)

    async def delete_pod(self, pod: PodView) -> None:
        await self._call(f"delete_pod {pod.key.path}", lambda: self._api.delete_pod(pod))

    async def sweep_pods(self, namespace: str) -> None:
        await self._call("sweep_pods", self._api.sweep)

    async def create_approval(self, approval: Mapping[str, Any]) -> ApprovalView:
        return await self._call("create_approval", lambda: self._api.create_approval(approval))

    async def settle_approval(self, approval: ApprovalView, reason: str, message: str, at: float) -> None:
        await self._call(f"settle_approval {reason}", lambda: self._api.settle_approval(approval, reason))

    async def delete_approval(self, approval: ApprovalView) -> None:
        await self._call("delete_approval", lambda: self._api.delete_approval(approval))

    async def record_refusal(self, command: CommandView, why: str) -> None:
        self._api.events.append(("CommandRefused", f"{command.name}: {why}"))

    async def answer_command(self, command: CommandView, refusal: str, at: float) -> CommandView | None:
        return await self._call("answer_command", lambda: self._api.answer_command(command, refusal))

    async def get_command(self, command: CommandView) -> CommandView | None:
        def get() -> CommandView | None:
            found = self._api.objects["commands"].get(command.name)
            return None if found is None else whole_command(found)

        return await self._call("get_command", get, write=False)

    async def delete_command(self, command: CommandView) -> None:
        await self._call("delete_command", lambda: self._api.delete_command(command))

    async def patch_status(self, run: RunView, version: int, status: Mapping[str, Any]) -> RunView:
        return await self._call("patch_status", lambda: self._api.patch_status(run, version, status))

    async def observe(self, run: RunView) -> RunView:
        return await self._call("observe", lambda: self._api.observe(run))

    async def delete_run(self, run: RunView) -> None:
        await self._call("delete_run", lambda: self._api.delete_run(run))

    async def record_event(self, run: RunView, kind: str, reason: str, message: str) -> None:
        self._api.events.append((reason, message))

    async def pages(self, kind: views.Kind[V]) -> AsyncIterator[tuple[list[V], int]]:
        ours = next(name for name, watched in WATCHED.items() if watched is kind)
        found, version = await self._call(f"list {ours}", lambda: (self._api.all(ours), self._api.version), write=False)
        half = len(found) // 2
        yield found[:half], version
        await self._operator.turn()
        yield found[half:], version

    def passed_over(self, namespace: str) -> bool:
        return False
