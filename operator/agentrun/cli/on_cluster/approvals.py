"""Reads Approvals, and records people's decisions in their own names, which the API server verifies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentrun.api.approval import DECIDED, Verdict
from agentrun.api.canonical import moment, timestamp
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest
from agentrun.api.labels import RUN_LABEL
from agentrun.api.printable import printable
from agentrun.api.tools import Approvers
from agentrun.cli.failures import OutOfReach
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import APPROVALS, ClusterRun
from agentrun.kube.errors import Conflict
from agentrun.query.run_view import Question
from agentrun.query.texts import value

TRIES = 20
"""Times that a decision is written before giving up because others change the Approval in between."""


def approvals_of(client: Client, run: ClusterRun) -> list[dict[str, Any]]:
    """The Approvals of this run, in the order of their names."""
    found = client.list_all(collection(APPROVALS, run.namespace), f"{RUN_LABEL}={run.name}")
    return [obj for obj in found if obj["spec"]["run"]["uid"] == run.uid]


def question_of(approval: dict[str, Any]) -> Question:
    """The request for approval in an Approval. Raises ValueError if ``expiresAt`` is no instant that Python knows."""
    spec = approval["spec"]
    request = ApprovalRequest(
        subject=spec["subject"],
        details=spec.get("details"),
        digest=spec["digest"],
        approvers=Approvers.model_construct(  # leniently: a later version may say more about who decides
            users=spec["approvers"].get("users", []), groups=spec["approvers"].get("groups", [])
        ),
        required=spec["required"],
        expires_at=moment(spec["expiresAt"]),
        call_id=spec.get("callId"),
        tool=spec.get("tool"),
    )
    return Question(spec["step"], request, approval)


def is_decided(approval: Mapping[str, Any]) -> str | None:
    """How an Approval was closed; None while it is open."""
    conditions = (approval.get("status") or {}).get("conditions") or ()
    return next((str(c["reason"]) for c in conditions if c["type"] == DECIDED and c["status"] == "True"), None)


def decide(client: Client, approval: Mapping[str, Any], by: str, decision: Verdict, comment: str) -> int:
    """Add the decision of ``by`` to the Approval's status, and return how many people have approved.

    Two people may decide at once. The list is written with the resourceVersion that it was read with; on a conflict it
    is read and written again. The spec, and so the question, never changes.

    Raises:
        Refused: the question was decided meanwhile or is gone, or this person has decided before.
        Forbidden: an admission policy rejects the decision; the message is the policy's.
        OutOfReach: others changed the Approval ``TRIES`` times. Nothing was decided.
    """
    path = f"{collection(APPROVALS, approval['metadata']['namespace'])}/{approval['metadata']['name']}"
    uid, spec = approval["metadata"]["uid"], approval["spec"]
    mine = {"by": by, "decision": decision, "digest": spec["digest"], "comment": comment}
    for _ in range(TRIES):
        there = _decisions(approval)
        before = next((entry for entry in there if entry["by"] == by), None)
        if before is not None:
            raise Refused(
                f"you have already decided {spec['step']}: {before['decision']}; a decision cannot be changed"
            )
        if is_decided(approval) is not None:
            raise Refused(closed(approval))
        change = {
            "metadata": {"uid": uid, "resourceVersion": approval["metadata"]["resourceVersion"]},
            "status": {"decisions": [*there, {**mine, "at": timestamp(int(time.time()))}]},
        }
        try:
            after = client.patch(f"{path}/status", change)
        except Conflict:
            approval = client.get(path)
        else:
            return sum(entry["decision"] == "Approved" for entry in _decisions(after))
        # An Approval that was deleted and created again is another question, which this person has not seen.
        if approval["metadata"]["uid"] != uid:
            raise Refused(
                f"{spec['step']}: the Approval was replaced by another question; your decision was not recorded"
            )
    raise OutOfReach(f"{path} changed {TRIES} times while it was written; your decision was not recorded, try again")


def closed(approval: Mapping[str, Any]) -> str:
    """How an Approval was closed, and who decided, in words."""
    by = " and ".join(printable(entry["by"], 60) for entry in _decisions(approval))
    what = f"{approval['spec']['step']}: {value(approval['spec']['subject'])}"
    return f"{what} is already decided: {is_decided(approval)}" + (f", after {by}" if by else "")


def _decisions(approval: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((approval.get("status") or {}).get("decisions") or ())
