"""Documents for the tests on a cluster: small workflows and runs, and the refund example as in its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.operator import Operator
from tests.e2e.local import call, tool

Document = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = {"limit": 3, "backoff": {"initial": "1s"}}


def workflow(name: str, *steps: Document, **spec: Any) -> Document:
    """An AgentWorkflow; ``finally_`` is ``finally``."""
    return _document("AgentWorkflow", name, _spec(steps, spec))


def run(name: str, *steps: Document, run: Document | None = None, **spec: Any) -> Document:
    """An AgentRun with its workflow inline. ``run`` has further fields of the AgentRun's spec."""
    return _document("AgentRun", name, {"workflow": _spec(steps, spec), **(run or {})})


def run_of(name: str, workflow: str, **spec: Any) -> Document:
    """An AgentRun of a workflow in its namespace."""
    return _document("AgentRun", name, {"workflowRef": {"name": workflow}, **spec})


def ask(name: str, *groups: str, **step: Any) -> Document:
    """An approval step. By default it asks the group finance."""
    return {
        "name": name,
        "approval": {"subject": f"{name}?", "approvers": {"groups": [*groups] or ["finance"]}},
        **step,
    }


def agent(name: str, prompt: str, **step: Any) -> Document:
    """An agent step with the model of ``models``."""
    return {"name": name, "agent": {"prompt": prompt}, **step}


def models(url: str) -> list[Document]:
    """The model at ``url``, with the key in the Secret ``model``, which each namespace of the tests has."""
    key = {"secretRef": {"name": "model", "key": "key"}}
    return [{"name": "main", "model": "gpt-5.5", "endpoint": url, "credentials": key}]


def example(cluster: Cluster, operator: Operator, namespace: str) -> None:
    """Apply the refund example's servers, wait until they are ready, then apply its workflow and run; all as ana."""
    world = operator.kubectl("kustomize", EXAMPLES).stdout
    operator.kubectl(
        *("apply", "-n", namespace, "-f", "-"), user="ana", input=world.replace("agentrun:0.1.0", cluster.image)
    )
    for name in ("shop", "model"):
        operator.kubectl("rollout", "status", "-n", namespace, f"deployment/{name}", "--timeout=90s", user="ana")
    operator.kubectl("apply", "-n", namespace, "-f", EXAMPLES / "refund" / "cluster.yaml", user="ana")


def payments(operator: Operator, namespace: str) -> list[Document]:
    """The payments of the example's shop."""
    written = operator.kubectl("exec", "-n", namespace, "deploy/shop", "--", "cat", "/state/payments.jsonl").stdout
    return [yaml.safe_load(line) for line in written.splitlines()]


def _spec(steps: tuple[Document, ...], spec: dict[str, Any]) -> Document:
    if "finally_" in spec:
        spec["finally"] = spec.pop("finally_")
    return {"steps": [*steps], **spec}


def _document(kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


__all__ = ["agent", "ask", "call", "example", "models", "payments", "run", "run_of", "tool", "workflow"]
