"""Gives a person's commands and decisions to a run in a store, by appending events to its journal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentrun.api.approval import Verdict
from agentrun.api.command import Resolve, Signal
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.texts import person
from agentrun.cli.place import Place
from agentrun.journal.log import read_step
from agentrun.local.user import user
from agentrun.plan.commands import Author, Cancel, Decide, Refusal, Suspend, event_for
from agentrun.plan.events import EventIndex, may_decide
from agentrun.query.run_view import Question
from agentrun.query.stored_run import StoredRun
from agentrun.query.texts import clock, value
from agentrun.query.timeline import approvers
from agentrun.records.step_records import Kind


def give(run: StoredRun, verb: Signal | Resolve | Suspend | Cancel) -> tuple[StoredRun, bool]:
    """Append the event for the command. Return the run after it, and whether it is new. Raises Refused."""
    event = event_for(verb, run, Author(user()))
    if isinstance(event, Refusal):
        raise Refused(event.why)
    # A run that is being cancelled cannot be suspended.
    if run.record(event, unless=lambda index: isinstance(verb, Suspend) and index.cancelled is not None):
        return StoredRun.read(run.store, run.run), True
    after = StoredRun.read(run.store, run.run)
    after.still_going()
    if isinstance(verb, Resolve):
        assert event.about is not None
        before = run.index.resolution(StepKey.parse(event.body["step"]), event.about)
        assert before is not None
        who = f"{person(before.body.get('by'))} at {clock(before.at)}"
        raise Refused(f"{verb.step} is already resolved: {before.body['answer']}, by {who}")
    return after, False


def check_decider(question: Question, groups: Sequence[str]) -> None:
    """Raise Refused if the operating system's user, with the claimed ``groups``, may not decide."""
    if may_decide(question.request, user(), groups):
        return
    claim = f" as {' and '.join(printable(group, 60) for group in groups)}" if groups else " without --as-group"
    who = approvers(question.request)
    raise Refused(f"{user()}{claim} may not decide {question.step}; allowed to decide: {who}. Nothing was written")


def decide(
    place: Place, run: StoredRun, question: Question, decision: Verdict, comment: str, groups: Sequence[str]
) -> int:
    """Append the decision, and return how many people have approved.

    Raises:
        Refused: this person or enough others have decided before. Nothing was written.
    """
    by, request = user(), question.request
    verb = Decide(StepKey.parse(question.step), request.digest, decision, comment, groups)

    def decided(index: EventIndex) -> bool:
        return index.tally(request, time.time()).state != "Pending"

    # The same as on a cluster: there the Approval is closed by then, and accepts no decision.
    if run.record(event_for(verb, run, Author(by)), unless=decided):
        return len(run.index.tally(request, time.time()).by)
    run.now = time.time()
    run.still_going()
    before = run.index.decision_by(request.digest, by)
    if before is not None:
        said = f"you have already decided {question.step}: {before.body['decision']} at {clock(before.at)}"
        stop = printable(place.command("cancel", run.name))
        raise Refused(f"{said}; a decision cannot be changed. To stop the run: {stop}")
    raise Refused(not_asked(run, question.step))


def not_asked(run: StoredRun, label: str) -> str:
    """Why the step has nothing to decide: who decided and when, or the step's state."""
    key, index = StepKey.parse(label), run.index
    asked_before = [e.body["request"] for e in (index.requested.get(key.path),) if e is not None]
    if key in run.states:
        for record in read_step(run.store, run.run, key, whole=True):
            asked_before += record.body.get("approvals", ()) if record.kind == Kind.WAITING else ()
    if asked_before:
        request = ApprovalRequest.from_json(asked_before[-1])
        tally = index.tally(request, run.now)
        what = f"{label}: {value(request.subject)}"
        if tally.state == "Expired":
            return f"{what} expired at {clock(tally.at)}, before enough people had decided"
        if tally.state != "Pending":
            by = " and ".join(printable(person, 60) for person in tally.by)
            return f"{what} is already decided: {tally.state} by {by} at {clock(tally.at)}"
    entry = run.entries.get(label)
    return f"{label} does not wait for an approval" + (f": it is {entry['state']}" if entry else "")
