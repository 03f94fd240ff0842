"""``agentrun resolve``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.cli.failures import Refused
from agentrun.cli.next_steps import tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable, value
from agentrun.cli.signal import json_or_text
from agentrun.cli.timeline import call, clock
from agentrun.cli.view import View
from agentrun.journal.records import Record
from agentrun.local.user import user
from agentrun.plan.events import answers_to
from agentrun.records.run_events import EventKind


@verb("resolve")
@click.argument("run")
@click.argument("step")
@click.option("--happened", metavar="RESULT", help="It happened, and this (JSON or text) was its result.")
@click.option("--retry", is_flag=True, help="It did not happen: make the call again.")
@click.option("--give-up", is_flag=True, help="Let the step fail.")
def resolve_command(place: Place, run: str, step: str, happened: str | None, retry: bool, give_up: bool) -> int:
    """Say what became of the call in STEP of RUN whose outcome is unknown, after you looked where it would show."""
    answers = {"happened": happened is not None, "retry": retry, "giveUp": give_up}
    if sum(answers.values()) != 1:
        raise click.UsageError("give exactly one of --happened RESULT, --retry and --give-up")
    answer = next(name for name, given in answers.items() if given)
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()
    key = view.key(step)
    fact = view.states[key].fact() if key in view.states else None
    unknown = fact.unknown if fact is not None and fact.end is AttemptEnd.WAITING else None
    if fact is None or unknown is None:
        raise Refused(_known(view, key.label))
    body: dict[str, Any] = {
        "step": key.path,
        "callId": unknown.call_id,
        "attempt": fact.attempt,
        "answer": answer,
        "result": json_or_text(happened),
        "by": user(),
        "verified": False,
    }

    def said(records: Sequence[Record]) -> bool:
        ended = any(record.kind == EventKind.ENDED for record in records)
        return ended or _answered(records, key.path, fact) is not None

    if not view.log.append(EventKind.RESOLVED, body, unless=said):
        View.read(store, view.run).still_going()
        before = _answered(view.events, key.path, fact)
        assert before is not None
        who = f"{printable(before.body['by'], 60)} at {clock(before.at)}"
        raise Refused(f"{key.label} is resolved already: {before.body['answer']}, by {who}")
    after = View.read(store, view.run)
    result = f" {value(body['result'])}" if answer == "happened" else ""
    tell(place, f"resolved: {key.label}: {call(unknown.tool, unknown.args)}: {answer}{result}")
    tell_who_goes_on(place, after)
    if place.output:
        emit(place, after.to_json())
    return 0


def _answered(records: Sequence[Record], path: str, fact: StepFact) -> Record | None:
    """The resolution of this very call's unknown outcome; one from before the call was tried again does not count."""
    assert fact.unknown is not None
    for record in records:
        about = record.kind == EventKind.RESOLVED and record.body["step"] == path
        if about and record.body["callId"] == fact.unknown.call_id and answers_to(record.body, record.at, fact):
            return record
    return None


def _known(view: View, label: str) -> str:
    entry = view.entries.get(label)
    state = entry["state"] if entry else "not one that runs"
    unknown = [name for name, e in view.entries.items() if e["state"] == "OutcomeUnknown"]
    there = f"; OutcomeUnknown: {', '.join(unknown)}" if unknown else f"; no step of {view.name} is"
    return f"{label} is {state}, not OutcomeUnknown: there is nothing to resolve{there}"
