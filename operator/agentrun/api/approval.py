"""Approval: what people are asked, made by the operator, and what they decided, written by themselves.

The spec never changes, and its digest covers the run's uid and exactly what is asked. A decision is a PATCH of the
status by the person; the API server's admission policies see to whose it is, and that it is bound to the digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from agentrun.api.canonical import canonical, moment, sha256, timestamp
from agentrun.api.facts import ApprovalRequest, StepKey
from agentrun.api.names import RUN_LABEL, STEP_LABEL
from agentrun.api.printable import printable, printable_value
from agentrun.api.reader import too_large
from agentrun.api.values import DIGEST_PATTERN, Digest, Instant, Name, Spec, StepPlace, ToolName, Uid
from agentrun.api.workflow import API_VERSION, Approvers

SUBJECT_MAX = 32 * 1024
"""Characters of the question that the object holds."""

DETAILS_MAX = 8 * 1024
"""Bytes of the details, in canonical form, that the object holds; larger ones are in the journal."""

COMMENT_MAX = 4096
MAX_DECISIONS = 100
USER_MAX = 1024

DECIDED = "Decided"
"""The condition that closes an Approval: its reason is a ``DecidedReason``."""

Verdict = Literal["Approved", "Rejected"]
DecidedReason = Literal["Approved", "Rejected", "Expired", "Cancelled"]


class RunRef(Spec):
    """The run that asks. The uid, since another run may have the name later."""

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
    """The object."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")]
    kind: Annotated[str, Field(pattern="^Approval$")]
    metadata: dict[str, Any]
    spec: ApprovalSpec


@dataclass(frozen=True, slots=True)
class Owner:
    """The AgentRun on the cluster that an object is made for; ``uid`` is Kubernetes' own, with hyphens."""

    name: str
    namespace: str
    uid: str

    @property
    def reference(self) -> dict[str, Any]:
        """The ownerReference: with the run goes what it owns."""
        return {"apiVersion": API_VERSION, "kind": "AgentRun", "name": self.name, "uid": self.uid, "controller": True}


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's decision. The admission policies vouch for ``by`` and ``digest``."""

    by: str
    decision: Verdict
    digest: str
    comment: str
    at: float
    """When the API server took it, in seconds since the epoch by the operator's clock. What the person says of the time
    decides nothing.
    """


def approval_name(run: str, key: StepKey, request: ApprovalRequest, *, long: bool = False) -> str:
    """The name of the Approval for ``request``: ``RUN-STEP`` of an approval step, with the item and the first of the
    digest for a tool call.

    ``long`` gives an approval step's the digest too. For a name that is taken by another run's: ``a-b`` asking in
    ``c`` and ``a`` asking in ``b-c`` mean the same short one, and so does a run made anew under the name of one whose
    Approvals are still being collected. The digest covers the run's uid, so a long name is taken by nobody else.
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

    What is too large for an object is cut: details over ``DETAILS_MAX``, or deeper than a file may be, become
    ``{"digest": …, "size": …}`` (bytes of their canonical form), a subject over ``SUBJECT_MAX`` ends in an ellipsis.
    What a terminal would obey is escaped. The journal has both as they are, and ``digest`` covers them as they are.
    ``long`` is as in ``approval_name``.
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
    """The decisions in an Approval's status, in their order there; ``now`` is in seconds since the epoch.

    An entry that is none is passed over: the schema refuses such entries, so only an API server whose CRD is not ours
    can hold one, and nobody is approved by it. Whether a decision counts is for the tally to say.
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
    """When the API server took each person's decision, by the operator's clock and not after ``now``.

    It settles whether a decision that was made while no operator ran came in time: a decision's ``at`` is what the
    person claims. The API server notes in ``metadata.managedFields`` who wrote which entry of the list, and when that
    writer last changed anything, to the second (rounded down). So the earliest of the writers of an entry is when it
    was decided, or later, and never earlier. Where nobody is noted as its writer, the newest write of the status is
    meant, and without any of those ``now``.

    A write of the status cannot change those notes; one of the Approval itself could, so the policies leave that to
    the operator. https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
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
            continue  # of an apply that changed nothing the API server notes no time
        at = min(max(at, asked), now)
        newest = at if newest is None else max(newest, at)
        for field in _mapping(status.get("f:decisions")):
            if (by := _key(field)) is not None:
                writers[by] = min(at, writers.get(by, at))
    return lambda by: writers.get(by, now if newest is None else newest)


def _clocks(obj: Mapping[str, Any]) -> tuple[float, float]:
    """By how many seconds the API server's clock is ahead of the operator's, and when the operator asked by its own.

    The API server says when it made the Approval, in whole seconds; up to one more is taken, as the policies do, so
    that nobody's time to decide is shorter than it was said to be.
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
    """Whose entry of the list ``field`` means, as managedFields write one: ``k:{"by":"ana"}``."""
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
