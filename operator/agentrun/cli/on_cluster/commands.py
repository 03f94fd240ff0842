"""Creates AgentCommands in the person's name, and waits for the operator's answer in their status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentrun.api.command import ACCEPTED
from agentrun.api.errors import Refused
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.workflow import API_VERSION
from agentrun.cli.failures import OutOfReach, warn
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import COMMANDS, ClusterRun
from agentrun.kube.errors import ClusterError, NotFound

PATIENCE = 15.0
"""Seconds to wait for an operator to answer a command."""

POLL = 0.2
"""Seconds between two checks whether it has."""


def command(client: Client, run: ClusterRun, verb: Mapping[str, Any]) -> None:
    """Create an AgentCommand with ``verb``, such as ``{"resume": {}}``, and wait until the operator has answered it.

    An operator of an earlier version deletes a command instead of answering it. Then a warning says that nothing is
    known of what became of the command.

    Raises:
        Refused: the operator rejected the command, and said why.
        OutOfReach: no operator answered the command within ``PATIENCE``: it still exists, and takes effect later. Or
            the answer cannot be read.
    """
    body = {
        "apiVersion": API_VERSION,
        "kind": "AgentCommand",
        "metadata": {
            "generateName": f"{run.name}-",
            "namespace": run.namespace,
            "annotations": {REQUESTED_BY: client.user()},
        },
        "spec": {"run": {"name": run.name, "uid": run.uid}, **verb},
    }
    path = collection(COMMANDS, run.namespace)
    name = str(client.create(path, body)["metadata"]["name"])
    until = time.monotonic() + PATIENCE
    while True:
        try:
            made = client.get(f"{path}/{name}")
        except NotFound:
            warn(
                f"AgentCommand {name} was deleted and left no answer, as an operator of an earlier version does. It is "
                f"not known whether run {run.name} has accepted it: if it was rejected, kubectl describe agentrun "
                f"{run.name} -n {run.namespace} shows an Event CommandRefused"
            )
            return
        except ClusterError as error:
            raise OutOfReach(
                f"AgentCommand {name} was created, but its answer cannot be read, so it is not known whether run "
                f"{run.name} accepts it: {error}"
            ) from error
        if (answer := _answer(made)) is not None:
            break
        if time.monotonic() > until:
            raise OutOfReach(
                f"no operator has answered AgentCommand {name} within {PATIENCE:.0f} s. It remains, and takes effect "
                f"for this run once an operator answers it: check that the operator runs. To withdraw it, if you may "
                f"delete it: kubectl delete agentcommand {name} -n {run.namespace}"
            )
        time.sleep(POLL)
    if answer.get("status") == "False":
        raise Refused(f"run {run.name} rejects the command: {answer.get('message')}")


def _answer(made: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition with the operator's answer; None if there is none yet."""
    conditions = (made.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found.get("type") == ACCEPTED), None)
