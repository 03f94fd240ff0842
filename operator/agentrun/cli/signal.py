"""``agentrun signal``."""

from __future__ import annotations

import json
from typing import Any

import click

from agentrun.api.command import Signal
from agentrun.api.texts import quoted
from agentrun.cli.failures import Refused
from agentrun.cli.next_steps import tell_who_goes_on
from agentrun.cli.options import Place, verb
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import value
from agentrun.cli.view import View
from agentrun.local.user import user
from agentrun.plan.commands import Author, event_for
from agentrun.workflow.bounded_json import parse_json

PAYLOAD_MAX = 64 * 1024
"""Bytes of a signal's payload."""


@verb("signal")
@click.argument("run")
@click.argument("name")
@click.argument("payload", required=False)
def signal_command(place: Place, run: str, name: str, payload: str | None) -> int:
    """Send the signal NAME to RUN: the wait step that takes it gets PAYLOAD as its output.

    PAYLOAD is JSON where it reads as JSON, else a text; what begins like JSON (with a bracket or a quote) has to be
    JSON. A signal may come before its wait.
    """
    found = json_or_text(payload)
    store = place.open()
    view = View.find_own(place, store, run)
    view.still_going()
    steps = [*view.program.steps.values(), *view.program.finally_.values()]
    known = sorted({s.spec.wait.signal for s in steps if s.spec.wait is not None and s.spec.wait.signal is not None})
    if name not in known:
        raise Refused(
            f"no step of {view.name} waits for a signal {quoted(name)}; there are: {', '.join(known) or 'none'}"
        )
    if not view.record(event_for(Signal(name=name, payload=found), view, Author(user()))):
        View.read(store, view.run).still_going()
    after = View.read(store, view.run)
    tell(place, f"signalled: {name} {value(found)}")
    tell_who_goes_on(place, after)
    if place.output:
        emit(place, after.to_json())
    return 0


def json_or_text(text: str | None) -> Any:
    """What a person wrote as an argument: JSON where it is that, else the text itself; None where there is none.

    Raises:
        click.BadParameter: it is larger than a payload may be, or begins as JSON and is none: what is recorded stays.
    """
    if text is None:
        return None
    try:
        found = parse_json(text)
    except ValueError as error:
        if text.lstrip().startswith(("{", "[", '"')):
            raise click.BadParameter(f"it is not JSON: {error}. As a text it would be: {json.dumps(text)}") from error
        found = text
    if len(json.dumps(found)) > PAYLOAD_MAX:
        raise click.BadParameter(f"it is larger than {PAYLOAD_MAX // 1024} KiB: send a reference to it instead")
    return found
