"""``agentrun signal``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from agentrun.api.command import PAYLOAD_MAX, Signal
from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.api.texts import quoted
from agentrun.cli.options import verb
from agentrun.cli.terminal.output import emit, tell
from agentrun.cli.what_next import tell_who_goes_on
from agentrun.query.run_view import signals_of
from agentrun.query.texts import value
from agentrun.workflow.bounded_json import parse_json

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend, R


@verb("signal")
@click.argument("run")
@click.argument("name")
@click.argument("payload", required=False)
def signal_command(backend: Backend[R], run: str, name: str, payload: str | None) -> int:
    """Send the signal NAME to RUN: the wait step that takes it gets PAYLOAD as its output.

    PAYLOAD is parsed as JSON if it is JSON, and is a text otherwise. A PAYLOAD that begins with a bracket or a quote
    must be JSON. A signal may come before its wait.
    """
    found = json_or_text(payload)
    told = backend.find(run, to_tell=True)
    told.still_going()
    workflow = backend.workflow(told)
    if workflow is not None and name not in (known := signals_of(workflow)):
        there = printable(", ".join(known), 300) or "none"
        raise Refused(f"no step of {told.name} waits for a signal {quoted(name)}; its signals: {there}")
    after, _ = backend.give(told, _signal(name, found))
    tell(backend.place, f"signalled: {name} {value(found)}")
    tell_who_goes_on(backend, after)
    if backend.place.output:
        emit(backend.place, backend.again(after).obj)
    return 0


def _signal(name: str, payload: Any) -> Signal:
    try:
        return Signal(name=name, payload=payload)
    except ValidationError as error:
        raise Refused(
            f"{quoted(name)} is not the name of a signal: use lower-case letters, digits and hyphens"
        ) from error


def json_or_text(text: str | None) -> Any:
    """The value of an argument: JSON if it parses as JSON, otherwise the text itself; None if there is no argument.

    Raises:
        click.BadParameter: the value is larger than ``PAYLOAD_MAX``; or it begins like JSON but is not JSON, which is
            rejected because a recorded payload cannot be corrected.
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
