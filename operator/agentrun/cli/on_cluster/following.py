"""Follows a run of a cluster live until it ends or waits for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from agentrun.api.errors import Refused
from agentrun.api.facts import Usage
from agentrun.api.printable import printable
from agentrun.cli.on_cluster.backend import ClusterBackend
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import RUNS, ClusterRun, same
from agentrun.cli.terminal.board import Board, shown
from agentrun.cli.what_next import report
from agentrun.kube.errors import NotFound, Unavailable

PATIENCE = 60.0
"""Seconds to retry while the API server is out of reach. The run goes on meanwhile."""

SILENCE = 10.0
"""Seconds after which the person is told that no operator has visited the run."""


def follow(backend: ClusterBackend, run: ClusterRun, *, before: dict[str, Any] | None = None) -> int:
    """Show the run until it ends or waits for a person, report, and return the exit code.

    ``before`` is the status from before the person's last command. While the run still has this status, the operator
    has not reacted to the command, so the run does not count as waiting for a person.

    Raises:
        Refused: the run was deleted.
        Unavailable: the API server is out of reach for longer than ``PATIENCE``.
    """
    try:
        with shown(backend.place, {}) as board:
            for now in _moments(backend.client, run, before, board):
                run = now
                board.total = Usage.from_json(run.status["usage"]) if "usage" in run.status else None
                board.show(run.status.get("steps", ()))
                if run.ended or (run.waits_for_person and run.status != before):
                    break
    except KeyboardInterrupt:
        again = printable(backend.place.command("show", run.name))
        click.echo(f"agentrun: stopped following; the run goes on. See {again}", err=True)
        return 130
    return report(backend, run)


def _moments(client: Client, run: ClusterRun, before: dict[str, Any] | None, board: Board) -> Iterator[ClusterRun]:
    """The run now and after each change. When a watch ends or breaks, read the run and watch again."""
    lost: float | None = None
    told = False
    began = time.monotonic()
    while True:
        try:
            run = same(run, client.get(run.path))
            yield run
            lost = None
            # Watch for a short time while no operator has visited the run, so that the person can be told so.
            quick = not told and _waits_for_operator(run, before)
            for event in client.watch(
                collection(RUNS, run.namespace), run.name, run.version, within=2 if quick else None
            ):
                if event["type"] == "ERROR":
                    break  # the resourceVersion is too old to continue from
                if event["type"] == "DELETED":
                    raise Refused(f"run {run.name} was deleted; its journal stays in the store")
                run = same(run, event["object"])
                yield run
            if quick and _waits_for_operator(run, before) and time.monotonic() - began > SILENCE:
                told = True
                board.say(
                    "no operator has picked up the run: check that the chart agentrun is installed and that its pods "
                    "run"
                )
        except NotFound as error:
            raise Refused(f"run {run.name} was deleted; its journal stays in the store") from error
        except Unavailable:
            now = time.monotonic()
            lost = lost or now
            if now - lost > PATIENCE:
                raise
            time.sleep(1.0)


def _waits_for_operator(run: ClusterRun, before: dict[str, Any] | None) -> bool:
    return not run.seen or run.status == before
