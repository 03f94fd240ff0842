"""Driving a run from the command line: the view, Ctrl-C, the driver in the background, and the last word."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import click

from agentrun.api.run import Outcome
from agentrun.cli.board import counts_of, shown
from agentrun.cli.failures import OutOfReach, Refused
from agentrun.cli.next_steps import next_steps, resume_command
from agentrun.cli.options import Place
from agentrun.cli.output import coloured, emit, tell
from agentrun.cli.printable import document, printable
from agentrun.cli.view import View, refusal
from agentrun.journal.layout import RunPath
from agentrun.journal.pinned import Pinned
from agentrun.journal.run import read_states
from agentrun.local.driver import Driver, End, NoProcess, Watcher
from agentrun.local.lease import Lease
from agentrun.local.processes import PYTHON, ChildProcesses
from agentrun.plan.snapshot import Plan
from agentrun.store.protocol import Store


def drive(place: Place, store: Store, run: RunPath, secrets: str | None) -> int:
    """Drive ``run`` until it ends or waits for a person, and report; the exit code.

    The first SIGINT or SIGTERM asks running steps to commit and leave, the second kills them.

    Raises:
        Refused: a cluster's operator drives it.
        OutOfReach: this machine gives no process to run a step in.
        HeldByOther, StoreError, Damaged: see ``Driver.drive``.
    """
    pinned = Pinned.read(store, run)
    if pinned.on_cluster:
        raise Refused(refusal(run))
    with shown(place, counts_of(read_states(store, pinned.run))) as board:
        watcher = Watcher(plan=board.plan, line=board.line, tell=lambda text: board.say(printable(text, lines=True)))
        lease = Lease(store, run, uuid.uuid4().hex)
        driver = Driver(store, pinned, ChildProcesses(secrets), lease, watcher)
        signalled: list[int] = []
        try:
            with asyncio.Runner() as runner:
                end = runner.run(_interruptible(driver, signalled))
        except NoProcess as error:
            raise OutOfReach(str(error)) from error
    if end is None:
        again = resume_command(place, View.read(store, run), secrets)
        click.echo(
            f"agentrun: interrupted; nothing that was committed is lost. Go on with: {printable(again)}", err=True
        )
        return 128 + signalled[0]
    return report(place, store, run, secrets, driver.last)


async def _interruptible(driver: Driver, signalled: list[int]) -> End | None:
    """How the driver ended; None where a signal, which ``signalled`` gets, ended it."""
    loop = asyncio.get_running_loop()
    driving = asyncio.ensure_future(driver.drive())

    def interrupt(number: int) -> None:
        signalled.append(number)
        driving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, int(number))
    try:
        return await driving
    except asyncio.CancelledError:
        if not signalled:
            raise
        return None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def report(place: Place, store: Store, run: RunPath, secrets: str | None = None, last: Plan | None = None) -> int:
    """Say how the run ended or what it waits for; the exit code.

    ``last``: what its driver knew when it stopped, which is more than the journal holds.
    """
    view = View.read(store, run)
    if last is not None and last.waits_for_person and view.ended is None:
        view.plan = last
    if place.output:
        emit(place, view.to_json())
    status = view.status
    if view.ended is None:
        tell(place, f"{coloured(status['phase'])}: {run.name} waits for a person")
        for line in next_steps(place, view, secrets=secrets):
            tell(place, line)
        return 3
    if status["phase"] == Outcome.SUCCEEDED:
        if not place.output:
            tell(place, document(status["output"]))
        return 0
    why = f": {printable(status['message'])}" if status.get("message") else ""
    click.echo(f"agentrun: {run.name} {coloured(status['phase'])}{why}", err=True)
    click.echo(f"see {printable(place.command('show', run.name))}", err=True)
    return 1


def drive_detached(place: Place, store: Store, run: RunPath, secrets: str | None) -> None:
    """Start a driver in the background, in a session of its own, and say where its words go.

    Whatever stops it, ``agentrun resume`` goes on.
    """
    if store.remote:
        folder = Path(tempfile.mkdtemp(prefix="agentrun-"))
    else:
        folder = Path(store.url) / ".drivers"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{run.name}-{run.uid}.log"
    words = ["drive", run.name, "--store", store.url, "-n", run.namespace]
    if secrets is not None:
        words += ["--secrets", str(Path(secrets).absolute())]
    with path.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  (this very program, with words of its own)
            [*PYTHON, "-m", "agentrun.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # It outlives us on purpose; without this, Popen complains of a child that nobody waited for.
    child.returncode = 0
    tell(place, f"driven in the background by process {child.pid}; its log: {printable(path)}")
    tell(place, f"follow it: {printable(place.command('logs', run.name, '-f'))}")
