"""``kubectl agentrun list``."""

from __future__ import annotations

import time

import click

from agentrun.api.canonical import moment
from agentrun.api.decoding import UNREADABLE
from agentrun.api.run import StepState
from agentrun.cli.listing import print_rows, waiting_for
from agentrun.cli.on_cluster.client import collection
from agentrun.cli.on_cluster.runs import RUNS, Run, namespace_of
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit_list, spell
from agentrun.cli.printable import printable


def list_verb(place: ClusterPlace, all_namespaces: bool) -> int:
    """The runs of a namespace, newest first."""
    client = place.open()
    namespace = None if all_namespaces else namespace_of(place, client)
    runs = [Run(obj) for obj in client.list_all(collection(RUNS, namespace))]
    runs.sort(key=lambda run: (run.obj["metadata"]["creationTimestamp"], run.name), reverse=True)
    if place.output:
        emit_list(place, [run.obj for run in runs])
    elif not runs:
        where = "any namespace" if namespace is None else f"namespace {namespace}"
        click.echo(f"there are no runs in {where} of the cluster", err=True)
    else:
        print_rows(place, [(run.namespace, _row_of(run)) for run in runs], all_namespaces=all_namespaces)
    return 0


def _row_of(run: Run) -> list[str]:
    """The row of one run of many. What its object holds is anybody's who may edit it, and must not hide the others."""
    said = run.obj.get(UNREADABLE)
    if said is None:
        try:
            return _row(run)
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
            said = f"its status is not the operator's ({type(error).__name__}: {error})"
    click.echo(
        f"agentrun: run {printable(run.name, 63)} in {printable(run.namespace, 63)}: {printable(said)}", err=True
    )
    return [printable(run.name, 63), "Unreadable", "-", printable(said, 70), "-", "-"]


def _row(run: Run) -> list[str]:
    steps = [entry for name, entry in run.entries.items() if "[" not in name]
    done = sum(StepState(entry["state"]).final for entry in steps)
    return [
        run.name,
        printable(run.phase, 40),
        f"{done}/{len(steps)}",
        "-" if run.ended else waiting_for(run.status, suspended=run.suspended, otherwise="-"),
        f"${run.status.get('usage', {}).get('costUSD', '0')}",
        spell(time.time() - moment(run.obj["metadata"]["creationTimestamp"])),
    ]
