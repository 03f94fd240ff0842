"""``kubectl agentrun signal``."""

from __future__ import annotations

from agentrun.api.texts import quoted
from agentrun.cli.failures import Refused
from agentrun.cli.on_cluster.commands import command
from agentrun.cli.on_cluster.runs import find, workflow_of
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable, value
from agentrun.cli.signal import json_or_text


def signal_verb(place: ClusterPlace, run: str, name: str, payload: str | None) -> int:
    """Send the signal to the run; it may come before its wait."""
    found = json_or_text(payload)
    client = place.open()
    told = find(place, client, run)
    told.still_going()
    workflow = workflow_of(client, told)
    if workflow is not None:
        waits = (step.get("wait") or {} for step in [*workflow["steps"], *workflow.get("finally", ())])
        known = sorted({wait["signal"] for wait in waits if "signal" in wait})
        if name not in known:
            there = printable(", ".join(known), 300) or "none"
            raise Refused(f"no step of {run} waits for a signal {quoted(name)}; there are: {there}")
    command(client, told, {"signal": {"name": name, "payload": found}})
    tell(place, f"signalled: {name} {value(found)}")
    if place.output:
        emit(place, client.get(told.path))
    return 0
