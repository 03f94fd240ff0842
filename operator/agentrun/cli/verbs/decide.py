"""``agentrun approve`` and ``agentrun reject``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agentrun.api.approval import COMMENT_MAX, Verdict
from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.api.texts import quoted
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit, tell
from agentrun.cli.what_next import tell_who_goes_on, what_next
from agentrun.query.run_view import Mover, Question, parse_step
from agentrun.query.texts import value
from agentrun.query.timeline import asked

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


def _verb(name: str, decision: Verdict, text: str) -> click.Command:
    @verb(name)
    @click.argument("run")
    @click.argument("step", required=False)
    @click.option("--comment", metavar="TEXT", default="", help="The reason. It is recorded, and a model may see it.")
    @click.option(
        "--as-group", "groups", metavar="GROUP", multiple=True, help="Decide as a member of this group; repeatable."
    )
    @click.option("--call", metavar="ID", help="Only this tool call, if several calls of the step wait.")
    def command(
        backend: Backend[R], run: str, step: str | None, comment: str, groups: tuple[str, ...], call: str | None
    ) -> int:
        return _decide(backend, run, step, decision, comment, groups, call)

    command.help = text
    return command


approve_command = _verb(
    "approve",
    "Approved",
    "Approve what RUN waits for: in STEP, or in the only step that waits.\n\n"
    "On one machine you decide as the operating system's user and as a member of the groups that you name; neither is "
    "verified, and the journal says so. On a cluster the API server verifies who you are.",
)
reject_command = _verb(
    "reject",
    "Rejected",
    "Reject what RUN waits for: in STEP, or in the only step that waits.\n\n"
    "A rejected approval step fails; a rejected tool call is not made, and the model is told so.",
)


def _decide(
    backend: Backend[R],
    name: str,
    step: str | None,
    decision: Verdict,
    comment: str,
    groups: Sequence[str],
    call: str | None,
) -> int:
    if len(comment) > COMMENT_MAX:
        raise click.BadParameter(f"the comment has {len(comment)} characters: at most {COMMENT_MAX} are kept")
    run = backend.find(name, to_tell=True)
    run.still_going()
    chosen = _chosen(backend, run, step, call)
    for question in chosen:
        backend.check_decider(question, groups)
    for question in chosen:
        have = backend.decide(run, question, decision, comment, groups)
        _tell(backend, question, decision, have)
    if backend.place.output or run.mover is not Mover.OPERATOR:
        after = backend.again(run)
        if backend.place.output:
            emit(backend.place, after.obj)
        _tell_what_next(backend, after)
    return 0


def _chosen(backend: Backend[R], run: R, step: str | None, call: str | None) -> list[Question]:
    """The undecided questions that the arguments name. Raises Refused if there are none, or of several steps."""
    open_ = backend.questions(run)
    label = parse_step(step).label if step is not None else None
    found = [question for question in open_ if label in (None, question.step)]
    if not found and label is not None:
        run.key(label)  # only now: an Approval may stand before its step does in the status
        raise Refused(backend.not_asked(run, label))
    if not found:
        see = printable(backend.place.command("show", run.name))
        raise Refused(f"run {run.name} does not wait for an approval: it is {run.phase}; see {see}")
    if len({question.step for question in found}) > 1:
        lines = [f"    {printable(question.step)}: {asked(question.request)}" for question in found]
        raise Refused("several steps wait for approval; name one:\n" + "\n".join(lines))
    if call is not None:
        found = [question for question in found if question.request.call_id == call]
        if not found:
            ids = ", ".join(str(q.request.call_id) for q in open_ if q.request.call_id)
            raise Refused(f"no call {quoted(call)} waits for approval; waiting calls: {ids or 'none'}")
    return found


def _tell(backend: Backend[R], question: Question, decision: Verdict, have: int) -> None:
    place, request, label = backend.place, question.request, printable(question.step)
    tell(place, f"{decision.lower()}: {label}: {value(request.subject, None)}")
    if request.details is not None:
        tell(place, f"    {value(request.details, 2000)}")
    tell(place, f"    {request.digest}")
    if decision == "Approved" and have < request.required:
        tell(place, f"{label}: {have} of {request.required} people have approved")


def _tell_what_next(backend: Backend[R], run: R) -> None:
    if run.mover is Mover.DRIVER:
        tell(backend.place, f"the driver of {run.name} continues the run")
    elif run.mover is Mover.NOBODY and backend.questions(run):
        for line in what_next(backend, run):
            tell(backend.place, line)
    else:
        tell_who_goes_on(backend, run)
