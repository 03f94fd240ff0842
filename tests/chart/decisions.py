"""Decisions of people, as an API server takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.chart.api import Answer, Api, Document, document

DIGEST = f"sha256:{'a' * 64}"


NOW = "2026-01-02T03:04:05Z"


LATER = "2999-01-01T00:00:00Z"


OWNER = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "name": "refund-1", "uid": "0a1b"}


def approval(name: str, **changed: Any) -> Document:
    """What the operator asks: ana's run wants the word of finance, of eve, or of ana."""
    spec = {
        "run": {"name": "refund-1", "uid": "0a1b"},
        "step": "sign-off",
        "attempt": 1,
        "subject": "Refund 129.0?",
        "digest": DIGEST,
        "approvers": {"groups": ["finance"], "users": ["ana"]},
        "required": 2,
        "requestedBy": "ana",
        "expiresAt": LATER,
    }
    given = {key: value for key, value in (spec | changed).items() if value is not None}
    made = document("Approval", name, given)
    made["metadata"]["ownerReferences"] = [OWNER]
    return made


def decision(by: str, verdict: str = "Approved", **changed: Any) -> Document:
    return {"by": by, "decision": verdict, "digest": DIGEST, "at": NOW} | changed


def made(operator: Api, fresh: Iterator[str], **changed: Any) -> str:
    name = next(fresh)
    operator.create("approvals", approval(name, **changed)).ok()
    return name


def write(who: Api, name: str, **status: Any) -> Answer:
    return who.patch("approvals", name, {"status": status}, status=True)


def decide(who: Api, name: str, *decisions: Document) -> Answer:
    return write(who, name, decisions=list(decisions))
