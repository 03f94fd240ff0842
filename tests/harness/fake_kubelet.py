"""A fake container of a step's pod. It writes the runner's records one at a time, and a test can kill it at each."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from agentrun.api.canonical import digest_of
from agentrun.api.facts import ApprovalRequest, FailureInfo, StepFact
from agentrun.api.run import StepState
from agentrun.api.tools import Approvers
from agentrun.api.workflow import FailureClass
from agentrun.journal.fold import Folded, apply, checkpoint, fold
from agentrun.journal.log import Fenced, StepLog, open_step, read_records
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.records import Record
from agentrun.plan.events import tally
from agentrun.plan.retry import retries
from agentrun.plan.snapshot import Event, Start
from agentrun.records.step_records import Kind
from agentrun.runner.ports import Ports

if TYPE_CHECKING:
    from tests.harness.cluster_world import ClusterWorld

APPROVAL_TIME = 600.0


class Container:
    """One attempt. The argument ``how`` of ``advance`` decides the result of its call: ``succeed``, ``fail``, ``ask``
    (a person must approve the call first), ``budget`` (the allowance is too small)."""

    def __init__(self, world: ClusterWorld, pinned: PinnedRun, start: Start) -> None:
        self.world, self.pinned, self.start = world, pinned, start
        self.fact: StepFact | None = None
        """The termination message; None if there is none."""
        self.opened = False
        self._how, self._stopping = "succeed", False
        self._moves = self._life()

    def advance(self, how: str, *, stopping: bool) -> bool:
        """Proceed by one record or one effect, and return whether the attempt has ended."""
        self._how, self._stopping = how, stopping
        try:
            next(self._moves)
        except StopIteration:
            return True
        except Fenced:
            self.fact = None
            return True
        return False

    def close(self) -> None:
        """End the attempt where it is: SIGKILL, or after its end."""
        self._moves.close()

    # -- the attempt ------------------------------------------------------------------------------------------------

    def _life(self) -> Generator[None, None, None]:
        store, run, key, start = self.world.store, self.pinned.run, self.start.key, self.start
        if self._stopping:
            return  # it was stopped before it began
        ports = Ports(clock=lambda: self.world.now + self.world.skew)
        ports.set_clock(start.at)
        self._clock = ports.clock
        log, records = open_step(store, run, key, start.attempt, self._opening, self._clock, checkpoint=checkpoint)
        state = fold(records)
        self.opened = True
        yield
        if state.end is None:
            yield from self._work(log, state)
        self.fact = state.fact()

    def _opening(self, before: Sequence[Record]) -> dict[str, Any]:
        events = {}
        for seq in self.start.events:
            [record] = read_records(self.world.store, self.pinned.run.events, [seq])
            events[str(seq)] = {"at": record.at} | record.body | {"kind": record.kind}
        body: dict[str, Any] = {"writer": self.world.new_uid(), "process": {}, "task": {"args": {}}}
        return body | ({"events": events} if events else {})

    def _work(self, log: StepLog, state: Folded) -> Generator[None, None, None]:
        def commit(kind: Kind, body: dict[str, Any]) -> None:
            apply(state, log.append(kind, body))

        if state.intent is not None:
            answers = [e for e in state.events.values() if e["kind"] == "resolved" and e["callId"] == "call"]
            if not answers:
                unknown = {"callId": "call", "tool": "t", "args": {}, "message": "did it happen?"}
                return commit(Kind.WAITING, {"unknown": unknown})
            answer = max(answers, key=lambda e: e["at"])
            if answer["answer"] == "giveUp":
                return commit(Kind.CLOSED, _failed(FailureInfo(FailureClass.UNKNOWN, "gave up")))
            if answer["answer"] == "happened":
                return commit(Kind.CLOSED, {"outcome": str(StepState.SUCCEEDED), "output": answer["result"]})
        if self.start.drain:
            return commit(Kind.CLOSED, {"outcome": str(StepState.CANCELLED)})
        if self._stopping:
            return commit(Kind.WAITING, {"interrupted": True})
        request = self._asked(state)
        if request is not None:
            said = [Event(0, e["at"], e["kind"], e) for e in state.events.values() if e["kind"] == "decided"]
            counted = tally(request, said, self._clock(), verified=True)
            if counted.state == "Pending":
                return commit(Kind.WAITING, {"approvals": [request.to_json()]})
            if counted.state != "Approved":
                why = FailureInfo(FailureClass.REJECTED, counted.state, retryable=False)
                return commit(Kind.CLOSED, _failed(why))
        elif self._how == "budget" and not self.start.allowance.last:
            return commit(Kind.WAITING, {"budget": True})
        if self._how == "fail":
            info = FailureInfo(FailureClass.TOOL, "it broke")
            retry = self.pinned.program.step(self.start.key.name).retry
            if retries(retry, info, state.failures + 1):
                return commit(Kind.FAILED, info.to_json())
            return commit(Kind.CLOSED, _failed(info))
        commit(Kind.INTENT, {"id": "call", "tool": "t", "args": {}})
        yield
        self.world.ledger[self.start.key.path] += 1
        yield
        commit(Kind.CLOSED, {"outcome": str(StepState.SUCCEEDED), "output": self.start.key.path})
        yield
        return None

    def _asked(self, state: Folded) -> ApprovalRequest | None:
        if "call" in state.requests:
            return ApprovalRequest.from_json(state.requests["call"])
        if self._how != "ask":
            return None
        digest = digest_of([self.pinned.run.uid, self.start.key.path, "call"])
        people = Approvers(groups=["finance"])
        return ApprovalRequest("Pay?", None, digest, people, 1, self._clock() + APPROVAL_TIME, "call", "t")


def _failed(info: FailureInfo) -> dict[str, Any]:
    return {"outcome": str(StepState.FAILED), "failure": info.to_json()}
