"""Creates AgentCommands in the person's name, and waits until the operator has handled them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentrun.api.errors import Refused
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.workflow import API_VERSION
from agentrun.cli.failures import OutOfReach
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import COMMANDS, ClusterRun
from agentrun.kube.errors import DENIED, NotFound

PATIENCE = 15.0
"""Seconds to wait for an operator to handle a command."""

POLL = 0.2
"""Seconds between two checks whether it has."""


def command(client: Client, run: ClusterRun, verb: Mapping[str, Any]) -> None:
    """Create an AgentCommand with ``verb``, such as ``{"resume": {}}``, and wait until the operator has handled it.

    Raises:
        Refused: the operator rejected the command, and said why.
        OutOfReach: no operator handled the command within ``PATIENCE``. It still exists, and takes effect later.
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
            client.get(f"{path}/{name}")
        except NotFound:
            break
        if time.monotonic() > until:
            raise OutOfReach(
                f"no operator has taken AgentCommand {name} in {PATIENCE:.0f} s; it stands, and counts once one does, "
                f"for this run only. See whether the operator runs. To take it back takes the right to delete it: "
                f"kubectl delete agentcommand {name} -n {run.namespace}"
            )
        time.sleep(POLL)
    if (why := _refusal(client, run, name)) is not None:
        raise Refused(f"run {run.name} does not take it: {why}")


def _refusal(client: Client, run: ClusterRun, name: str) -> str | None:
    """Why the operator rejected the command; None if it did not, or if the person may not read Events.

    The operator records an Event before it deletes a rejected command.
    """
    selector = f"involvedObject.uid={run.uid},reason=CommandRefused"
    try:
        events = client.get(f"/api/v1/namespaces/{run.namespace}/events", fieldSelector=selector)["items"]
    except DENIED:
        return None
    said = (str(event.get("message", "")) for event in events)
    return next((text.partition(": ")[2] for text in said if text.startswith(f"{name}: ")), None)
