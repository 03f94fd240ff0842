"""The driver of one run on one machine: a loop of snapshot, plan, effects, wait.

The driver decides nothing: ``plan`` does. A driver that takes a run over reads everything from the journal again: the
facts are folds of the steps' records, the events are records, and the process identity in an ``opened`` record finds a
running attempt that another driver started. Only the count and the time of unopened attempts are lost
(``AttemptTracker``), and begin again.

Instants are those of the wall clock, because they are compared with the journal's. If that clock jumps, the instants in
memory are moved with it, and instants of the journal that lie in the future count as now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

from agentrun.api.errors import AgentrunError
from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Outcome, Reason
from agentrun.attempt.environment import GRACE
from agentrun.attempt.exit_codes import Exit
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import Folded, fold
from agentrun.journal.log import EventLog, read_step
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.runs import read_states
from agentrun.journal.signatures import SigningKey
from agentrun.local.clock_jumps import Clocks
from agentrun.local.lease import Lease
from agentrun.local.processes import Process, Processes, how_it_ended
from agentrun.local.room import Room, why
from agentrun.local.store_calls import patiently
from agentrun.plan.attempt_tracker import AttemptTracker
from agentrun.plan.planner import plan_slice
from agentrun.plan.snapshot import Append, Execution, Plan, Snapshot, Start, Stop
from agentrun.plan.work_budget import SLICE, Work
from agentrun.runner.process_id import surely_alive
from agentrun.runner.steady_clocks import elapsed
from agentrun.store.protocol import Store

T = TypeVar("T")

POLL = 0.5
"""Seconds between two reads of the run's log for events of people, while steps run."""

IDLE_POLL = 2.0
"""The same while nothing runs: a wait of days must not cost a request to S3 twice a second."""

ORPHAN_PATIENCE = GRACE + 10.0
"""Seconds that an attempt of a dead driver may take to leave. An attempt that hangs or is stopped is then succeeded by
another, and the fence keeps it from doing anything new."""


class NoProcess(AgentrunError):
    """This machine cannot start a process for a step, and no child of this driver is left whose end could make room."""


class End(Enum):
    """Why a driver stopped."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    WAITING = "waiting for a person"


@dataclass(slots=True)
class Watcher:
    """The callbacks to which a driver reports: for a view on a terminal, for plain lines, or for nothing."""

    plan: Callable[[Plan], None] = lambda _: None
    line: Callable[[StepKey, dict[str, Any]], None] = lambda _key, _line: None
    tell: Callable[[str], None] = lambda _: None


@dataclass(slots=True)
class Driver:
    """Drives one run until the run ends, or until only a person can make it go on."""

    store: Store
    pinned: PinnedRun
    processes: Processes
    lease: Lease
    watcher: Watcher = field(default_factory=Watcher)
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""
    elapsed: Callable[[], float] = elapsed
    """A clock in seconds that never jumps and goes on while the machine sleeps."""
    key: SigningKey | None = None
    """Signs the end of the run."""
    last: Plan | None = None
    """The last plan. It also knows of lost attempts that no journal tells of."""
    _log: EventLog = field(init=False)
    _attempts: AttemptTracker = field(default_factory=AttemptTracker)
    _running: dict[StepKey, Execution] = field(default_factory=dict)
    _children: dict[StepKey, Process] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _room: Room = field(default_factory=Room)
    _work: Work = field(default_factory=Work)
    """The cost and the values of the run's expressions."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _clocks: Clocks = field(init=False)

    def __post_init__(self) -> None:
        sign = None if self.key is None else self.key.of(self.pinned.manifest)
        self._log = EventLog(self.store, self.pinned.run, self.clock, sign)
        self._clocks = Clocks(self.clock, self.elapsed)

    async def drive(self) -> End:
        """Drive the run. Cancellation (Ctrl-C) asks running attempts to leave and waits for them; a second one kills
        them.

        Raises:
            HeldByOther: another driver has the run, or took it over.
            StoreError: the store stayed out of reach, or is unfit.
            Damaged: an object of the journal is not what was written.
            NoProcess: this machine cannot start a process for a step.
        """
        await self.lease.acquire(self.watcher.tell)
        keeper = asyncio.ensure_future(self.lease.keep())
        driving = asyncio.ensure_future(self._drive())
        try:
            await asyncio.wait({keeper, driving}, return_when=asyncio.FIRST_COMPLETED)
            if not driving.done():
                keeper.result()  # raises why the lease was lost
            return driving.result()
        finally:
            driving.cancel()
            keeper.cancel()
            await asyncio.gather(driving, keeper, return_exceptions=True)
            await self._leave()

    async def _drive(self) -> End:
        states = await self._io(read_states, self.store, self.pinned.run)
        self._attempts = AttemptTracker({key: state.fact() for key, state in states.items()})
        self._adopt(states)
        await self._io(self._log.refresh)
        while True:
            self._wake.clear()
            planned = self.last = await self._plan()
            self.watcher.plan(planned)
            if planned.ended:
                return End.SUCCEEDED if planned.status["phase"] == Outcome.SUCCEEDED else End.FAILED
            for effect in planned.effects:
                if not await self._apply(effect):
                    break
            if any(isinstance(effect, Append) for effect in planned.effects):
                continue
            if planned.waits_for_person:
                return End.WAITING
            await self._sleep(planned)
            await self._io(self._log.refresh)

    async def _plan(self) -> Plan:
        """The plan of this moment, in slices. Each slice plans a new snapshot, so the result is of the newest one."""
        planned = plan_slice(self._snapshot(), self._work, SLICE)
        while planned is None:
            await asyncio.sleep(0)  # lets other tasks run, such as the lease's
            planned = plan_slice(self._snapshot(), self._work, SLICE)
        return planned

    def _snapshot(self) -> Snapshot:
        return self.pinned.driven(self._now(), self._attempts, self._log.records, dict(self._running))

    def _now(self) -> float:
        """The wall clock's instant, after the instants in memory are moved with it if it jumped. So a jump forward ends
        no attempt too early, and no pause waits until a clock that was set back has caught up.
        """
        now, jump = self._clocks.look()
        if jump:
            self._running = {key: replace(e, started=e.started + jump) for key, e in self._running.items()}
            self._attempts.clock_set(jump)
        self._attempts.as_of(now)
        return now

    async def _apply(self, effect: Start | Stop | Append) -> bool:
        """Carry out an effect. Return False if the run's log has new events, or the machine has no room."""
        match effect:
            case Start():
                return await self._start(effect)
            case Stop(key=key):
                self._running[key] = replace(self._running[key], stopping=True)
                if key in self._children:
                    self._children[key].stop()
            case Append(kind=kind, body=body):
                return await self._io(self._log.append, kind, body, self._log.overtaken())
        return True

    async def _start(self, start: Start) -> bool:
        if self._room.pause(self.elapsed()):
            return False
        spec = AttemptSpec(self.store.url, self.pinned.run, start, leash=True)
        key = start.key
        self._running[key] = Execution(start.attempt, self.clock(), start.allowance, drain=start.drain)
        try:
            child = await self.processes.start(spec, lambda line: self.watcher.line(key, line))
        except OSError as error:
            # This is no lost attempt: the machine has no room (descriptors, processes, memory) for one now.
            del self._running[key]
            self._hold_back(key, error)
            return False
        self._room.given()
        self._children[key] = child
        self._spawn(self._follow(key, start.attempt, child))
        return True

    def _hold_back(self, key: StepKey, error: OSError) -> None:
        """Start no process until a child has ended or a pause is over.

        Raises NoProcess after ``TRIES`` refusals in a row, if no child is at work.
        """
        if self._room.tried_enough and not self._children:
            raise NoProcess(
                f"run {self.pinned.run.name}: no process can be started for step {key.label}: {why(error)}. Then "
                "continue"
                f" with: agentrun resume {self.pinned.run.name}"
            ) from error
        if self._room.refused(self.elapsed()):
            self.watcher.tell(f"{key.label}: waiting for room: no process can be started: {why(error)}")

    async def _follow(self, key: StepKey, attempt: int, child: Process) -> None:
        code, message = await child.ended()
        if code == Exit.STORE:
            # The attempt could not write. Reading may still work (a full disk). Attempts that begin only to end like
            # this one would soon count as lost for good, so first wait for a store that takes writes.
            await self._io(self.store.probe)
        await self._gone(key, attempt, message, how_it_ended(code))

    async def _gone(
        self, key: StepKey, attempt: int, message: dict[str, Any] | None, why: str, *, adrift: bool = False
    ) -> None:
        """Record that an attempt is over: by its termination message, or by its journal if it left none.

        ``why``: how its process ended, in case the attempt is lost. ``adrift``: the attempt is given up, and its
        process did not end.
        """
        if message is not None:
            fact = StepFact.from_json(message)
        else:
            state = await self._io(lambda: fold(read_step(self.store, self.pinned.run, key)))
            if key in self._children and _lives(state):
                # An attempt of a dead driver opened only now and fenced ours: wait for that one.
                del self._children[key]
                self._await_orphan(key, state)
                return
            fact = state.fact()
        if adrift:
            self._attempts.mark_adrift(key, attempt)
        else:
            # The journal may name an attempt of an earlier driver, which opened after ours came to nothing.
            for number in {attempt, fact.attempt}:
                self._attempts.mark_gone(key, number)
        self._room.child_ended()
        self._attempts.record_end(key, attempt, fact, self.clock(), (Reason.RETRYING, why))
        self._running.pop(key, None)
        self._children.pop(key, None)
        self._wake.set()

    def _adopt(self, states: dict[StepKey, Folded]) -> None:
        """Wait for the attempts of a driver that died: they are about to leave, and their last records are worth it."""
        for key, state in states.items():
            if _lives(state):
                self._await_orphan(key, state)
            else:
                self._attempts.mark_gone(key, state.attempt)

    def _await_orphan(self, key: StepKey, state: Folded) -> None:
        self.watcher.tell(f"{key.label}: waiting for the attempt that the previous driver left behind")
        self._running[key] = Execution(state.attempt, self.clock(), stopping=True)
        self._spawn(self._outlive(key, state))

    async def _outlive(self, key: StepKey, state: Folded) -> None:
        adrift = False
        try:
            async with asyncio.timeout(ORPHAN_PATIENCE):
                while surely_alive(state.process):  # noqa: ASYNC110  (not our child: nothing reports its end)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.watcher.tell(f"{key.label}: process {state.process['pid']} does not stop; continuing without it")
            adrift = True
        await self._gone(key, state.attempt, None, "its driver died, and it left no result", adrift=adrift)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        # A task that failed (the store, a damaged journal) stays in the set: ``_sleep`` raises its error.
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
        self._wake.set()

    async def _sleep(self, planned: Plan) -> None:
        """Wait until a child ends, the plan's ``wake_at`` comes, a pause is over, or it is time to read people's
        events. Raises the error of a task that failed.
        """
        for task in [t for t in self._tasks if t.done()]:
            task.result()
        wait = POLL if self._running else IDLE_POLL
        if planned.wake_at is not None:
            wait = min(wait, max(0.0, planned.wake_at - self.clock()))
        if (pause := self._room.pause(self.elapsed())) is not None:
            wait = min(wait, pause)
        try:
            await asyncio.wait_for(self._wake.wait(), wait)
        except TimeoutError:
            return

    async def _io(self, call: Callable[..., T], *args: Any) -> T:
        return await patiently(self.watcher.tell, call, *args)

    async def _leave(self) -> None:
        """Ask running children to leave, wait for them, release the lease. Cancellation kills the children."""
        for child in self._children.values():
            child.stop()
        following = [task for task in self._tasks if not task.done()]
        if self._children:
            self.watcher.tell("waiting for running steps to commit and stop; Ctrl-C again kills them")
        try:
            await asyncio.gather(*(child.ended() for child in list(self._children.values())))
        except asyncio.CancelledError:
            for child in self._children.values():
                child.stop()
            # Killed children end at once. Wait all the same: asyncio warns of a child that outlives its loop.
            await asyncio.gather(*(child.ended() for child in self._children.values()))
            raise
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
            await self.lease.release()


def _lives(state: Folded) -> bool:
    """Whether the step's last attempt is at work in a process of this machine."""
    return state.end is None and surely_alive(state.process)
