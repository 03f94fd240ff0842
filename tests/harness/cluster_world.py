"""A cluster in memory for the operator's control loop: the API server, kubelets, people, and any number of operators.

Everything runs on an event loop with virtual time, so nothing sleeps and every run is repeatable. Each call of an
operator to the API server or the store passes ``ClusterWorld.hook`` twice: before it is carried out, and before its
response returns. There a test lets others act, loses a response, or kills the operator.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentrun.control.cache import Cache
from agentrun.control.controller import WORKERS, Controller
from agentrun.control.leader import NotLeader
from agentrun.control.queue import WorkQueue
from agentrun.control.reconciler import Reconciler
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Record
from agentrun.journal.signatures import SigningKey
from agentrun.kube.errors import Unavailable
from agentrun.plan.pod_bounds import UNBOUNDED, Bounds, reserve
from agentrun.plan.snapshot import Start
from agentrun.store.protocol import StoreUnavailable
from tests.harness.fake_kubelet import Container
from tests.harness.kube_api import KINDS, Api, Kind, Obj
from tests.harness.memory_store import Crash, MemoryStore
from tests.harness.operator_ports import (
    METRICS,
    TICK,
    WATCHED,
    GatedStore,
    InlineJournal,
    InlineThinking,
    ModelCluster,
    T,
)
from tests.harness.virtual_time import VirtualLoop

Hook = Callable[["Operator", str, str], None]


class Operator:
    """One process of the operator: its memory, its watches, and its leadership guard."""

    def __init__(self, world: ClusterWorld) -> None:
        self.world = world
        self.leads = True
        """What the guard returns."""
        self.dead = False
        self.running = asyncio.Event()
        """While it is cleared, the process is stopped: its next call outside waits, after the check of the guard."""
        self.running.set()
        clock = lambda: world.now  # noqa: E731
        self.cache, self.queue = (
            Cache(),
            WorkQueue[RunRef](METRICS, clock, space=lambda ref: ref.namespace, workers=WORKERS),
        )
        self.journal = InlineJournal(self, GatedStore(world.store, self), METRICS, clock)
        self.cluster = ModelCluster(self)
        self.reconciler = Reconciler(
            self.cluster,
            self.journal,
            self.cache,
            self.queue,
            METRICS,
            clock,
            bounds=world.bounds,
            thinking=InlineThinking(self),
        )
        self.controller = Controller(
            self.cluster, self.cluster, self.cache, self.queue, self.reconciler, METRICS, clock, clock
        )
        self.heard = {kind: len(world.api.log[kind]) for kind in KINDS}
        self.task = world.loop.create_task(self.controller.lead())

    # -- its calls --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        if not self.leads:
            raise NotLeader("another one leads")

    async def turn(self) -> None:
        """Let others run, and wait while this process is stopped."""
        await asyncio.sleep(0)
        await self.running.wait()

    def passes(self, side: str, what: str) -> None:
        if self.dead:
            raise Crash
        self.world.loop.now += TICK
        self.world.hook(self, side, what)

    # -- its watches ------------------------------------------------------------------------------------------------

    def behind(self, kind: Kind) -> int:
        return len(self.world.api.log[kind]) - self.heard[kind]

    def hear(self, kind: Kind, *, twice: bool = False, lost: bool = False) -> None:
        """Deliver the next event of a watch once, or twice; or lose it."""
        if not self.behind(kind):
            return
        gone, view = self.world.api.log[kind][self.heard[kind]]
        self.heard[kind] += 1
        if lost:
            return
        tell = self.controller.gone if gone else self.controller.seen
        for _ in range(2 if twice else 1):
            tell(WATCHED[kind], view)

    def hear_all(self) -> None:
        for kind in KINDS:
            while self.behind(kind):
                self.hear(kind)

    def kill(self) -> None:
        """SIGKILL: the process does nothing more."""
        self.dead = True
        self.running.set()
        self.task.cancel()


@dataclass
class ClusterWorld:
    """The whole cluster."""

    loop: VirtualLoop
    store: MemoryStore = field(default_factory=MemoryStore)
    hook: Hook = lambda operator, side, what: None
    statuses: list[Obj] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ledger: Counter[str] = field(default_factory=Counter)
    """The number of effects of ``Once`` calls that happened outside, by step."""
    containers: dict[str, Container] = field(default_factory=dict)
    """By the uid of their pods."""
    leaving: dict[str, float] = field(default_factory=dict)
    """When the grace period of a deleted pod ends, by the pod's uid."""
    created: list[tuple[str, int]] = field(default_factory=list)
    """The step and attempt of every pod that was created."""
    skew: float = 0.0
    """Seconds by which the clocks of the nodes are ahead of the operators'."""
    alone: bool = True
    """Whether at most one operator leads at a time. Then no second pod of a step may start while the first is alive."""
    bounds: Bounds = UNBOUNDED
    """How many step pods may exist at once."""
    key: SigningKey | None = None
    """What each operator signs the ends of runs with."""
    _uids: int = 0

    def __post_init__(self) -> None:
        self.loop.now = 1_000_000.0  # small, so that a float still distinguishes nanoseconds
        self.api = Api(self)
        self.operators: list[Operator] = []

    @property
    def now(self) -> float:
        return self.loop.now

    def new_uid(self) -> str:
        self._uids += 1
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(self._uids)))

    def operator(self) -> Operator:
        """Start a new operator, which leads."""
        found = Operator(self)
        self.operators.append(found)
        return found

    def wait(self, seconds: float) -> None:
        """Let virtual time pass while everybody acts."""
        self.do(asyncio.sleep(seconds))

    def settle(self) -> None:
        """Let everybody do everything that is possible now."""
        self.wait(0.02)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        result = self.loop.run_until_complete(work)
        for operator in self.operators:
            if operator.task.done() and not operator.dead:
                operator.task.result()
                raise AssertionError("an operator stopped working by itself")
        assert not self.wrong, self.wrong
        return result

    def close(self) -> None:
        for operator in self.operators:
            operator.kill()
        self.loop.run_until_complete(asyncio.wait([o.task for o in self.operators], timeout=1))
        for operator in self.operators:
            assert operator.task.done()
            if not operator.task.cancelled():
                operator.task.exception()

    # -- what stands in the journal -------------------------------------------------------------------------------

    def path(self, run: RunView) -> RunPath:
        return RunPath(run.ref.namespace, run.ref.name, run.uid.replace("-", ""))

    def records(self, run: RunView) -> list[Record]:
        """The run's own events."""
        log = EventLog(self.store, self.path(run), lambda: self.now)
        log.refresh()
        return log.records

    def kinds(self, run: RunView) -> list[str]:
        return [str(record.kind) for record in self.records(run)]

    def about_to_create(self, run: RunView, start: Start) -> None:
        """Check whether the pod that an operator is about to create may start. Uses the true state of the cluster."""
        self.created.append((start.key.path, start.attempt))
        if not self.alone:
            return
        if "ended" in self.kinds(run):
            self.wrong.append(f"{start.key.path} is started after the end of the run")
        alive = [pod for pod in self.pods() if pod.grace is None or self.now < self.leaving[pod.uid] + 10]
        for pod in alive:
            if pod.run_uid == run.uid and pod.key == start.key:
                self.wrong.append(f"{start.key.path} is started while {pod.name} is alive")
        ending = start.drain or start.key.compensate
        for bound in (self.bounds.whole, self.bounds.namespace):
            if bound is not None and len(alive) >= bound + (reserve(bound) if ending else 0):
                self.wrong.append(f"{start.key.path} is started beside {len(alive)} others, and {bound} may be at once")

    # -- what kubelets do -----------------------------------------------------------------------------------------

    def pods(self, *, alive: bool = True) -> list[PodView]:
        return [pod for pod in self.api.all("pods") if not alive or pod.phase != "Ended"]

    def advance(self, pod: PodView, how: str = "succeed") -> None:
        """Let the kubelet, or the runner in the pod, proceed by one step."""
        if pod.phase == "Ended":
            return
        if pod.phase == "Pending":
            if pod.grace is not None:
                self.end(pod, word=False)
            else:
                self.api.write("pods", pod.name, replace(pod, phase="Running", trouble=None))
            return
        container = self.containers[pod.uid]
        if container.advance(how, stopping=pod.grace is not None):
            self.end(pod, word=True)

    def end(self, pod: PodView, *, word: bool) -> None:
        """End the pod's container, with the runner's termination message or without one (killed, evicted, out of
        memory).
        """
        container = self.containers[pod.uid]
        fact = container.fact if word else None
        container.close()
        ended = replace(pod, phase="Ended", ended=self.now + self.skew, fact=fact, trouble=None)
        self.api.write("pods", pod.name, ended)
        if pod.grace is not None:
            self.api.remove("pods", pod.name)

    def vanish(self, pod: PodView) -> None:
        """Remove the pod at once, and kill its container."""
        self.containers[pod.uid].close()
        self.api.remove("pods", pod.name)

    def run_pods(self, how: Mapping[str, str] | None = None, rounds: int = 20) -> None:
        """Run every pod to its end. ``how`` has the results by step; other steps succeed."""
        for _ in range(rounds):
            for pod in self.pods():
                self.advance(pod, (how or {}).get(pod.key.path, "succeed"))

    # -- what people do -------------------------------------------------------------------------------------------

    def answer(self, decision: str = "Approved", resolve: str = "retry") -> int:
        """Answer every question and give every command that the runs wait for; returns how many."""
        done = 0
        for approval in self.api.all("approvals"):
            for by in ("ben", "cleo", "dora")[: min(approval.required, 3)]:
                done += self.api.decide(approval.name, by, decision)
        verbs: dict[str, Obj] = {
            "retry": {"retry": True},
            "giveUp": {"giveUp": True},
            "happened": {"happened": {"result": "paid"}},
        }
        for run in self.api.all("runs"):
            for entry in (run.status or {}).get("steps", ()):
                waiting = entry.get("waitingFor", {})
                if "resolve" in waiting:
                    self.api.command(run.ref.name, resolve={"step": entry["name"], **verbs[resolve]})
                elif "signal" in waiting:
                    self.api.command(run.ref.name, signal={"name": waiting["signal"], "payload": 1})
                elif "resume" in waiting:
                    self.api.command(run.ref.name, resume={})
                else:
                    continue
                done += 1
        return done

    # -- to the end -----------------------------------------------------------------------------------------------

    def finish(self, operator: Operator, *, rounds: int = 300, how: Mapping[str, str] | None = None) -> None:
        """Run everything without faults, and with people who answer, until every run has ended; else fail."""
        self.hook = lambda operator, side, what: None
        self.api.refuse = None
        for run in self.api.all("runs"):
            if run.suspend:
                self.api.edit_run(run.ref.name, suspend=False)
        for number in range(rounds):
            operator.hear_all()
            self.settle()
            if all(run.finished is not None for run in self.api.all("runs")) and not operator.behind("runs"):
                return
            self.run_pods(how)
            operator.hear_all()
            self.wait(2.0 if number % 4 else 40.0)
            if number % 4 == 3:
                self.answer()
        stuck = [(run.ref.name, run.status) for run in self.api.all("runs") if run.finished is None]
        raise AssertionError(f"these runs do not end: {stuck}")

    def status(self, name: str = "r") -> Obj:
        found: Obj = self.api.objects["runs"][name].get("status", {})
        return found


def lost(operator: Operator, what: str) -> None:
    """Raise the error of a request whose response was lost."""
    if what.startswith("store"):
        raise StoreUnavailable(f"{what}: no answer")
    raise Unavailable(f"{what}: no answer")


def steps_of(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name and state of every step in a status."""
    return ((entry["name"], entry["state"]) for entry in status.get("steps", ()))
