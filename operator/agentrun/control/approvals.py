"""People, for one visit: takes their decisions and commands into the journal, creates and closes Approvals.

Everything here can be repeated: events are recorded once, the name of an Approval follows from its question, and a
command is answered once it is in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from agentrun.api.approval import DecidedReason, Owner, approval_object
from agentrun.api.printable import printable
from agentrun.control import run_status
from agentrun.control.answers import Answers
from agentrun.control.async_journal import Journal
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.inbox import commanded, decisions, switches
from agentrun.control.reconcile_log import run_log
from agentrun.control.run_state import RunState
from agentrun.control.views import ApprovalView, CommandView, RunView
from agentrun.journal.records import Record
from agentrun.journal.runs import as_events
from agentrun.kube.errors import AlreadyExists, Refused
from agentrun.plan.commands import NewEvent, Refusal, already_recorded
from agentrun.plan.events import EventIndex
from agentrun.plan.snapshot import Plan

UNHEARD = 30.0
"""Seconds until the next visit while a decision waits for the admission policies, or an Approval is refused."""

RUN_ENDED = "the run has ended"
"""Why a command to an ended run is rejected."""


@dataclass(slots=True)
class _Memory:
    """What is kept in memory of a run's questions. Lost with the leader: the next visit finds it again."""

    unheard: set[str] = field(default_factory=set)
    """The digests of questions with a decision that came in time, but that no admission policy vouches for yet."""
    refusal: str = ""
    """Why the API server refuses an Approval; "" if it refuses none."""


@dataclass(slots=True)
class People:
    """See the module."""

    cluster: Cluster
    journal: Journal
    cache: Cache
    answers: Answers
    clock: Callable[[], float]
    """Seconds since the epoch."""
    vouched: Callable[[], bool]
    """Whether the admission policies that vouch for decisions are installed."""
    _memories: WeakKeyDictionary[RunState, _Memory] = field(default_factory=WeakKeyDictionary)
    """By run, as long as the run is in memory."""

    def _memory(self, live: RunState) -> _Memory:
        return self._memories.setdefault(live, _Memory())

    def unheard(self, live: RunState) -> Set[str]:
        """The digests of questions with a decision that came in time, but that no admission policy vouches for yet."""
        return frozenset(self._memory(live).unheard)

    def wakes(self, live: RunState, now: float) -> Iterator[float]:
        """When to visit the run again because a decision or an Approval waits for a repair in the cluster."""
        memory = self._memory(live)
        if memory.unheard or memory.refusal:
            yield now + UNHEARD

    def told(self, live: RunState, planned: Plan) -> Plan:
        """The plan; if the API server refuses an Approval, with a status that says so."""
        refusal = self._memory(live).refusal
        return replace(planned, status=run_status.unasked(planned.status, refusal)) if refusal else planned

    async def hear(self, run: RunView, live: RunState) -> None:
        """Record changes of the spec, decisions and commands in the journal."""
        for event in switches(live, run, self.vouched()):
            await self._say(run, live, event)
        unheard = self._memory(live).unheard
        unheard.clear()
        for approval in list(self.cache.approvals.of(run.ref).values()):
            if approval.run_uid == run.uid and not approval.settled:
                for event in decisions(live, approval):
                    if not self.vouched():
                        message = (
                            f"a decision on {approval.name} is not accepted: the admission policies that verify it are"
                            " not installed: install the whole chart"
                        )
                        await self.cluster.record_event(run, "Warning", "PoliciesMissing", message)
                        if event.body["at"] < approval.expires_at:
                            unheard.add(approval.digest)
                        break
                    await self._say(run, live, event)
        for command in self.cache.open_commands(run.ref):
            if command.run_uid is not None and command.run_uid != run.uid:
                continue  # for an earlier run of that name: Leftovers removes it
            whole: CommandView | None = command
            if command.command is None and not command.problem:
                whole = await self.cluster.get_command(command)
            if whole is None:
                self.cache.commands.drop(command.run, command.name, command.uid)
                continue
            if not whole.open:
                continue  # a former leader has answered it; the watch event is on its way
            said = commanded(live, run, whole, self.vouched())
            if isinstance(said, Refusal):
                await self.refuse(run, whole, said.why)
            elif said is None or await self._say(run, live, said) or live.index().has_command(command.uid):
                await self.answers.give(whole)
            else:
                await self.refuse(run, whole, RUN_ENDED)

    async def refuse(self, run: RunView, command: CommandView, why: str) -> None:
        """Reject a command: an Event about the run, and the command's answer, say why. Raises as ``Answers.give``."""
        await self.cluster.record_event(run, "Warning", "CommandRefused", f"{command.name}: {why}")
        await self.answers.give(command, why)

    async def _say(self, run: RunView, live: RunState, event: NewEvent) -> bool:
        """Record the event. Return False if the journal has it already, or if the run has ended by its journal."""

        def there(records: Sequence[Record]) -> bool:
            return already_recorded(event, EventIndex(as_events(records)))

        if await self.journal.append(live.log, event.kind, event.body, there):
            by = event.body["by"]
            run_log(run).info("%s%s", event.kind, f" by {by}" if by else "")
            return True
        return False

    async def ask(self, run: RunView, live: RunState, planned: Plan) -> None:
        """Create an Approval for every open question, and close the Approvals of all other questions."""
        refusal = ""
        there = {a.digest: a for a in self.cache.approvals.of(run.ref).values() if a.run_uid == run.uid}
        owner = Owner(run.ref.name, run.ref.namespace, run.uid)
        for ask in planned.asks:
            if ask.request.digest in there:
                continue
            make = partial(
                approval_object, owner, ask.key, ask.attempt, ask.request, run.requested_by, now=self.clock()
            )
            try:
                await self._make(make)
            except Refused as error:
                refusal = refusal or f"{ask.key.label}: {error}"
                continue
            run_log(run).info("asks people: %s", printable(ask.request.subject, 200), extra={"step": ask.key.label})
            await self.cluster.record_event(
                run, "Normal", "AwaitingApproval", f"{ask.key.label}: {printable(ask.request.subject, 300)}"
            )
        open_ = {ask.request.digest for ask in planned.asks}
        for approval in [a for a in there.values() if a.digest not in open_ and not a.settled]:
            dropped = approval.digest in planned.dropped
            await self._settle(approval, "Cancelled" if dropped else self._outcome(approval, live))
        self._memory(live).refusal = refusal

    async def _make(self, make: Callable[..., dict[str, Any]]) -> None:
        with self.cache.approvals.expecting():
            try:
                made = await self.cluster.create_approval(make())
            except AlreadyExists:
                made = await self.cluster.create_approval(make(long=True))  # another run has the short name
            self.cache.approvals.put(made)  # before the watch reports it, so that no close misses a decision

    async def close_expired(self, run: RunView, live: RunState) -> None:
        """Close expired Approvals on the API server before the planner treats them as expired.

        If a decision came in time and its watch event is still on its way, the close raises Conflict, and the next
        visit takes the decision. An Approval whose decision no admission policy vouches for yet stays open. ``ask``
        closes decided Approvals, after the plan.
        """
        now = self.clock()
        for approval in list(self.cache.approvals.of(run.ref).values()):
            over = now >= approval.expires_at and approval.digest not in self._memory(live).unheard
            if approval.run_uid == run.uid and not approval.settled and over:
                for event in decisions(live, approval) if self.vouched() else ():
                    await self._say(run, live, event)  # arrived since ``hear``: the close must not miss it
                if self._outcome(approval, live) == "Expired":
                    await self._settle(approval, "Expired")

    def _outcome(self, approval: ApprovalView, live: RunState) -> DecidedReason:
        return live.index().closed(approval, self.clock())

    async def _settle(self, approval: ApprovalView, outcome: DecidedReason) -> None:
        now = self.clock()
        await self.cluster.settle_approval(approval, outcome, _SETTLED[outcome], now)
        self.cache.approvals.amend(replace(approval, settled=True))


_SETTLED: dict[DecidedReason, str] = {
    "Approved": "Enough people have approved.",
    "Rejected": "It was rejected.",
    "Expired": "Its time was over before enough people had decided.",
    "Cancelled": "The run does not wait for it any more.",
}
