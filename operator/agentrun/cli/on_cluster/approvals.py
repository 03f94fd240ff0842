"""Approvals as people decide them: in their own name, which the API server vouches for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentrun.api.approval import DECIDED, Verdict
from agentrun.api.canonical import moment, timestamp
from agentrun.api.errors import Refused
from agentrun.api.facts import ApprovalRequest
from agentrun.api.names import RUN_LABEL
from agentrun.api.printable import printable
from agentrun.api.workflow import Approvers
from agentrun.cli.failures import OutOfReach
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.cluster_run import APPROVALS, ClusterRun
from agentrun.kube.errors import Conflict
from agentrun.query.run_view import Question
from agentrun.query.texts import value

TRIES = 20
"""Times that a decision is written anew because somebody else's came between."""


def approvals_of(client: Client, run: ClusterRun) -> list[dict[str, Any]]:
    """The Approvals that this run's operator made for it, in the order of their names."""
    found = client.list_all(collection(APPROVALS, run.namespace), f"{RUN_LABEL}={run.name}")
    return [obj for obj in found if obj["spec"]["run"]["uid"] == run.uid]


def question_of(approval: dict[str, Any]) -> Question:
    """The question that an Approval holds."""
    spec = approval["spec"]
    request = ApprovalRequest(
        subject=spec["subject"],
        details=spec.get("details"),
        digest=spec["digest"],
        approvers=Approvers(**spec["approvers"]),
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
    """Add the decision of ``by`` to those that are there; how many people have approved then.

    Two people may decide at once: the list is written with the resourceVersion that it was read with, and again when
    somebody else was first. The spec, and so what is decided, never changes.

    Raises:
        Refused: it was decided meanwhile, or this person has decided before.
        Forbidden: an admission policy refuses it, in its own words.
    """
    path = f"{collection(APPROVALS, approval['metadata']['namespace'])}/{approval['metadata']['name']}"
    uid, spec = approval["metadata"]["uid"], approval["spec"]
    mine = {"by": by, "decision": decision, "digest": spec["digest"], "comment": comment}
    for _ in range(TRIES):
        there = _decisions(approval)
        before = next((entry for entry in there if entry["by"] == by), None)
        if before is not None:
            raise Refused(f"you have decided {spec['step']} already: {before['decision']}; a decision is not changed")
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
        # asked anew after a deletion, it is another question, which this person has not seen
        if approval["metadata"]["uid"] != uid:
            raise Refused(f"{spec['step']}: this question is gone, and another one has its name; nothing was decided")
    raise OutOfReach(f"others write to {path} all the time; nothing was decided, try again")


def closed(approval: Mapping[str, Any]) -> str:
    """How an Approval was closed, and by whom, in words."""
    by = " and ".join(printable(entry["by"], 60) for entry in _decisions(approval))
    what = f"{approval['spec']['step']}: {value(approval['spec']['subject'])}"
    return f"{what} is decided: {is_decided(approval)}" + (f", after {by}" if by else "")


def _decisions(approval: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((approval.get("status") or {}).get("decisions") or ())
