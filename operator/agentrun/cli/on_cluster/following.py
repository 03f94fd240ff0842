"""Following a run of a cluster live, until it ends or waits for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from agentrun.api.facts import Usage
from agentrun.api.run import Outcome
from agentrun.cli.board import Board, shown
from agentrun.cli.failures import Refused
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.runs import RUNS, Run, journal_of, workflow_of
from agentrun.cli.on_cluster.todo import todo
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import coloured, emit, tell
from agentrun.cli.printable import document, printable
from agentrun.journal.log import EventLog
from agentrun.kube.errors import NotFound, Unavailable
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import StoreError

PATIENCE = 60.0
"""Seconds for which an API server that is away is asked again; the run goes on meanwhile."""

SILENCE = 10.0
"""Seconds after which a person is told that no operator has come to the run."""


def follow(place: ClusterPlace, client: Client, run: Run, *, before: dict[str, Any] | None = None) -> int:
    """Show the run until it ends or waits for a person, and report; the exit code.

    ``before`` is a status that somebody has just done something about: with it alone the run is not taken to wait.

    Raises:
        Refused: the run was deleted.
        Unavailable: the API server is away for longer than ``PATIENCE``.
    """
    try:
        with shown(place, {}) as board:
            for now in _moments(client, run, before, board):
                run = now
                board.total = Usage.from_json(run.status["usage"]) if "usage" in run.status else None
                board.show(run.status.get("steps", ()))
                if run.ended or (run.waits_for_person and run.status != before):
                    break
    except KeyboardInterrupt:
        again = printable(place.command("show", run.name))
        click.echo(f"agentrun: not followed any more; the run goes on. See {again}", err=True)
        return 130
    return report(place, client, run)


def _moments(client: Client, run: Run, before: dict[str, Any] | None, board: Board) -> Iterator[Run]:
    """The run as it is, and as it becomes; a watch that ends or is cut begins again with a look at the run."""
    lost: float | None = None
    told = False
    began = time.monotonic()
    while True:
        try:
            run = _same(run, client.get(run.path))
            yield run
            lost = None
            # The first watch is short where no operator has come yet: somebody waits, and should know for what.
            quick = not told and _waits_for_operator(run, before)
            for event in client.watch(
                collection(RUNS, run.namespace), run.name, run.version, within=2 if quick else None
            ):
                if event["type"] == "ERROR":
                    break  # too long ago to go on from
                if event["type"] == "DELETED":
                    raise Refused(f"run {run.name} was deleted; its journal stays in the store")
                run = _same(run, event["object"])
                yield run
            if quick and _waits_for_operator(run, before) and time.monotonic() - began > SILENCE:
                told = True
                board.say("no operator has come to the run: is the chart agentrun installed, and does it run?")
        except NotFound as error:
            raise Refused(f"run {run.name} was deleted; its journal stays in the store") from error
        except Unavailable:
            now = time.monotonic()
            lost = lost or now
            if now - lost > PATIENCE:
                raise
            time.sleep(1.0)


def _waits_for_operator(run: Run, before: dict[str, Any] | None) -> bool:
    return not run.seen or run.status == before


def _same(run: Run, obj: dict[str, Any]) -> Run:
    if obj["metadata"]["uid"] != run.uid:
        raise Refused(f"run {run.name} was deleted, and another one has its name; its journal stays in the store")
    return Run(obj)


def report(place: ClusterPlace, client: Client, run: Run) -> int:
    """Say how the run ended or what it waits for; the exit code."""
    if place.output:
        emit(place, run.obj)
    if run.phase == Outcome.SUCCEEDED:
        if not place.output:
            tell(place, document(_output(client, run)))
        return 0
    if not run.ended and not run.hopeless:
        tell(place, f"{coloured(run.phase)}: {run.name} waits for a person")
        for line in todo(place, client, run):
            tell(place, line)
        return 3
    why = f": {printable(run.status['message'])}" if run.status.get("message") else ""
    click.echo(f"agentrun: {run.name} {coloured(run.phase)}{why}", err=True)
    click.echo(f"see {printable(place.command('show', run.name))}", err=True)
    return 1


def _output(client: Client, run: Run) -> Any:
    """The run's output; from the journal where it is too large for a status."""
    if "output" in run.status:
        return run.status["output"]
    workflow = workflow_of(client, run)
    if workflow is not None and workflow.get("output") is None:
        return None
    try:
        log = EventLog(*journal_of(run), time.time)
        log.refresh()
    except (StoreError, Refused) as error:
        click.echo(f"agentrun: the output is in the journal, which cannot be read: {printable(error)}", err=True)
        return None
    return next((record.body.get("output") for record in log.records if record.kind == EventKind.ENDED), None)
