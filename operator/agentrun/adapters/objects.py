"""From objects as the API server sends them to what the operator keeps of them.

Whoever may write to a namespace writes what stands here, and a CRD of another version may have let it through: a value
that is not of its type counts as absent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from agentrun.api.approval import DECIDED, USER_MAX, decisions_of
from agentrun.api.canonical import moment
from agentrun.api.command import read_command
from agentrun.api.errors import InvalidDocument
from agentrun.api.names import REQUESTED_BY
from agentrun.api.run import CHANGED_BY, ConditionType
from agentrun.control.views import ApprovalView, CommandView, RunRef, RunView


def run_view(obj: Mapping[str, Any]) -> RunView:
    """An AgentRun. Of one that has ended nothing is kept but what its time to live needs."""
    metadata = obj["metadata"]
    spec, status = _mapping(obj.get("spec")), _mapping(obj.get("status"))
    finished = _finished(status)
    ttl = spec.get("ttlSecondsAfterFinished")
    alive = finished is None
    observed = status.get("observedGeneration")
    return RunView(
        ref=RunRef(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 0),
        created=moment(metadata["creationTimestamp"]),
        finished=finished,
        ttl=ttl if isinstance(ttl, int) else None,
        deleting="deletionTimestamp" in metadata,
        spec=spec if alive else None,
        status=status if alive else None,
        requested_by=requester(metadata) if alive else None,
        changed_by=_changed_by(metadata),
        labels=_mapping(metadata.get("labels")) if alive else None,
        observed=observed if isinstance(observed, int) else 0,
    )


def approval_view(obj: Mapping[str, Any], now: float) -> ApprovalView:
    """An Approval; ``now`` (seconds since the epoch) bounds when it was decided."""
    metadata, spec = obj["metadata"], _mapping(obj.get("spec"))
    run, required = _mapping(spec.get("run")), spec.get("required")
    return ApprovalView(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        run=RunRef(metadata["namespace"], _text(run.get("name"))),
        run_uid=_text(run.get("uid")),
        digest=_text(spec.get("digest")),
        required=required if isinstance(required, int) and required > 0 else sys.maxsize,  # nobody can
        expires_at=_moment(spec.get("expiresAt")) or 0.0,
        decisions=decisions_of(obj, now),
        settled=condition(_mapping(obj.get("status")), DECIDED) == "True",
    )


def command_view(obj: Mapping[str, Any]) -> CommandView:
    """An AgentCommand; one that cannot be read says why in ``problem``."""
    metadata, spec = obj["metadata"], _mapping(obj.get("spec"))
    run = _mapping(spec.get("run"))
    command, problem = None, ""
    try:
        command = read_command(obj)
    except InvalidDocument as error:
        problem = str(error)
    return CommandView(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        run=RunRef(metadata["namespace"], _text(run.get("name"))),
        run_uid=_text(run.get("uid")) or None,
        by=requester(metadata),
        command=command,
        problem=problem,
    )


def requester(metadata: Mapping[str, Any]) -> str | None:
    """Who made the object, by the admission policy's word; None where nobody vouches for it."""
    return _text(_mapping(metadata.get("annotations")).get(REQUESTED_BY)) or None


def _changed_by(metadata: Mapping[str, Any]) -> dict[str, str]:
    annotations = _mapping(metadata.get("annotations"))
    names = {field: _text(annotations.get(note))[:USER_MAX] for field, note in CHANGED_BY.items()}
    return {field: name for field, name in names.items() if name}


def owned_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether the object belongs to the one with ``uid``."""
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def _finished(status: Mapping[str, Any]) -> float | None:
    if condition(status, ConditionType.SUCCEEDED) not in ("True", "False"):
        return None
    return _moment(status.get("completionTime"))  # without one it is not our operator's word: that writes a true one


def condition(status: Mapping[str, Any], kind: str) -> str:
    """The status of the condition of that type; "" where there is none."""
    conditions = status.get("conditions")
    for found in conditions if isinstance(conditions, list) else ():
        if isinstance(found, Mapping) and found.get("type") == kind:
            return _text(found.get("status"))
    return ""


def _moment(value: Any) -> float | None:
    try:
        return moment(_text(value))
    except ValueError:
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
