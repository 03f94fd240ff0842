"""What a person can do about a run now: the reason and the commands, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrun.api.printable import printable
from agentrun.query.run_view import Mover, Question, RunView
from agentrun.query.texts import value
from agentrun.query.timeline import approvers


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of agentrun, without the options for the place of the run."""

    words: tuple[str, ...]
    rest: str = ""
    """The text after those options: the part that the person fills in."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing that a person can do, and why. ``why`` is printable. Without commands, it is a message only."""

    why: str
    commands: tuple[Command, ...] = ()


def next_steps(run: RunView, questions: Sequence[Question] | None, resume: Command) -> list[NextStep]:
    """What a person can do; empty if the run has ended or goes on by itself.

    Args:
        run: the run in its present state.
        questions: the undecided questions; None if the person may not read them. Then the status has their subjects.
        resume: the command that resumes the run.
    """
    if run.ended or run.mover is Mover.ELSEWHERE:
        return []
    if run.hopeless:
        return [NextStep(printable(run.status.get("message", ""), lines=True))]
    found = [*_approvals(run, questions)]
    for label, waiting in run.waiting.items():
        found += _about(run, label, waiting, resume)
    return [*found, *_resuming(run, resume, begun=bool(found))]


def _approvals(run: RunView, questions: Sequence[Question] | None) -> Iterator[NextStep]:
    if questions is None:
        asked = {label: waiting for label, waiting in run.waiting.items() if "approval" in waiting}
        for label, waiting in asked.items():
            yield _decision(run, label, "approval", "; ".join(waiting["subjects"]))
        return
    named: set[str] = set()
    for question in questions:
        request = question.request
        if run.mover is Mover.OPERATOR:
            step = _decision(run, question.step, approvers(request) or "approval", request.subject)
            # The commands are the same for each question of a step: they stand once.
            yield NextStep(step.why) if question.step in named else step
            named.add(question.step)
            continue
        # On one machine a person claims a group with an option. An API server knows the person's groups.
        group = request.approvers.groups[:1]
        claim = ("--as-group", group[0]) if group else ()
        yield _decision(run, question.step, approvers(request), request.subject, *claim)


def _decision(run: RunView, label: str, who: str, subject: str, *claim: str) -> NextStep:
    verbs = tuple(Command((verb, run.name, label, *claim)) for verb in ("approve", "reject"))
    return NextStep(f"{printable(label)} waits for {who}: {value(subject)}", verbs)


def _about(run: RunView, label: str, waiting: Mapping[str, Any], resume: Command) -> Iterator[NextStep]:
    if "resolve" in waiting:
        why = f"{label}: the outcome of {value(waiting['tool'])} is unknown: {value(waiting['resolve'])}"
        answers = ("--happened RESULT", "--retry", "--give-up")
        yield NextStep(why, tuple(Command(("resolve", run.name, label), answer) for answer in answers))
    elif "signal" in waiting:
        signal = Command(("signal", run.name, str(waiting["signal"])), "[PAYLOAD]")
        yield NextStep(f"{label} waits for a signal", (signal,))
    elif "resume" in waiting:
        yield NextStep(f"{label}: {value(waiting['resume'])}", (Command(("logs", run.name, label)), resume))


def _resuming(run: RunView, resume: Command, *, begun: bool) -> Iterator[NextStep]:
    """The verb ``resume``, if the run needs it. ``begun``: other steps come before it in the list."""
    parked = any("resume" in waiting for waiting in run.waiting.values())
    match run.mover:
        case Mover.OPERATOR if run.suspended:
            by = run.changer("suspend")
            yield NextStep(f"suspended by {printable(by, 60)}:" if by else "suspended:", (resume,))
        case Mover.OPERATOR if not begun and run.waits_for_person and run.status.get("message"):
            yield NextStep(printable(run.status["message"], lines=True))
        case Mover.NOBODY if not parked:
            why = "suspended" if run.suspended else "then" if begun else "no driver is running"
            yield NextStep(f"{why}:", (resume,))
        case Mover.UNSEEN:
            why = f"{run.driver_name} drives the run and is not visible from here; if it is gone:"
            yield NextStep(why, (resume,))
        case _:
            return
