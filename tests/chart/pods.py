"""A pod as the operator makes it for a step, in the namespace `support`."""

from __future__ import annotations

from typing import Any

from tests.chart.api import Document

PODS = "/api/v1/namespaces/support/pods"
NOTES = {"agentrun.dev/run-uid": "u", "agentrun.dev/key": "letter", "agentrun.dev/attempt": "1"}
OWNER = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "name": "r", "uid": "1-2", "controller": True}


def pod(name: str, **metadata: Any) -> Document:
    meta = {"labels": {"agentrun.dev/run": "r"}, "annotations": NOTES, "ownerReferences": [OWNER], **metadata}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "metadata": {"name": name, **meta},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "step", "image": "x", "securityContext": security}],
        },
    }
