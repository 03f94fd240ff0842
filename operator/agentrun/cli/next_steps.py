"""What a person can do now about a run that waits: the exact commands."""

from __future__ import annotations

import os
import shlex

from agentrun.cli.options import Place
from agentrun.cli.output import tell
from agentrun.cli.printable import printable, value
from agentrun.cli.secrets import reads_secrets
from agentrun.cli.timeline import approvers
from agentrun.cli.view import View


def next_steps(place: Place, view: View, *, secrets: str | None = None) -> list[str]:
    """Lines to read and commands to copy; empty where the run has ended or goes on by itself."""
    if view.ended is not None or view.pinned.on_cluster:
        return []
    lines: list[str] = []

    def offer(why: str, *commands: str) -> None:
        lines.append(why)
        lines.extend(f"    {printable(command)}" for command in commands)

    for key, request in view.requests():
        group = ["--as-group", request.approvers.groups[0]] if request.approvers.groups else []
        offer(
            f"{key.label} waits for {approvers(request)}: {value(request.subject)}",
            place.command("approve", view.name, key.label, *group),
            place.command("reject", view.name, key.label, *group),
        )
    for name, entry in view.entries.items():
        waiting = entry.get("waitingFor", {})
        if "resolve" in waiting:
            base = place.command("resolve", view.name, name)
            offer(
                f"{name}: nobody has said what became of {value(waiting['tool'])}: {value(waiting['resolve'])}",
                f"{base} --happened RESULT",
                f"{base} --retry",
                f"{base} --give-up",
            )
        elif "signal" in waiting:
            signal = str(waiting["signal"])
            offer(f"{name} waits for a signal", f"{place.command('signal', view.name, signal)} [PAYLOAD]")
        elif "resume" in waiting:
            offer(
                f"{name}: {value(waiting['resume'])}",
                place.command("logs", view.name, name),
                resume_command(place, view, secrets),
            )
    if view.driver is None and not any("resume" in entry.get("waitingFor", {}) for entry in view.entries.values()):
        why = "suspended" if view.suspended else "then" if lines else "nobody drives the run"
        offer(f"{why}:", resume_command(place, view, secrets))
    elif view.driver_unseen:
        offer(
            f"{driver_name(view)} drives the run and cannot be seen from here; if it is gone:",
            resume_command(place, view, secrets),
        )
    return lines


def driver_name(view: View) -> str:
    """The process that drives the run, in words."""
    assert view.driver is not None
    return printable(f"process {view.driver.get('pid')} on {view.driver.get('host')}", 100)


def tell_who_goes_on(place: Place, view: View, *, otherwise: str = "go on with") -> None:
    """After a command was recorded: name the verb, unless a driver that surely lives acts on it.

    ``otherwise``: how the verb is introduced where nobody drives the run.
    """
    if view.driver is None:
        tell(place, f"{otherwise}: {printable(resume_command(place, view))}")
    elif view.driver_unseen:
        who, verb = driver_name(view), printable(resume_command(place, view))
        tell(place, f"{who} drives {view.name} and cannot be seen from here; if it is gone: {verb}")


def resume_command(place: Place, view: View, secrets: str | None = None) -> str:
    """The command that goes on with the run, with the Secrets that it was started with, or a place for them."""
    words = place.command("resume", view.name)
    if secrets is not None:
        return f"{words} --secrets {shlex.quote(secrets)}"
    needed = "AGENTRUN_SECRETS" not in os.environ and reads_secrets(view.program)
    return f"{words} --secrets DIR" if needed else words
