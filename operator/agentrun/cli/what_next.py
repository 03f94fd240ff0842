"""Prints what a person can do now, with the exact commands, and how a run ended or what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentrun.api.printable import printable
from agentrun.api.run import Outcome
from agentrun.cli.place import AnyPlace
from agentrun.cli.terminal.output import coloured, emit, tell
from agentrun.kube.errors import DENIED
from agentrun.query.next_steps import Command, next_steps
from agentrun.query.run_view import Mover
from agentrun.query.texts import document

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


def spelled(place: AnyPlace, command: Command) -> str:
    """The command line for ``command`` on ``place``, ready to be copied, and printable."""
    return printable(" ".join(part for part in (place.command(*command.words), command.rest) if part))


def what_next(backend: Backend[R], run: R) -> list[str]:
    """Lines with explanations and commands; empty if the run has ended or goes on by itself."""
    asks = run.mover is not Mover.OPERATOR or any("approval" in waiting for waiting in run.waiting.values())
    try:
        questions = backend.questions(run) if asks and not run.ended else []
    except DENIED:
        questions = None
    lines: list[str] = []
    for step in next_steps(run, questions, backend.resume_command(run)):
        lines += [step.why, *(f"    {spelled(backend.place, command)}" for command in step.commands)]
    return lines


def tell_who_goes_on(backend: Backend[R], run: R, *, otherwise: str = "continue with") -> None:
    """Print the command that resumes the run, unless an operator or a driver that is surely alive goes on with it.

    Called after a command was recorded. ``otherwise`` introduces the verb if nobody drives the run.
    """
    resume = spelled(backend.place, backend.resume_command(run))
    if run.mover is Mover.NOBODY:
        tell(backend.place, f"{otherwise}: {resume}")
    elif run.mover is Mover.UNSEEN:
        who = f"{run.driver_name} drives {run.name} and is not visible from here"
        tell(backend.place, f"{who}; if it is gone: {resume}")


def report(backend: Backend[R], run: R) -> int:
    """Print how the run ended or what it waits for, and return the exit code."""
    place = backend.place
    if place.output:
        emit(place, run.obj)
    if run.phase == Outcome.SUCCEEDED:
        if not place.output:
            tell(place, document(backend.output(run)))
        return 0
    if not run.ended and not run.hopeless:
        tell(place, f"{coloured(run.phase)}: {run.name} waits for a person")
        for line in what_next(backend, run):
            tell(place, line)
        return 3
    why = f": {printable(run.status['message'])}" if run.status.get("message") else ""
    click.echo(f"agentrun: {run.name} {coloured(run.phase)}{why}", err=True)
    click.echo(f"see {printable(place.command('show', run.name))}", err=True)
    return 1
