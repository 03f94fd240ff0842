"""Makes the views of AgentRuns, Approvals and AgentCommands from the objects that the API server sends.

Anybody who may write to a namespace writes these objects, and a CRD of another version may have accepted anything. So a
value of the wrong type counts as absent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentrun.api.approval import DECIDED, USER_MAX, decisions_of
from agentrun.api.canonical import moment
from agentrun.api.command import ACCEPTED
from agentrun.api.decoding import UNREADABLE
from agentrun.api.errors import InvalidDocument
from agentrun.api.footprint import footprint
from agentrun.api.labels import REQUESTED_BY
from agentrun.api.run import CHANGED_BY, ConditionType, Reason
from agentrun.control.views import ApprovalView, CommandView, RunRef, RunView
from agentrun.documents.agent_command import read_command

NAME_MAX = 253
"""Characters that are kept of a name."""

WRITTEN_MAX = 64 * 1024
"""Bytes of memory as Python values (some 10 KB as JSON) up to which a spec is kept until the run is pinned. A larger
one is read again."""

LARGE = 256 * 1024
"""Bytes of memory as Python values (some 7,000 values) of a spec, above which a run counts as large; an invalid command
too."""


def run_view(obj: Mapping[str, Any]) -> RunView:
    """The view of an AgentRun. Of an ended run it keeps only what the time to live needs."""
    metadata = obj["metadata"]
    spec, status = _mapping(obj.get("spec")), _mapping(obj.get("status"))
    finished = _finished(status)
    ttl = spec.get("ttlSecondsAfterFinished")
    alive = finished is None
    observed = status.get("observedGeneration")
    problem = _text(obj.get(UNREADABLE))
    begun = "journal" in status
    refers = _text(_mapping(spec.get("workflowRef")).get("name"))
    settled = begun or condition(status, ConditionType.READY, "reason") == Reason.INVALID_SPEC
    return RunView(
        ref=RunRef(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 0),
        created=moment(metadata["creationTimestamp"]),
        finished=finished,
        ttl=ttl if isinstance(ttl, int) else None,
        deleting="deletionTimestamp" in metadata,
        suspend=spec.get("suspend") is True,
        cancel=spec.get("cancel") is True,
        written=_written(metadata, spec) if alive and not settled and not problem else None,
        waits_for=refers[:NAME_MAX] if alive and not begun else "",
        status=status if alive else None,
        requested_by=requester(metadata) if alive else None,
        changed_by=_changed_by(metadata),
        observed=observed if isinstance(observed, int) else 0,
        problem=problem,
        large=bool(problem) or footprint(spec, LARGE) > LARGE,
    )


def shown_as(run: RunView, metadata: Mapping[str, Any], status: Mapping[str, Any]) -> RunView:
    """``run`` after a write of ``status``, which changes nothing else. ``metadata`` comes from the answer."""
    spec: dict[str, Any] = {"suspend": run.suspend, "cancel": run.cancel, "ttlSecondsAfterFinished": run.ttl}
    spec["workflowRef"] = {"name": run.waits_for}
    after = run_view({"metadata": metadata, "spec": spec, "status": status})
    written = run.written if after.written is not None else None
    return replace(after, written=written, problem=run.problem, large=run.large)


def _written(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes | None:
    written = {"labels": _mapping(metadata.get("labels")), "spec": spec}
    if footprint(written, WRITTEN_MAX) > WRITTEN_MAX:
        return None
    return json.dumps(written, separators=(",", ":")).encode()


def approval_view(obj: Mapping[str, Any], now: float) -> ApprovalView:
    """The view of an Approval. ``now`` (seconds since the epoch) bounds the times of its decisions."""
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


COMMAND_MAX = 4096
"""Bytes of memory up to which a command is kept until a visit handles it. A larger one is read again."""


def command_view(obj: Mapping[str, Any]) -> CommandView:
    """The view of an AgentCommand for the cache. If the command is large, its content is left out."""
    view = whole_command(obj)
    small = view.command is None or footprint(obj.get("spec"), COMMAND_MAX) <= COMMAND_MAX
    return view if small else replace(view, command=None)


def whole_command(obj: Mapping[str, Any]) -> CommandView:
    """The complete view of an AgentCommand. If it cannot be read, ``problem`` says why. An answered one is not read."""
    metadata, spec = obj["metadata"], _mapping(obj.get("spec"))
    run, status = _mapping(spec.get("run")), _mapping(obj.get("status"))
    command, problem = None, _text(obj.get(UNREADABLE))
    unreadable, answered = bool(problem), None
    if condition(status, ACCEPTED):
        answered = _moment(condition(status, ACCEPTED, "lastTransitionTime")) or 0.0
    elif not problem:
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
        large=bool(problem) and (unreadable or footprint(spec, LARGE) > LARGE),
        answered=answered,
        deleting="deletionTimestamp" in metadata,
    )


def requester(metadata: Mapping[str, Any]) -> str | None:
    """Who created the object, as the admission policy recorded it; None if nothing vouches for the name."""
    return _text(_mapping(metadata.get("annotations")).get(REQUESTED_BY)) or None


_CHANGED_BY = tuple(CHANGED_BY.items())


def _changed_by(metadata: Mapping[str, Any]) -> dict[str, str]:
    annotations = _mapping(metadata.get("annotations"))
    return {
        field: name
        for field, note in _CHANGED_BY
        if note in annotations and (name := _text(annotations[note])[:USER_MAX])
    }


def owned_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether the object with ``uid`` owns ``obj``."""
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def _finished(status: Mapping[str, Any]) -> float | None:
    if condition(status, ConditionType.SUCCEEDED) not in ("True", "False"):
        return None
    return _moment(status.get("completionTime"))  # None: not written by our operator, which always sets it


def condition(status: Mapping[str, Any], kind: str, field: str = "status") -> str:
    """A field of the condition of that type; "" if there is none."""
    conditions = status.get("conditions")
    for found in conditions if isinstance(conditions, list) else ():
        if isinstance(found, Mapping) and found.get("type") == kind:
            return _text(found.get(field))
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
