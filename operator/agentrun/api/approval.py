"""Approval: a question to people. The operator creates it, and people write their decisions into its status.

The spec never changes, and its digest covers the run's uid and exactly what is asked. A person decides with a PATCH of
the status. Admission policies of the API server ensure that ``by`` is that person and that the decision has the digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from agentrun.api.bounds import too_large
from agentrun.api.canonical import canonical, moment, sha256, timestamp
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.labels import RUN_LABEL, STEP_LABEL
from agentrun.api.printable import printable, printable_value
from agentrun.api.tools import Approvers
from agentrun.api.values import DIGEST_PATTERN, Digest, Instant, Name, Spec, StepPlace, ToolName, Uid
from agentrun.api.workflow import API_VERSION

SUBJECT_MAX = 32 * 1024
"""Characters of ``spec.subject``."""

DETAILS_MAX = 8 * 1024
"""Bytes of ``spec.details`` in canonical form. Larger details are in the journal only."""

COMMENT_MAX = 4096
MAX_DECISIONS = 100
USER_MAX = 1024

DECIDED = "Decided"
"""The type of the condition that closes an Approval. Its reason is a ``DecidedReason``."""

Verdict = Literal["Approved", "Rejected"]
DecidedReason = Literal["Approved", "Rejected", "Expired", "Cancelled"]


class RunRef(Spec):
    """The run that asks. It has the uid, because another run may have the name later."""

    name: Name
    uid: Uid


class ApprovalSpec(Spec):
    """What is asked, of whom, and until when. Never changes."""

    run: RunRef
    step: StepPlace
    attempt: Annotated[int, Field(ge=0)]
    subject: Annotated[str, Field(max_length=SUBJECT_MAX)]
    details: Any = None
    digest: Digest
    tool: ToolName | None = None
    call_id: Annotated[str, Field(max_length=253)] | None = None
    approvers: Approvers
    required: Annotated[int, Field(ge=1, le=10)]
    requested_by: Annotated[str, Field(max_length=USER_MAX)] | None = None
    asked_at: Instant | None = None
    expires_at: Instant


class Approval(Spec):
    """An Approval object, without its status."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")]
    kind: Annotated[str, Field(pattern="^Approval$")]
    metadata: dict[str, Any]
    spec: ApprovalSpec


@dataclass(frozen=True, slots=True)
class Owner:
    """The AgentRun that owns an object on the cluster. ``uid`` is Kubernetes' own, with hyphens."""

    name: str
    namespace: str
    uid: str

    @property
    def reference(self) -> dict[str, Any]:
        """The ownerReference: Kubernetes deletes the object after the run."""
        return {"apiVersion": API_VERSION, "kind": "AgentRun", "name": self.name, "uid": self.uid, "controller": True}


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's decision. The admission policies vouch for ``by`` and ``digest``."""

    by: str
    decision: Verdict
    digest: str
    comment: str
    at: float
    """When the API server accepted it, in seconds since the epoch by the operator's clock. The time that the person
    claims has no effect.
    """


def approval_name(run: str, key: StepKey, request: ApprovalRequest, *, long: bool = False) -> str:
    """The name of the Approval for ``request``: ``RUN-STEP`` for an approval step; with the item and the first eight
    digits of the digest for a tool call.

    ``long`` adds the digest for an approval step too, because another run's Approval can have the short name: run
    ``a-b`` with step ``c`` and run ``a`` with step ``b-c`` share one, and so does a new run with the name of a deleted
    run whose Approvals are not collected yet. The digest covers the run's uid, so a long name belongs to one run.
    """
    parts = [run, key.name]
    if key.index is not None:
        parts.append(str(key.index))
    if request.call_id is not None or long:
        parts.append(request.digest.removeprefix("sha256:")[:8])
    return "-".join(parts)


def approval_object(
    run: Owner,
    key: StepKey,
    attempt: int,
    request: ApprovalRequest,
    requested_by: str | None,
    *,
    now: float,
    long: bool = False,
) -> dict[str, Any]:
    """The Approval to create for ``request`` at ``now``, in seconds since the epoch.

    The same arguments always give the same object.

    Details over ``DETAILS_MAX``, or outside the bounds of a file (``reader.too_large``), become
    ``{"digest": …, "size": …}`` (size: bytes of their canonical form). A subject over ``SUBJECT_MAX`` is cut and ends
    in an ellipsis. Control characters in both are escaped. The journal has both unchanged, and ``digest`` covers them
    unchanged. ``long`` is as in ``approval_name``.
    """
    spec: dict[str, Any] = {
        "run": {"name": run.name, "uid": run.uid},
        "step": key.label,
        "attempt": attempt,
        "subject": printable(request.subject, SUBJECT_MAX),
        "digest": request.digest,
        "approvers": {"groups": list(request.approvers.groups), "users": list(request.approvers.users)},
        "required": request.required,
        "askedAt": timestamp(now),
        "expiresAt": timestamp(request.expires_at),
    }
    if request.details is not None:
        spec["details"] = _bounded(request.details)
    given = {"tool": request.tool, "callId": request.call_id, "requestedBy": requested_by}
    spec |= {field: value for field, value in given.items() if value is not None}
    return {
        "apiVersion": API_VERSION,
        "kind": "Approval",
        "metadata": {
            "name": approval_name(run.name, key, request, long=long),
            "namespace": run.namespace,
            "labels": {RUN_LABEL: run.name, STEP_LABEL: key.name},
            "ownerReferences": [run.reference],
        },
        "spec": spec,
    }


def _bounded(details: Any) -> Any:
    if too_large(details) is None:
        shown = printable_value(details)
        if len(canonical(shown)) <= DETAILS_MAX:
            return shown
    data = canonical(details)
    return {"digest": sha256(data), "size": len(data)}


def decisions_of(obj: Mapping[str, Any], now: float) -> tuple[Decision, ...]:
    """The decisions in an Approval's status, in their order there. ``now`` is in seconds since the epoch.

    A malformed entry is skipped: our CRD refuses such entries, so only an API server with another CRD can hold one.
    Whether a decision counts is up to the tally (``EventIndex.tally``).
    """
    return tuple(_decisions(obj, now))


def _decisions(obj: Mapping[str, Any], now: float) -> Iterator[Decision]:
    taken = _taken(obj, now)
    for entry in _list(_mapping(obj.get("status")).get("decisions"))[:MAX_DECISIONS]:
        found = _mapping(entry)
        by, verdict, digest, comment, at = (
            found.get(field, "") for field in ("by", "decision", "digest", "comment", "at")
        )
        texts = all(isinstance(value, str) for value in (by, verdict, digest, comment, at))
        if texts and by and verdict in get_args(Verdict) and re.fullmatch(DIGEST_PATTERN, digest):
            yield Decision(by, verdict, digest, comment[:COMMENT_MAX], taken(by))


def _taken(obj: Mapping[str, Any], now: float) -> Callable[[str], float]:
    """When the API server accepted each person's decision, by the operator's clock and not after ``now``.

    This tells whether a decision that was made while no operator ran came in time: a decision's own ``at`` is only the
    person's claim. In ``metadata.managedFields`` the API server keeps who wrote which entry of the list, and when that
    writer last changed anything, in seconds (rounded down). So the earliest time among the writers of an entry is the
    time of the decision or later, never earlier. If an entry has no known writer, its time is that of the newest write
    of the status; if there is no such write either, ``now``.

    A write of the status cannot change managedFields. A write of the Approval itself can, so the admission policies
    allow that to the operator only.
    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    metadata = _mapping(obj.get("metadata"))
    writers: dict[str, float] = {}
    newest: float | None = None
    ahead, asked = _clocks(obj)
    for entry in _list(metadata.get("managedFields")):
        written = _mapping(entry)
        status = _mapping(_mapping(written.get("fieldsV1")).get("f:status"))
        if written.get("subresource") != "status" and not status:
            continue
        try:
            at = moment(written["time"]) - ahead
        except (KeyError, TypeError, ValueError):
            continue  # the API server records no time for an apply that changed nothing
        at = min(max(at, asked), now)
        newest = at if newest is None else max(newest, at)
        for field in _mapping(status.get("f:decisions")):
            if (by := _key(field)) is not None:
                writers[by] = min(at, writers.get(by, at))
    return lambda by: writers.get(by, now if newest is None else newest)


def _clocks(obj: Mapping[str, Any]) -> tuple[float, float]:
    """How many seconds the API server's clock is ahead of the operator's, and when the operator asked by its own clock.

    ``creationTimestamp`` is in whole seconds. One second is added, as the admission policies do, so that nobody has
    less time to decide than the Approval says. Both are 0 if the Approval does not say when it was asked.
    """
    spec = _mapping(obj.get("spec"))
    if spec.get("askedAt") is None:
        return 0.0, 0.0
    try:
        asked = moment(spec["askedAt"])
        return moment(_mapping(obj.get("metadata"))["creationTimestamp"]) + 1.0 - asked, asked
    except (KeyError, TypeError, ValueError):
        return 0.0, 0.0


def _key(field: Any) -> str | None:
    """The person whose entry of the list ``field`` names, in the notation of managedFields: ``k:{"by":"ana"}``."""
    if not isinstance(field, str) or not field.startswith("k:"):
        return None
    try:
        found = _mapping(json.loads(field[2:])).get("by")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
