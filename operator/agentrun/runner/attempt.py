"""One attempt of one step, from its ``AttemptSpec`` to ``closed``, ``waiting`` or ``failed``.

The order makes it safe: take over the log, fold its records, settle a call that an earlier attempt left without a
result, then work. Nothing is acted on before it is committed.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from agentrun import __version__
from agentrun.api.facts import AttemptEnd, FailureInfo, StepFact
from agentrun.api.run import StepState
from agentrun.api.texts import person
from agentrun.api.workflow import FailureClass, Model, PodBody, WorkflowSpec
from agentrun.attempt.exit_codes import Exit
from agentrun.attempt.spec import AttemptSpec
from agentrun.expressions.templates import ExpressionError
from agentrun.journal.fold import Folded, apply, checkpoint, fold
from agentrun.journal.log import StepLog, open_step, parse_manifest
from agentrun.journal.records import Record
from agentrun.plan.retry import retries
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import CallResult, ClosedBody, Kind, LastBody, OpenedBody, ResultBody, WaitingBody
from agentrun.runner.failures import Failure
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.masking import Mask, environment_secrets
from agentrun.runner.outcomes import INTERRUPTED, Closed, Parked, failed
from agentrun.runner.ports import Ports
from agentrun.runner.process_id import surely_dead, this_process
from agentrun.runner.refusals import recorded, to_record
from agentrun.runner.secrets import secrets_of
from agentrun.runner.step_input import event_of, task_of, values_of
from agentrun.store.protocol import Store
from agentrun.workflow.program import CompiledStep, compile_step
from agentrun.workflow.step_kinds import kind_of


@dataclass(slots=True)
class Attempt:
    """An opened attempt: its step, its journal and its ports. The agent loop and the tools work on it."""

    spec: AttemptSpec
    ports: Ports
    store: Store
    manifest: RunManifest
    workflow: WorkflowSpec
    step: CompiledStep
    values: dict[str, Any]
    """The variables that the step's expressions see."""
    log: StepLog
    state: Folded
    spent_before: dict[str, Any]
    """The step's usage when this attempt opened. The allowance counts from there."""
    mailbox: Mailbox = field(default_factory=Mailbox)
    mask: Mask = field(default_factory=lambda: Mask(()))
    """Replaces every secret of the step's process in what is recorded: a model or a tool can repeat one."""
    uncounted: int = 0
    """Calls of ReadOnly and Idempotent tools that were begun and are not yet counted by a ``result``."""
    refused: set[str] = field(default_factory=set)
    """Parts of a request that the step's model refuses (words of ``refusals``). The next record holds the new ones."""

    async def commit(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Append a record and apply it to ``state``. Returns when the record is durable.

        Cancellation waits for the write in hand, so that it is known whether the record was committed.

        Raises:
            Fenced: a later attempt holds the step.
            StoreError: it is not known whether the record was written.
        """
        if kind is not Kind.COMPACTED or "state" not in body:  # a checkpoint repeats records that were masked
            body = self.mask.value(body)
        if self.uncounted and kind in (Kind.WAITING, Kind.FAILED, Kind.CLOSED):
            body = {**body, "toolCalls": self.uncounted}
            self.uncounted = 0
        if self.log.checkpoint_due and (kind is not Kind.COMPACTED or "state" not in body):
            await self.commit(Kind.COMPACTED, self.state.checkpoint())
        body = self._with_refused(body)
        cancelled = False
        if self.store.remote:
            write = asyncio.get_running_loop().run_in_executor(None, self.log.append, kind, body)
            while not write.done():
                try:
                    await asyncio.wait([write])
                except asyncio.CancelledError:  # can come more than once; the write's outcome must be known first
                    cancelled = True
            record = write.result()
        else:
            record = self.log.append(kind, body)  # on a disk: a thread would cost as much as the flush
        apply(self.state, record)
        self.ports.progress(str(kind), seq=record.seq, **_shown(kind, body))
        if cancelled:
            raise asyncio.CancelledError

    def is_retried(self, info: FailureInfo) -> bool:
        """Whether another attempt follows one that fails with ``info``."""
        return not self.spec.start.drain and retries(self.step.retry, info, self.state.failures + 1)

    def _with_refused(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """``body`` plus the known refusals, if some of them are not recorded yet."""
        model = self.model
        words = to_record(self.refused, model.name) if self.refused and model is not None else []
        return body if set(words) <= set(self.state.refused) else {**body, "refused": words}

    @property
    def model(self) -> Model | None:
        """The model that the attempt asks; None for a step without one and for a compensation."""
        return None if self.spec.start.key.compensate else self.step.model

    @property
    def body(self) -> PodBody:
        """What the attempt does: the step's own work, or its compensation."""
        return self.step.does(self.spec.start.key)

    def check_stop(self) -> None:
        """Between two calls: raise Parked if the attempt was asked to stop."""
        if self.mailbox.asked_to_leave:
            raise Parked(INTERRUPTED)

    @property
    def task(self) -> dict[str, Any]:
        """The step's rendered task, as its first attempt recorded it."""
        assert self.state.task is not None
        return self.state.task


Work = Callable[[Attempt], Any]

_EXITS = {AttemptEnd.CLOSED: Exit.CLOSED, AttemptEnd.WAITING: Exit.WAITING, AttemptEnd.FAILED: Exit.FAILED}


async def run_attempt(spec: AttemptSpec, ports: Ports, work: Work, mailbox: Mailbox) -> tuple[Exit, StepFact]:
    """Run the attempt. Return its exit code and the step's fact.

    The attempt reads ``mailbox`` between two calls. Cancellation abandons the call in hand and commits
    ``waiting`` with the reason.

    Raises:
        Fenced: another attempt holds the step; this one has done nothing since.
        StoreError: the store cannot be reached or cannot be used.
        Damaged: an object of the journal is not what was written.
    """
    attempt = await asyncio.to_thread(_open, spec, ports)
    attempt.mailbox = mailbox
    ports.progress.hide = attempt.mask.text
    if attempt.state.end is AttemptEnd.CLOSED:
        return Exit.CLOSED, attempt.state.fact()
    ports.progress.attach(attempt.store, spec.run, spec.start.key, spec.start.attempt)
    ports.progress(str(Kind.OPENED), seq=attempt.state.seq, attempt=spec.start.attempt)
    try:
        await _settle_unknown(attempt)
        if spec.start.drain:
            raise Closed({"outcome": str(StepState.CANCELLED)})
        async with asyncio.timeout(spec.start.timeout):
            output = await work(attempt)
        await attempt.commit(Kind.CLOSED, {"outcome": str(StepState.SUCCEEDED), **output})
    except Closed as closed:
        await attempt.commit(Kind.CLOSED, closed.body)
    except Parked as parked:
        await attempt.commit(Kind.WAITING, parked.body)
    except asyncio.CancelledError:
        # The grace period after SIGTERM is over, and the call in hand was abandoned. If it was the last commit, then
        # ``commit`` has waited for it: nothing may follow a record that ended the attempt.
        if attempt.state.end is None:
            await attempt.commit(Kind.WAITING, unknown_of(attempt) or INTERRUPTED)
    except TimeoutError:
        await _timed_out(attempt)
    except ExpressionError as error:
        await _fail(attempt, FailureInfo(FailureClass.INVALID, str(error), retryable=False))
    except Failure as failure:
        await _fail(attempt, failure.info, failure.kept)
    return _EXITS[attempt.state.end or AttemptEnd.CLOSED], attempt.state.fact()


def _open(spec: AttemptSpec, ports: Ports) -> Attempt:
    store = ports.open_store(spec.store)
    run = spec.run
    manifest = parse_manifest(store.get(run.manifest), run.manifest)
    workflow = WorkflowSpec.model_validate(manifest["workflow"])
    step = compile_step(workflow, spec.start.key.name)
    if step.model is not None and not spec.start.key.compensate:
        ports.preload()
    values = values_of(store, spec, manifest, step)
    events = {str(seq): event_of(store, run, seq) for seq in spec.start.events}

    def body(before: list[Record]) -> OpenedBody:
        found: OpenedBody = {
            "writer": ports.new_id(),
            "process": this_process(),
            "version": __version__,
            "allowance": spec.start.allowance.to_json(),
        }
        if events:
            found["events"] = events
        if fold(before).task is None:
            found["task"] = task_of(step, spec.start.key, values)
        return found

    log, records = open_step(store, run, spec.start.key, spec.start.attempt, body, ports.clock, checkpoint=checkpoint)
    state = fold(records)
    attempt = Attempt(spec, ports, store, manifest, workflow, step, values, log, state, dict(state.usage))
    if (model := attempt.model) is not None:
        attempt.refused |= recorded((*state.refused, *spec.start.refused), model.name)
    attempt.mask = Mask([*secrets_of(workflow, ports.secret), *environment_secrets(os.environ)])
    return attempt


async def _settle_unknown(attempt: Attempt) -> None:
    """Settle a call that has an intent and no result: only a person can say what it came to."""
    state = attempt.state
    if state.task is not None and "error" in state.task:
        raise failed(FailureInfo(FailureClass.INVALID, state.task["error"]))
    if state.intent is None:
        return
    call_id = state.intent["id"]
    said = sorted(state.events.items(), key=lambda entry: int(entry[0]))
    answers = [e for _, e in said if e["kind"] == EventKind.RESOLVED and e["callId"] == call_id]
    if not answers:
        await _outlast_caller(attempt)
        raise Parked(unknown_of(attempt) or {})
    answer = answers[-1]
    by = answer.get("by")
    if answer["answer"] == "giveUp":
        what = (
            "which was carried out, but whose answer cannot be used" if state.happened else "whose outcome is unknown"
        )
        why = f"{person(by)} gave up on {state.intent['tool']}, {what}"
        raise failed(FailureInfo(FailureClass.UNKNOWN, why, happened=state.happened))
    if answer["answer"] == "retry":
        # The call counts as not begun. If a budget or a timeout ends the attempt before a new intent, nobody is asked
        # again.
        because = f"{person(by)} says that it did not happen"
        undone: ResultBody = {"undone": call_id, "by": by, "because": because}
        await attempt.commit(Kind.RESULT, undone)
        return
    if kind_of(attempt.body).one_call:
        raise Closed({"outcome": str(StepState.SUCCEEDED), "output": answer["result"], "resolvedBy": by})
    text = answer["result"] if isinstance(answer["result"], str) else json.dumps(answer["result"])
    call = next(c for c in state.pending if c["id"] == call_id)
    result: CallResult = {"id": call_id, "callId": call["callId"], "tool": call["name"], "output": text, "called": True}
    result["resolvedBy"] = by
    answered: ResultBody = {"results": [result]}
    await attempt.commit(Kind.RESULT, answered)


async def _outlast_caller(attempt: Attempt) -> None:
    """Wait until the process that committed the intent can no longer send the call.

    Otherwise a person could find that nothing happened and answer "retry", and the stopped process could then continue:
    there would be two calls. It sends nothing later than ``send_within`` after its intent, which is older than this
    attempt. If SIGTERM arrives during the wait, this attempt still commits ``waiting`` with the question, because
    ``send_within`` is less than GRACE. The run may be about to end, so the question must not be lost.
    """
    if not surely_dead(attempt.state.caller):
        await asyncio.sleep(attempt.ports.send_within)


def unknown_of(attempt: Attempt) -> WaitingBody | None:
    """The body of ``waiting`` for the call that has an intent and no result; None if there is no such call."""
    intent = attempt.state.intent
    if intent is None:
        return None
    message = f"{intent['tool']} was called and no answer is known; look whether it happened, then resolve"
    return {"unknown": {"callId": intent["id"], "tool": intent["tool"], "args": intent["args"], "message": message}}


async def _timed_out(attempt: Attempt) -> None:
    unknown = unknown_of(attempt)
    if unknown is not None:
        await attempt.commit(Kind.WAITING, unknown)
        return
    why = FailureInfo(
        FailureClass.TIMEOUT, f"the step was at work for longer than its timeout of {attempt.step.timeout:g} s"
    )
    await attempt.commit(Kind.CLOSED, failed(why).body)


async def _fail(attempt: Attempt, info: FailureInfo, kept: dict[str, Any] | None = None) -> None:
    """Record that the attempt failed: ``failed`` if the retry rules allow another attempt, else ``closed``.

    If the outcome of a call is unknown, the record is ``waiting``. ``kept`` is what arrived of the answer to a call
    that was carried out.
    """
    unknown = unknown_of(attempt)
    answer: LastBody = {} if kept is None else {"answer": kept}
    if unknown is not None:
        unknown["unknown"]["message"] = f"{info.message}; look whether it happened, then resolve"
        await attempt.commit(Kind.WAITING, unknown)
    elif attempt.is_retried(info):
        await attempt.commit(Kind.FAILED, {**info.to_json(), **answer})
    else:
        closed: ClosedBody = {**failed(info).body, **answer}
        await attempt.commit(Kind.CLOSED, closed)


def _shown(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a progress line shows of a record: what happened, never content."""
    match kind:
        case Kind.TURN:
            return {"calls": [call["name"] for call in body["calls"]], "usage": body["usage"]}
        case Kind.INTENT:
            return {"tool": body["tool"]}
        case Kind.RESULT if "results" in body:
            return {"tools": [r["tool"] for r in body["results"]]}
        case Kind.CLOSED:
            return {"outcome": body["outcome"]}
        case Kind.FAILED:
            return {"class": body["class"]}
        case Kind.OPENED | Kind.RESULT | Kind.WAITING | Kind.COMPACTED:
            return {}
        case unreachable:
            assert_never(unreachable)
