"""The adapters' side of ``control.views.WATCHED``: how an object of each kind becomes its view, and its path."""

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
"""From an object, and the time now in seconds since the epoch, to its view; None: it is none of ours."""


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
    """How an object of each kind is seen, by the name of the kind."""
    return {kind.kind: partial(_viewed, TO_VIEW[kind], clock) for kind in WATCHED}


def _viewed(to_view: ToView, clock: Callable[[], float], obj: Mapping[str, Any]) -> Any:
    """The view of an object. One that cannot be read counts as not there, and does not end the watch of all others."""
    try:
        return to_view(obj, clock())
    except Exception:
        about = obj.get("metadata") or {}
        log.exception("%s/%s cannot be read, and counts as not there", about.get("namespace"), about.get("name"))
        return None


def path_of(kind: Kind[Any], namespace: str = "", name: str = "") -> str:
    """The path of an object, or of all of them in one namespace or in all."""
    api = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = f"/namespaces/{namespace}" if namespace else ""
    return f"{api}{space}/{kind.plural}/{name}" if name else f"{api}{space}/{kind.plural}"
