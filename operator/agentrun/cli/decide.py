"""``agentrun approve`` and ``agentrun reject``."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from agentrun.api.approval import COMMENT_MAX, Verdict
from agentrun.api.facts import ApprovalRequest, StepKey
from agentrun.api.texts import quoted
from agentrun.cli.failures import Refused
from agentrun.cli.next_steps import next_steps, resume_command, tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable, value
from agentrun.cli.timeline import approvers, asked, clock
from agentrun.cli.view import View
from agentrun.journal.log import read_step
from agentrun.local.user import user
from agentrun.plan.commands import Author, Decide, event_for
from agentrun.plan.events import may_decide
from agentrun.records.step_records import Kind


def _verb(name: str, decision: Verdict, text: str) -> click.Command:
    @verb(name)
    @click.argument("run")
    @click.argument("step", required=False)
    @click.option("--comment", metavar="TEXT", default="", help="Why; it is recorded, and a model may be shown it.")
    @click.option(
        "--as-group", "groups", metavar="GROUP", multiple=True, help="A group that you decide as; repeatable."
    )
    @click.option("--call", metavar="ID", help="Only this tool call, where several of the step wait.")
    def command(
        place: Place, run: str, step: str | None, comment: str, groups: tuple[str, ...], call: str | None
    ) -> int:
        return _decide(place, run, step, decision, comment, groups, call)

    command.help = text
    return command


approve_command = _verb(
    "approve",
    "Approved",
    "Approve what RUN waits for: in STEP, or the only question there is.\n\n"
    "On one machine you decide as the operating system's user, and as the groups that you claim; nothing verifies "
    "either, and the journal says so. On a cluster its API server vouches for who you are.",
)
reject_command = _verb(
    "reject",
    "Rejected",
    "Reject what RUN waits for: in STEP, or the only question there is.\n\n"
    "A rejected approval step fails; a rejected tool call is not made, and the model is told so.",
)


def _decide(
    place: Place, run: str, step: str | None, decision: Verdict, comment: str, groups: Sequence[str], call: str | None
) -> int:
    check_comment(comment)
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()
    chosen = _chosen(place, view, step, call)
    for key, request in chosen:
        _check_person(key, request, groups)
    for key, request in chosen:
        _record(place, view, key, request, decision, comment, groups)
        tell(place, f"{decision.lower()}: {key.label}: {value(request.subject, None)}")
        if request.details is not None:
            tell(place, f"    {value(request.details, 2000)}")
        tell(place, f"    {request.digest}")
    after = View.read(store, view.run)
    if place.output:
        emit(place, after.to_json())
    _say_what_next(place, after, chosen)
    return 0


def check_comment(comment: str) -> None:
    """Raise BadParameter where the comment is too long."""
    if len(comment) > COMMENT_MAX:
        raise click.BadParameter(f"the comment has {len(comment)} characters: at most {COMMENT_MAX} are kept")


def _chosen(place: Place, view: View, step: str | None, call: str | None) -> list[tuple[StepKey, ApprovalRequest]]:
    """The open requests that are meant. Raises Refused where there are none, or several steps have some."""
    open_ = list(view.requests())
    if step is not None:
        key = view.key(step)
        found = [(k, r) for k, r in open_ if k == key]
        if not found:
            raise Refused(_not_open(view, key))
    else:
        found = open_
        if not found:
            raise Refused(
                f"run {view.name} waits for no approval: {view.status['phase']}; "
                f"see {printable(place.command('show', view.name))}"
            )
        if len({k for k, _ in found}) > 1:
            lines = [f"    {k.label}: {asked(r)}" for k, r in found]
            raise Refused("several steps wait for approval; name one:\n" + "\n".join(lines))
    if call is not None:
        found = [(k, r) for k, r in found if r.call_id == call]
        if not found:
            ids = ", ".join(str(r.call_id) for _, r in open_ if r.call_id)
            raise Refused(f"no call {quoted(call)} waits for approval; there are: {ids or 'none'}")
    return found


def _not_open(view: View, key: StepKey) -> str:
    """Why there is nothing to decide in ``key``: who decided and when, or how it stands."""
    index = view.index
    asked_before = [e.body["request"] for e in (index.requested.get(key.path),) if e is not None]
    if key in view.states:
        for record in read_step(view.store, view.run, key, whole=True):
            asked_before += record.body.get("approvals", ()) if record.kind == Kind.WAITING else ()
    if asked_before:
        request = ApprovalRequest.from_json(asked_before[-1])
        tally = index.tally(request, view.now)
        what = f"{key.label}: {value(request.subject)}"
        if tally.state == "Expired":
            return f"{what} expired at {clock(tally.at)}, before enough people had decided"
        if tally.state != "Pending":
            by = " and ".join(printable(person, 60) for person in tally.by)
            return f"{what} is decided: {tally.state} by {by} at {clock(tally.at)}"
    entry = view.entries.get(key.label)
    state = f": it is {entry['state']}" if entry else ""
    return f"{key.label} waits for no approval{state}"


def _check_person(key: StepKey, request: ApprovalRequest, groups: Sequence[str]) -> None:
    if may_decide(request, user(), groups):
        return
    claim = f" as {' and '.join(printable(group, 60) for group in groups)}" if groups else " without --as-group"
    raise Refused(f"{user()}{claim} may not decide {key.label}; who may: {approvers(request)}. Nothing was written")


def _record(
    place: Place,
    view: View,
    key: StepKey,
    request: ApprovalRequest,
    decision: Verdict,
    comment: str,
    groups: Sequence[str],
) -> None:
    """Append the decision, unless this person or enough others have decided by then."""
    by = user()
    event = event_for(Decide(key, request.digest, decision, comment, groups), view, Author(by))
    # On a cluster the Approval is closed by then, and takes no decision.
    if view.record(event, unless=lambda index: index.tally(request, time.time()).state != "Pending"):
        return
    view.now = time.time()
    view.still_going()
    before = view.index.decision_by(request.digest, by)
    if before is not None:
        said = f"you have decided {key.label} already: {before.body['decision']} at {clock(before.at)}"
        raise Refused(
            f"{said}; a decision is not changed. To stop the run: {printable(place.command('cancel', view.name))}"
        )
    raise Refused(_not_open(view, key))


def _say_what_next(place: Place, view: View, chosen: list[tuple[StepKey, ApprovalRequest]]) -> None:
    still = dict(view.requests())
    for key, request in chosen:
        if key in still and still[key].digest == request.digest:
            have = len(view.index.tally(request, view.now).by)
            tell(place, f"{key.label}: {have} of {request.required} people have approved")
    if view.driver_unseen:
        tell_who_goes_on(place, view)
    elif view.driver is not None:
        tell(place, f"the driver of {view.name} goes on with it")
    elif any(view.requests()):
        for line in next_steps(place, view):
            tell(place, line)
    else:
        tell(place, f"go on with: {printable(resume_command(place, view))}")
