"""``kubectl agentrun resolve``."""

from __future__ import annotations

from typing import Any

import click

from agentrun.cli.failures import Refused
from agentrun.cli.on_cluster.commands import command
from agentrun.cli.on_cluster.runs import find
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import value
from agentrun.cli.resolve import nothing_to_resolve
from agentrun.cli.signal import json_or_text


def resolve_verb(place: ClusterPlace, run: str, step: str, happened: str | None, retry: bool, give_up: bool) -> int:
    """Say what became of the call whose outcome is unknown: of the very call that the status names."""
    if (happened is not None) + retry + give_up != 1:
        raise click.UsageError("give exactly one of --happened RESULT, --retry and --give-up")
    result = json_or_text(happened)
    client = place.open()
    found = find(place, client, run)
    found.still_going()
    waiting = found.entries.get(found.step(step), {}).get("waitingFor", {})
    if "resolve" not in waiting:
        raise Refused(nothing_to_resolve(run, step, found.entries))
    answer: dict[str, Any] = {"happened": {"result": result}} if happened is not None else {}
    answer |= {"retry": True} if retry else {"giveUp": True} if give_up else {}
    command(client, found, {"resolve": {"step": step, "callId": waiting["callId"], **answer}})
    said = f"happened {value(result)}" if happened is not None else next(iter(answer))
    tell(place, f"resolved: {step}: {value(waiting['tool'])}: {said}")
    if place.output:
        emit(place, client.get(found.path))
    return 0
