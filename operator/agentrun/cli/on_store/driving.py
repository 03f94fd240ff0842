"""Drives a run from the command line: with a live view and Ctrl-C, or by a driver in the background."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import click

from agentrun.api.errors import Refused
from agentrun.api.printable import printable
from agentrun.cli.failures import OutOfReach
from agentrun.cli.on_store.backend import StoreBackend
from agentrun.cli.terminal.board import counts_of, shown
from agentrun.cli.terminal.output import tell
from agentrun.cli.what_next import report, spelled
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.runs import read_states
from agentrun.journal.signatures import signing_key
from agentrun.local.driver import Driver, End, NoProcess, Watcher
from agentrun.local.lease import Lease
from agentrun.local.processes import PYTHON, ChildProcesses, own_environment
from agentrun.query.stored_run import StoredRun, elsewhere


def drive(backend: StoreBackend, run: RunPath) -> int:
    """Drive ``run`` until it ends or waits for a person, report, and return the exit code.

    The first SIGINT or SIGTERM asks running steps to commit and leave. The second kills them.

    Raises:
        Refused: a cluster's operator drives the run.
        OutOfReach: this machine cannot start a process for a step.
        HeldByOther, StoreError, Damaged: see ``Driver.drive``.
    """
    store = backend.store
    pinned = PinnedRun.read(store, run)
    if pinned.on_cluster:
        raise Refused(elsewhere(run))
    with shown(backend.place, counts_of(read_states(store, pinned.run))) as board:
        watcher = Watcher(plan=board.plan, line=board.line, tell=lambda text: board.say(printable(text, lines=True)))
        lease = Lease(store, run, uuid.uuid4().hex)
        key = signing_key(os.environ, watcher.tell)
        driver = Driver(store, pinned, ChildProcesses(backend.secrets), lease, watcher, key=key)
        signalled: list[int] = []
        try:
            with asyncio.Runner() as runner:
                end = runner.run(_interruptible(driver, signalled))
        except NoProcess as error:
            raise OutOfReach(str(error)) from error
    if end is None:
        again = spelled(backend.place, backend.resume_command(StoredRun.read(store, run)))
        click.echo(f"agentrun: interrupted; nothing that was committed is lost. Continue with: {again}", err=True)
        return 128 + signalled[0]
    found, last = StoredRun.read(store, run), driver.last
    if last is not None and last.waits_for_person and not found.ended:
        found = found.with_plan(last)
    return report(backend, found)


async def _interruptible(driver: Driver, signalled: list[int]) -> End | None:
    """Run the driver, and return how it ended. Each signal cancels it and is added to ``signalled``.

    Returns None if a signal ended the driver.
    """
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


def drive_detached(backend: StoreBackend, run: RunPath) -> None:
    """Start a driver in the background, in its own session, and print where its log is.

    If it stops for any reason, ``agentrun resume`` continues the run.
    """
    store, place = backend.store, backend.place
    if store.remote:
        folder = Path(tempfile.mkdtemp(prefix="agentrun-"))
    else:
        folder = Path(store.url) / ".drivers"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{run.name}-{run.uid}.log"
    words = ["drive", run.name, "--store", store.url, "-n", run.namespace]
    if backend.secrets is not None:
        words += ["--secrets", str(Path(backend.secrets).absolute())]
    with path.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  (this program itself, with its own arguments)
            [*PYTHON, "-m", "agentrun.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=own_environment(),
            start_new_session=True,
        )
    # The child outlives this process on purpose. Without a returncode, Popen warns of a child that still runs.
    child.returncode = 0
    tell(place, f"process {child.pid} drives the run in the background; its log: {printable(path)}")
    tell(place, f"follow it: {printable(place.command('logs', run.name, '-f'))}")
