"""The timeline of a run: one line or more for each record, saying who did what, when, and with what result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any, assert_never

from agentrun.api.facts import ApprovalRequest, Usage
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.run import StepState
from agentrun.api.texts import person
from agentrun.journal.records import Record
from agentrun.query.texts import until, value
from agentrun.records import run_events, step_records
from agentrun.records.run_events import EventKind, event_kind
from agentrun.records.step_records import Kind, step_kind

LONG = 160
"""Characters shown of an output, an answer or a message. The journal has all of it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the timeline. ``step`` is a label, empty for the run as a whole. ``text`` is printable."""

    at: float
    step: str
    what: str
    text: str
    seq: int | None
    """The record's number in its step's log, where a fork can begin; None for an event."""
    detail: dict[str, Any]
    """The record's body, for programs."""

    @property
    def place(self) -> str:
        """The step and the record, in the form of ``agentrun fork --from``."""
        return self.step if self.seq is None else f"{self.step}@{self.seq}"


def timeline(steps: Mapping[StepKey, Iterable[Record]], events: Iterable[Record]) -> list[Line]:
    """The lines for all records of a run, in the order of time. Checkpoints have no line."""
    requests = _requests(steps, events)
    logs: list[list[Line]] = []
    for key, records in steps.items():
        turns = 0
        logs.append([])
        for record in records:
            turns += record.kind == Kind.TURN
            texts = _step(record, turns)
            logs[-1] += [Line(record.at, key.label, str(record.kind), text, record.seq, record.body) for text in texts]
    logs.append([])
    for record in events:
        body = record.body
        text = _event(record, requests)
        step = body.get("step", "")
        label = StepKey.parse(step).label if step else ""
        logs[-1].append(Line(record.at, label, str(record.kind), text, None, body))
    # Records of one log keep their order even if the clocks of its machines differ: a line sorts by the latest time
    # up to it in its log.
    placed = [
        (place, line)
        for log in logs
        for place, line in zip(accumulate((line.at for line in log), max), log, strict=True)
    ]
    return [line for _, line in sorted(placed, key=lambda entry: entry[0])]


def _requests(steps: Mapping[StepKey, Iterable[Record]], events: Iterable[Record]) -> dict[str, ApprovalRequest]:
    """The requests for approval, by digest."""
    asked = [r.body["request"] for r in events if r.kind == EventKind.APPROVAL_REQUESTED]
    for records in steps.values():
        for record in records:
            if record.kind == Kind.WAITING:
                asked += record.body.get("approvals", ())
    return {request["digest"]: ApprovalRequest.from_json(request) for request in asked}


def _step(record: Record, turns: int) -> list[str]:
    body = record.body
    match step_kind(record.kind):
        case Kind.OPENED:
            return [f"attempt {record.attempt} opened {_opened(body)}"]
        case Kind.TURN:
            return [_turn(body, turns)]
        case Kind.INTENT:
            return [_intent(body)]
        case Kind.RESULT:
            return _results(body)
        case Kind.WAITING:
            return _waiting(body)
        case Kind.FAILED:
            return [f"attempt {record.attempt} failed: {_failure(body)}", *_kept(body)]
        case Kind.CLOSED:
            return [_closed(body), *_kept(body)]
        case Kind.COMPACTED:
            return _compacted(body)
        case None:
            return [printable(record.kind)]
        case unreachable:
            assert_never(unreachable)


def _opened(body: step_records.OpenedBody) -> str:
    process = body.get("process", {})
    took = _took(body.get("events", {}))
    return f"by process {process.get('pid', '?')} on {printable(process.get('host', '?'), 60)}{took}"


def _intent(body: step_records.IntentBody) -> str:
    approved = body.get("approvedBy")
    by = f", approved by {_names(approved)}" if approved else ""
    return f"begins {call(body['tool'], body['args'])} (at most once{by})"


def _took(events: dict[str, Any]) -> str:
    kinds: dict[str, str] = {EventKind.DECIDED: "decision", EventKind.RESOLVED: "resolution"}
    taken = [f"{kinds.get(e.get('kind', ''), 'event')} of {printable(e.get('by', '?'), 60)}" for e in events.values()]
    return f", with the {', the '.join(taken)}" if taken else ""


def call(tool: str, args: Any) -> str:
    """A tool call in the notation ``tool({…})``."""
    return printable(f"{tool}({json.dumps(args, ensure_ascii=False)})", LONG)


def _turn(body: step_records.TurnBody, number: int) -> str:
    calls = [call(c["name"], c["args"]) for c in body["calls"]]
    if calls:
        said = "calls " + ", ".join(calls)
    elif body.get("refusal"):
        said = f"refuses: {value(body['refusal'], LONG)}"
    else:
        said = f"says {value(body.get('text') or '(nothing)', LONG)}"
    cut = f" (cut off: {printable(body['incomplete'], 40)})" if body.get("incomplete") else ""
    seconds = f", {body['seconds']:.1f} s" if "seconds" in body else ""
    return f"turn {number}: {said}{cut} ({spent(Usage.from_json(body['usage']))}{seconds})"


def spent(usage: Usage) -> str:
    """Tokens and cost, in a few words."""
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    cost = f", ${usage.to_json()['costUSD']}" if usage.cost_usd != Decimal(0) else ""
    return f"{usage.input_tokens:,}{cached} + {usage.output_tokens:,} tokens{cost}"


def _results(body: step_records.ResultBody) -> list[str]:
    if "repair" in body:
        return [f"asks again: {value(body['repair'], LONG)}"]
    if "undone" in body:
        return [f"did not happen, so it may be retried: {value(body.get('because', ''), LONG)}"]
    lines = []
    for result in body["results"]:
        name = printable(result["tool"], 80)
        answer = value(result["output"], LONG)
        if not result["called"]:
            lines.append(f"{name} was not called: {answer}")
        elif result.get("isError"):
            lines.append(f"{name} answers with an error: {answer}")
        else:
            by = f" (as {person(result['resolvedBy'])} says, unverified)" if "resolvedBy" in result else ""
            lines.append(f"{name} answers {answer}{by}")
        lines += _kept(result)
    return lines


def _waiting(body: step_records.WaitingBody) -> list[str]:
    lines = [f"waits for approval: {asked(ApprovalRequest.from_json(r))}" for r in body.get("approvals", ())]
    if "unknown" in body:
        unknown = body["unknown"]
        lines.append(f"outcome unknown of {call(unknown['tool'], unknown['args'])}: {value(unknown['message'], LONG)}")
    lines += _kept(body)
    if body.get("interrupted"):
        lines.append("was asked to stop, and stopped")
    if body.get("budget"):
        lines.append("waits for a larger share of the budget")
    return lines or ["waits"]


def _kept(body: Mapping[str, Any]) -> list[str]:
    """A line for the part that was kept of an answer that could not be used."""
    kept = body.get("answer")
    if not isinstance(kept, dict):
        return []
    came = kept.get("body", kept.get("head", ""))
    return [f"its answer is kept: HTTP {kept.get('status')}, {kept.get('bytes', 0):,} bytes: {value(came, LONG)}"]


def asked(request: ApprovalRequest) -> str:
    """A request for approval in words: the subject, who may decide, until when, and the start of the digest."""
    need = f"{request.required} of " if request.required > 1 else ""
    return (
        f"{value(request.subject, LONG)} ({need}{approvers(request)}, {until(request.expires_at)}, "
        f"{request.digest[:19]})"
    )


def approvers(request: ApprovalRequest) -> str:
    """The groups and users who may decide, in words."""
    groups = [f"group {printable(g, 60)}" for g in request.approvers.groups]
    return ", ".join([*groups, *(printable(u, 60) for u in request.approvers.users)])


def _failure(body: Mapping[str, Any]) -> str:
    return f"{value(body['message'], None)} ({printable(body['class'], 40)})"


def _closed(body: step_records.ClosedBody) -> str:
    said = printable(body["outcome"], 40)
    if body.get("failure"):
        said += f": {_failure(body['failure'])}"
    elif body.get("output") is not None:
        said += f": {value(body['output'], LONG)}"
    if "resolvedBy" in body:
        said += f" (as {person(body['resolvedBy'])} says, unverified)"
    return said + _source(body)


def _source(body: Mapping[str, Any]) -> str:
    source = body.get("source")
    return f" (taken over from {_from(source)})" if source else ""


def _from(source: dict[str, Any]) -> str:
    run = source["run"].partition("/")[2].rpartition("-")[0]
    where = (
        f", record {source['seq']}" if "seq" in source else f", event {source['event']}" if "event" in source else ""
    )
    return printable(f"run {run}{where}", 120)


def _compacted(body: step_records.CompactedBody) -> list[str]:
    if body.get("reason") == "fork":
        return [f"goes on from {_from(body['source'])}"]
    if "state" in body:
        return []  # a checkpoint: nothing happened
    return [f"history shortened: the model's own summary replaces {body.get('dropped', '?')} entries"]


def _event(record: Record, requests: Mapping[str, ApprovalRequest]) -> str:
    body = record.body
    by = f"by {_person(body) if body.get('by') else person(None)}"
    named = by if body.get("by") or body.get("verified") is False else ""  # else the runtime may have done it
    match event_kind(record.kind):
        case EventKind.APPROVAL_REQUESTED:
            return f"asks for approval: {asked(ApprovalRequest.from_json(body['request']))}"
        case EventKind.DECIDED:
            return _decided(body, by, requests.get(body["digest"]))
        case EventKind.SIGNALLED:
            return f"signal {printable(body['name'], 60)} {by}: {value(body.get('payload'), LONG)}"
        case EventKind.WAIT_STARTED:
            return _wait_started(body)
        case EventKind.SETTLED:
            return _settled(body)
        case EventKind.RESOLVED:
            return _resolved(body, by)
        case EventKind.ENDED:
            return _ended(body)
        case EventKind.TTL_CHANGED:
            ttl = body["ttlSecondsAfterFinished"]
            return f"time to live after the end set to {f'{ttl} s' if ttl is not None else 'none'} {named}".rstrip()
        case (
            EventKind.SUSPENDED
            | EventKind.UNSUSPENDED
            | EventKind.CANCELLED
            | EventKind.TIMED_OUT
            | EventKind.RESUMED
            | None
        ):
            return f"{printable(record.kind, 40)} {named}".rstrip()
        case unreachable:
            assert_never(unreachable)


def _decided(body: run_events.DecidedBody, by: str, request: ApprovalRequest | None) -> str:
    what = value(request.subject, LONG) if request else "a request that is not in this journal"
    comment = f": {value(body['comment'], LONG)}" if body.get("comment") else ""
    return f"{printable(body['decision'], 20)} {by}{comment} — {what} ({printable(body['digest'], 19)})"


def _wait_started(body: run_events.WaitStartedBody) -> str:
    signal = f" for signal {printable(body['signal'], 60)}" if "signal" in body else ""
    at = body.get("until")
    return f"waits{signal}" + (f" {until(at)}" if at is not None else "")


def _resolved(body: run_events.ResolvedBody, by: str) -> str:
    answers: dict[str, str] = {"happened": "it happened", "retry": "try again", "giveUp": "give up"}
    result = f", with {value(body['result'], LONG)}" if body["answer"] == "happened" else ""
    return f"resolved {by}: {answers.get(body['answer'], printable(body['answer']))}{result}"


def _ended(body: run_events.EndedBody) -> str:
    why = f": {_failure(body['failure'])}" if body.get("failure") else ""
    where = f" in {printable(body['failedStep'], 60)}" if body.get("failedStep") else ""
    return f"run {printable(body['outcome'], 20)}{where}{why}{_stays(body)}"


def _stays(body: run_events.EndedBody) -> str:
    """The steps whose effects were not undone, in words; empty if the record of the end lists no compensations."""
    undone = (label for label, state in body.get("compensations", {}).items() if state != StepState.SUCCEEDED)
    stays = [label.removesuffix(".compensate") for label in undone]
    return f"; not undone: {printable(', '.join(stays), LONG)}" if stays else ""


def _person(body: Mapping[str, Any]) -> str:
    groups = [printable(group, 60) for group in body.get("groups", ())]
    as_group = f", as {' and '.join(groups)}" if groups else ""
    verified = "" if body.get("verified") else ", unverified"
    return f"{person(body['by'])} ({(as_group + verified).removeprefix(', ')})".replace(" ()", "")


def _settled(body: run_events.SettledBody) -> str:
    said = printable(body["state"], 40)
    if body.get("failure"):
        said += f": {_failure(body['failure'])}"
    elif body.get("output") is not None:
        said += f": {value(body['output'], LONG)}"
    return said + _source(body)


def _names(people: Iterable[str]) -> str:
    return ", ".join(printable(person, 60) for person in people)
