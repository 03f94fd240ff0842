"""What a person can do now about a run on a cluster: the exact commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.refusals import DENIED
from agentrun.cli.on_cluster.runs import Run, open_approvals
from agentrun.cli.options import ClusterPlace
from agentrun.cli.printable import printable, value


def todo(place: ClusterPlace, client: Client, run: Run) -> list[str]:
    """Lines to read and commands to copy; empty where the run has ended or goes on by itself."""
    if run.ended:
        return []
    if run.hopeless:
        return [printable(run.status.get("message", ""), lines=True)]
    lines: list[str] = []

    def offer(why: str, *commands: str) -> None:
        lines.append(why)
        lines.extend(f"    {printable(command)}" for command in commands)

    waiting = {name: entry["waitingFor"] for name, entry in run.entries.items() if "waitingFor" in entry}
    if any("approval" in what for what in waiting.values()):
        lines += _approvals(place, client, run, waiting)
    for name, what in waiting.items():
        if "resolve" in what:
            base = place.command("resolve", run.name, name)
            why = f"{name}: nobody has said what became of {value(what['tool'])}: {value(what['resolve'])}"
            offer(why, f"{base} --happened RESULT", f"{base} --retry", f"{base} --give-up")
        elif "signal" in what:
            signal = place.command("signal", run.name, str(what["signal"]))
            offer(f"{name} waits for a signal", f"{signal} [PAYLOAD]")
        elif "resume" in what:
            commands = place.command("logs", run.name, name), place.command("resume", run.name)
            offer(f"{name}: {value(what['resume'])}", *commands)
    if run.suspended:
        by = run.changer("suspend")
        offer(f"suspended by {printable(by, 60)}:" if by else "suspended:", place.command("resume", run.name))
    elif not lines and run.waits_for_person and run.status.get("message"):
        lines.append(printable(run.status["message"], lines=True))
    return lines


def _approvals(place: ClusterPlace, client: Client, run: Run, waiting: Mapping[str, Any]) -> list[str]:
    try:
        found = list(open_approvals(client, run))
    except DENIED:  # who may not read what is asked is told what the status has
        asked = [(name, "; ".join(what["subjects"]), "") for name, what in waiting.items() if "approval" in what]
    else:
        asked = [(obj["spec"]["step"], obj["spec"]["subject"], approvers(obj["spec"])) for obj in found]
    lines = []
    for step, subject, who in asked:
        lines.append(f"{step} waits for {who or 'approval'}: {value(subject)}")
        lines += [f"    {printable(place.command(verb, run.name, step))}" for verb in ("approve", "reject")]
    return list(dict.fromkeys(lines))


def approvers(spec: Mapping[str, Any]) -> str:
    """Who may decide."""
    groups = [f"group {printable(g, 60)}" for g in spec["approvers"].get("groups", ())]
    return ", ".join([*groups, *(printable(u, 60) for u in spec["approvers"].get("users", ()))])
