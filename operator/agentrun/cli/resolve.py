"""``agentrun resolve``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from agentrun.api.command import Happened, Resolve
from agentrun.api.run import StepState
from agentrun.cli.failures import Refused
from agentrun.cli.next_steps import tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable, value
from agentrun.cli.signal import json_or_text
from agentrun.cli.timeline import call, clock
from agentrun.cli.view import View
from agentrun.local.user import user
from agentrun.plan.commands import Author, Refusal, event_for


@verb("resolve")
@click.argument("run")
@click.argument("step")
@click.option("--happened", metavar="RESULT", help="It happened, and this (JSON or text) was its result.")
@click.option("--retry", is_flag=True, help="It did not happen: make the call again.")
@click.option("--give-up", is_flag=True, help="Let the step fail.")
def resolve_command(place: Place, run: str, step: str, happened: str | None, retry: bool, give_up: bool) -> int:
    """Say what became of the call in STEP of RUN whose outcome is unknown, after you looked where it would show."""
    if (happened is not None) + retry + give_up != 1:
        raise click.UsageError("give exactly one of --happened RESULT, --retry and --give-up")
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()
    key = view.key(step)
    verb = Resolve(
        step=key.label,
        happened=Happened(result=json_or_text(happened)) if happened is not None else None,
        retry=True if retry else None,
        give_up=True if give_up else None,
    )
    event = event_for(verb, view, Author(user()))
    if isinstance(event, Refusal):
        raise Refused(nothing_to_resolve(view.name, key.label, view.entries))
    fact = event.about
    assert fact is not None and fact.unknown is not None
    if not view.record(event):
        View.read(store, view.run).still_going()
        before = view.index.resolution(key, fact)
        assert before is not None
        who = f"{printable(before.body['by'], 60)} at {clock(before.at)}"
        raise Refused(f"{key.label} is resolved already: {before.body['answer']}, by {who}")
    after = View.read(store, view.run)
    result = f" {value(event.body['result'])}" if verb.happened is not None else ""
    tell(place, f"resolved: {key.label}: {call(fact.unknown.tool, fact.unknown.args)}: {verb.answer}{result}")
    tell_who_goes_on(place, after)
    if place.output:
        emit(place, after.to_json())
    return 0


def nothing_to_resolve(run: str, step: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Why there is nothing to resolve in ``step``. ``entries``: the status of each step by its label."""
    state = entries[step]["state"] if step in entries else "not one that runs"
    unknown = [name for name, entry in entries.items() if entry["state"] == StepState.OUTCOME_UNKNOWN]
    there = f"; OutcomeUnknown: {', '.join(unknown)}" if unknown else f"; no step of {run} is"
    return f"{step} is {state}, not OutcomeUnknown: there is nothing to resolve{there}"
