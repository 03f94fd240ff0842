"""The adapters' side of ``control.views.WATCHED``: the functions from objects to views, and the paths of the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.adapters.pod_status import pod_view
from agentrun.control.views import APPROVALS, COMMANDS, PODS, RUNS, WATCHED, WORKFLOWS, Kind, WorkflowView

log = logging.getLogger("agentrun.source")

ToView = Callable[[Mapping[str, Any], float], Any]
"""From an object and the time now, in seconds since the epoch, to its view; None if the object is not ours."""


def _workflow_view(obj: Mapping[str, Any], now: float) -> WorkflowView:
    return WorkflowView(obj["metadata"]["namespace"], obj["metadata"]["name"])


TO_VIEW: Final[Mapping[Kind[Any], ToView]] = {
    PODS: lambda obj, now: pod_view(obj),
    APPROVALS: approval_view,
    COMMANDS: lambda obj, now: command_view(obj),
    WORKFLOWS: _workflow_view,
    RUNS: lambda obj, now: run_view(obj),
}


def views_for(clock: Callable[[], float]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """The functions that make the views, by the name of the kind."""
    return {kind.kind: partial(_viewed, TO_VIEW[kind], clock) for kind in WATCHED}


def _viewed(to_view: ToView, clock: Callable[[], float], obj: Mapping[str, Any]) -> Any:
    """The view of an object; None if it cannot be read, so that one bad object does not end the watch of all others."""
    try:
        return to_view(obj, clock())
    except Exception:
        about = obj.get("metadata") or {}
        log.exception("%s/%s cannot be read, and is treated as missing", about.get("namespace"), about.get("name"))
        return None


def path_of(kind: Kind[Any], namespace: str = "", name: str = "") -> str:
    """The API path of an object; without ``name``, of the kind in one namespace; without ``namespace``, in all."""
    api = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = f"/namespaces/{namespace}" if namespace else ""
    return f"{api}{space}/{kind.plural}/{name}" if name else f"{api}{space}/{kind.plural}"
