"""``agentrun resolve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentrun.api.command import Resolve
from agentrun.api.errors import Refused
from agentrun.api.run import StepState
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit, tell
from agentrun.cli.verbs.signal import json_or_text
from agentrun.cli.what_next import tell_who_goes_on
from agentrun.query.run_view import RunView
from agentrun.query.texts import value

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("resolve")
@click.argument("run")
@click.argument("step")
@click.option("--happened", metavar="RESULT", help="The call happened, and this (JSON or text) was its result.")
@click.option("--retry", is_flag=True, help="The call did not happen: make it again.")
@click.option("--give-up", is_flag=True, help="Let the step fail.")
def resolve_command(backend: Backend[R], run: str, step: str, happened: str | None, retry: bool, give_up: bool) -> int:
    """Record the outcome of the call in STEP of RUN whose outcome is unknown.

    First look in the system that was called whether the call happened.
    """
    if (happened is not None) + retry + give_up != 1:
        raise click.UsageError("give exactly one of --happened RESULT, --retry and --give-up")
    result = json_or_text(happened)
    told = backend.find(run, to_tell=True)
    told.still_going()
    label = told.key(step).label
    unknown = told.unknown_call(label)
    if unknown is None:
        raise Refused(_nothing_to_resolve(told, label))
    call_id, words = unknown
    answer: dict[str, Any] = {"happened": {"result": result}} if happened is not None else {}
    answer |= {"retry": True} if retry else {"giveUp": True} if give_up else {}
    # Name the call: when the answer is read, another call of the step may be unknown.
    answered = Resolve.model_validate({"step": label, "callId": call_id, **answer})
    after, _ = backend.give(told, answered)
    said = f" {value(result)}" if happened is not None else ""
    tell(backend.place, f"resolved: {label}: {words}: {answered.answer}{said}")
    tell_who_goes_on(backend, after)
    if backend.place.output:
        emit(backend.place, backend.again(after).obj)
    return 0


def _nothing_to_resolve(run: RunView, label: str) -> str:
    entries = run.entries
    state = entries[label]["state"] if label in entries else "not one that runs"
    unknown = [name for name, entry in entries.items() if entry["state"] == StepState.OUTCOME_UNKNOWN]
    there = f"; OutcomeUnknown: {', '.join(unknown)}" if unknown else f"; no step of {run.name} is"
    return f"{label} is {state}, not OutcomeUnknown: there is nothing to resolve{there}"
