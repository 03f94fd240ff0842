"""``kubectl agentrun approve`` and ``reject``: in the person's own name, which the API server vouches for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentrun.api.approval import Verdict
from agentrun.api.canonical import timestamp
from agentrun.api.texts import quoted
from agentrun.cli.decide import check_comment
from agentrun.cli.failures import OutOfReach, Refused
from agentrun.cli.on_cluster.client import Client, collection
from agentrun.cli.on_cluster.runs import APPROVALS, Run, approvals_of, find, is_decided
from agentrun.cli.on_cluster.todo import approvers
from agentrun.cli.options import ClusterPlace
from agentrun.cli.output import emit, tell
from agentrun.cli.printable import printable, value
from agentrun.kube.errors import Conflict

TRIES = 20
"""Times that a decision is written anew because somebody else's came between."""


def approve_verb(place: ClusterPlace, run: str, step: str | None, comment: str, call: str | None) -> int:
    """Approve what the run waits for: in ``step``, or the only question there is."""
    return _decide(place, run, step, "Approved", comment, call)


def reject_verb(place: ClusterPlace, run: str, step: str | None, comment: str, call: str | None) -> int:
    """Reject it."""
    return _decide(place, run, step, "Rejected", comment, call)


def _decide(place: ClusterPlace, run: str, step: str | None, decision: Verdict, comment: str, call: str | None) -> int:
    check_comment(comment)
    client = place.open()
    found = find(place, client, run)
    found.still_going()
    chosen = _chosen(client, found, step, call)
    by = client.user()
    for approval in chosen:
        after = _record(client, approval, by, decision, comment)
        spec = approval["spec"]
        tell(place, f"{decision.lower()}: {printable(spec['step'])}: {value(spec['subject'], None)}")
        if spec.get("details") is not None:
            tell(place, f"    {value(spec['details'], 2000)}")
        tell(place, f"    {spec['digest']}")
        have = sum(entry["decision"] == "Approved" for entry in _decisions(after))
        if decision == "Approved" and have < spec["required"]:
            tell(place, f"{printable(spec['step'])}: {have} of {spec['required']} people have approved")
    if place.output:
        emit(place, client.get(found.path))
    return 0


def _chosen(client: Client, run: Run, step: str | None, call: str | None) -> list[dict[str, Any]]:
    """The open Approvals that are meant. Raises Refused where there are none, or several steps have some."""
    all_ = approvals_of(client, run)
    open_ = [obj for obj in all_ if is_decided(obj) is None]
    found = [obj for obj in open_ if step in (None, obj["spec"]["step"])]
    if not found and step is not None:
        run.step(step)
        closed = [obj for obj in all_ if obj["spec"]["step"] == step]
        if closed:
            raise Refused(_closed(closed[-1]))
        entry = run.entries.get(step)
        raise Refused(f"{step} waits for no approval" + (f": it is {entry['state']}" if entry else ""))
    if not found:
        raise Refused(f"run {run.name} waits for no approval: it is {run.phase}")
    if len({obj["spec"]["step"] for obj in found}) > 1:
        lines = [
            f"    {printable(obj['spec']['step'])}: {value(obj['spec']['subject'])} ({approvers(obj['spec'])})"
            for obj in found
        ]
        raise Refused("several steps wait for approval; name one:\n" + "\n".join(lines))
    if call is not None:
        found = [obj for obj in found if obj["spec"].get("callId") == call]
        if not found:
            ids = ", ".join(str(obj["spec"]["callId"]) for obj in open_ if "callId" in obj["spec"])
            raise Refused(f"no call {quoted(call)} waits for approval; there are: {ids or 'none'}")
    return found


def _record(client: Client, approval: dict[str, Any], by: str, decision: Verdict, comment: str) -> dict[str, Any]:
    """Add the decision to those that are there; the Approval after it.

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
            raise Refused(_closed(approval))
        change = {
            "metadata": {"uid": uid, "resourceVersion": approval["metadata"]["resourceVersion"]},
            "status": {"decisions": [*there, {**mine, "at": timestamp(int(time.time()))}]},
        }
        try:
            return client.patch(f"{path}/status", change)
        except Conflict:
            approval = client.get(path)
        # asked anew after a deletion, it is another question, which this person has not seen
        if approval["metadata"]["uid"] != uid:
            raise Refused(f"{spec['step']}: this question is gone, and another one has its name; nothing was decided")
    raise OutOfReach(f"others write to {path} all the time; nothing was decided, try again")


def _decisions(approval: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((approval.get("status") or {}).get("decisions") or ())


def _closed(approval: Mapping[str, Any]) -> str:
    by = " and ".join(printable(entry["by"], 60) for entry in _decisions(approval))
    what = f"{approval['spec']['step']}: {value(approval['spec']['subject'])}"
    return f"{what} is decided: {is_decided(approval)}" + (f", after {by}" if by else "")
