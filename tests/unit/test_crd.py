"""The generated CRDs: current, structural, complete, and of one mind with the models."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import yaml

from agentrun.api import crd
from agentrun.api.approval import Approval
from agentrun.api.command import AgentCommand
from agentrun.api.errors import InvalidDocument
from agentrun.api.keys import StepKey
from agentrun.api.run import AgentRun, AgentWorkflow, RunSpec, StepState
from agentrun.api.values import Spec
from agentrun.api.workflow import FailureClass
from agentrun.documents.document import parse
from tests.harness.crd import closed, holds, violations

CRDS = Path(__file__).parents[2] / "crds"
MODELS: dict[str, type[Spec]] = {
    "agentruns.yaml": AgentRun,
    "agentworkflows.yaml": AgentWorkflow,
    "approvals.yaml": Approval,
    "agentcommands.yaml": AgentCommand,
}
WITH_STATUS = {"agentruns.yaml", "approvals.yaml", "agentcommands.yaml"}
BY_PEOPLE = {"agentruns.yaml", "agentworkflows.yaml"}
ALLOWED = {
    *("type", "description", "properties", "additionalProperties", "items", "required", "enum", "format", "pattern"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minimum", "maximum"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    *("x-kubernetes-map-type",),
    "x-kubernetes-validations",
}


@cache
def schema(name: str) -> dict[str, Any]:
    (version,) = yaml.load((CRDS / name).read_text(), yaml.CSafeLoader)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in ``node``, itself too."""
    yield path, node
    for key, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{key}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[{key}]")


def test_the_files_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--check", str(CRDS)]) == 0
    assert capsys.readouterr() == ("", "")


FREE = (
    *("agent.output", "approval.details", "forEach.items", "http.body", "spec.output", "workflow.output"),
    *("steps.output", "status.output", "spec.details", "signal.payload", "happened.result"),
)
"""What takes any JSON: how deep that is, and of how many values, only who reads it can tell (api/decoding.py)."""

BOUNDS = {
    "string": {"maxLength", "enum", "format"},
    "array": {"maxItems"},
    "object": {"maxProperties", "properties"},
}


@pytest.mark.parametrize("name", MODELS)
def test_whatever_a_schema_can_bound_has_a_bound(name: str) -> None:
    for path, node in nodes(schema(name)):
        place = path.replace("[items]", "")
        if place in (".apiVersion", ".kind", ".metadata"):
            continue  # the API server bounds these itself
        if "type" not in node:
            assert place.endswith(FREE), path
        elif node["type"] in BOUNDS:
            assert BOUNDS[node["type"]] & node.keys(), path


def test_a_file_that_drifted_is_named_with_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main(["--check", str(tmp_path)]) == 0
    changed, gone = tmp_path / "agentruns.yaml", tmp_path / "agentworkflows.yaml"
    changed.write_text(changed.read_text().replace("maxItems: 1000", "maxItems: 1001"))
    gone.unlink()
    assert crd.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{path} is not what the models say: run python -m agentrun.api.crd {tmp_path}" for path in (changed, gone)
    ]


@pytest.mark.parametrize("name", MODELS)
def test_the_schema_is_structural(name: str) -> None:
    """The rules of the API server for a structural schema, and our own bounds on whatever a rule may walk over."""
    root = schema(name)
    for path, node in nodes(root):
        assert set(node) <= ALLOWED, path
        kind = node.get("type")
        if node.get("x-kubernetes-preserve-unknown-fields"):
            assert kind in (None, "object"), path
            assert not {"properties", "additionalProperties", "items"} & set(node), path
            continue
        assert kind in ("object", "array", "string", "integer", "number", "boolean"), path
        assert ("items" in node) == (kind == "array"), path
        described = len({"properties", "additionalProperties"} & set(node)) == 1
        assert described == (kind == "object" and (path != ".metadata" or name in BY_PEOPLE)), path
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path
        if kind == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if kind == "string" and path not in (".apiVersion", ".kind"):
            assert {"maxLength", "enum", "format"} & set(node), path
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], path
    assert set(root["properties"]) == {"apiVersion", "kind", "metadata", "spec"} | (
        {"status"} if name in WITH_STATUS else set()
    )
    restricted = {"name", "generateName"} if name in BY_PEOPLE else set()
    assert set(root["properties"]["metadata"].get("properties", ())) == restricted
    assert root["required"] == ["spec"]


def models(annotation: Any) -> Iterator[type[Spec]]:
    """The model in a field's type, if it has one."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from models(part)


@pytest.mark.parametrize("name", MODELS)
def test_the_schema_and_the_models_have_the_same_fields(name: str) -> None:
    seen: set[str] = set()

    def compare(model: type[Spec], node: dict[str, Any]) -> None:
        seen.add(model.__name__)
        fields = {info.alias or key: info for key, info in model.model_fields.items()}
        assert set(node["properties"]) == set(fields), model
        assert set(node.get("required", ())) == {key for key, info in fields.items() if info.is_required()}, model
        for key, info in fields.items():
            for inner in models(info.annotation):
                child = node["properties"][key]
                compare(inner, child.get("items", child))

    (spec,) = models(MODELS[name].model_fields["spec"].annotation)
    compare(spec, schema(name)["properties"]["spec"])
    expected = {"WorkflowSpec", "Step", "Wait", "Approvers", "Http", "SecretKey", "Backoff", "Toleration", "Resources"}
    assert (seen >= expected) == (name in BY_PEOPLE)


def test_the_status_has_the_states_of_the_models() -> None:
    status = schema("agentruns.yaml")["properties"]["status"]["properties"]
    step = status["steps"]["items"]["properties"]
    assert step["state"]["enum"] == [*StepState]
    assert set(step["items"]["properties"]) == {*StepState}
    assert step["failure"]["properties"]["class"]["enum"] == [*FailureClass]
    assert {"observedGeneration", "phase", "workflowDigest", "startTime", "completionTime", "journal"} <= set(status)
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    longest = StepKey("x" * 50, 99999, compensate=True).label
    assert step["name"]["maxLength"] >= len(longest)
    assert "pod" in step["waitingFor"]["properties"]


COLUMNS: dict[str, dict[str, int]] = {
    "arun": {
        "Phase": 0,
        "Step": 0,
        "Waiting": 0,
        "Reason": 0,
        "Cost": 0,
        "Message": 1,
        "Journal": 1,
        "Age": 0,
    },
    "awf": {"Description": 1, "Age": 0},
    "appr": {"Run": 0, "Step": 0, "Subject": 1, "Decided": 0, "Expires": 0, "Age": 0},
    "acmd": {"Run": 0, "Signal": 0, "Resume": 0, "Resolve": 0, "Accepted": 0, "Message": 1, "Age": 0},
}


@pytest.mark.parametrize(("name", "short"), list(zip(MODELS, COLUMNS, strict=True)))
def test_the_names_and_columns(name: str, short: str) -> None:
    text = (CRDS / name).read_text()
    assert text.startswith("# Generated by python -m agentrun.api.crd")
    assert "do not edit" in text.splitlines()[0]
    found = yaml.safe_load(text)
    plural = name.removesuffix(".yaml")
    assert found["metadata"]["name"] == f"{plural}.agentrun.dev"
    names = found["spec"]["names"]
    assert (names["plural"], names["shortNames"], names["categories"]) == (plural, [short], ["agentrun-all"])
    (version,) = found["spec"]["versions"]
    assert ("subresources" in version) == (name in WITH_STATUS)
    columns = {column["name"]: column.get("priority", 0) for column in version["additionalPrinterColumns"]}
    assert columns == COLUMNS[short]
    for column in version["additionalPrinterColumns"]:
        # kubectl shows a date as an age: one that is to come would be <invalid>
        assert column["type"] == ("date" if column["name"] == "Age" else "string")
        assert column["name"] == "Age" or leads_somewhere(schema(name), column["jsonPath"]), column


def leads_somewhere(node: dict[str, Any], path: str) -> bool:
    """Whether the JSONPath of a column ends at a text of the schema."""
    for part in re.findall(r"\.(\w+)|\[\?\(@\.(\w+)==\"(\w+)\"\)\]", path):
        name, key, value = part
        if name:
            node = node["properties"][name]
        else:
            node = node["items"]
            assert value in node["properties"][key].get("enum", [value])
    return bool(node["type"] == "string")


# What an API server does with an object, as far as a schema decides it.


@cache
def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(closed(schema(name)))


def server_refuses(document: dict[str, Any]) -> list[str]:
    name = f"{document['kind'].lower()}s.yaml"
    found = [error.message for error in validator(name).iter_errors(document)]
    return found or list(violations(schema(name), document))


def models_refuse(document: dict[str, Any]) -> str:
    try:
        parse(json.dumps(document).encode(), "wf.yaml")
    except InvalidDocument as error:
        return str(error)
    return ""


WORKFLOW: dict[str, Any] = yaml.safe_load("""
description: Everything that a workflow may say.
inputs: {type: object, required: [orderId], properties: {orderId: {type: string}}}
models:
  - name: main
    model: gpt-5.5
    provider: openai
    endpoint: https://models.internal/v1
    api: chat
    credentials: {secretRef: {name: model-key, key: api-key}}
    price: {input: "1.25", cachedInput: "0.125", output: "10"}
    contextWindow: 100000
defaults:
  model: main
  timeout: 10m
  retry: {limit: 2, backoff: {initial: 5s, factor: 1.5, max: 2m}}
  image: registry.example.com/runner@sha256:0123
  resources: {requests: {cpu: 250m, memory: 256Mi}}
  nodeSelector: {kubernetes.io/arch: amd64}
  tolerations: [{key: dedicated, value: agents, effect: NoSchedule}]
tools:
  - name: pay_refund
    description: Pay the amount back.
    effect: Once
    parameters: {type: object, properties: {amount: {type: number, minimum: 0}}}
    approval: {when: args.amount > 100.0, approvers: {groups: [finance]}, required: 2, timeout: 48h}
    http:
      method: POST
      url: https://pay.internal/refunds
      query: {order: "${args.orderId}"}
      headers: {X-Reason: refund}
      body: {amount: "${args.amount}"}
      auth: {bearer: {secretRef: {name: pay, key: token}}}
      output: response.body
      maxBytes: 4096
      timeout: 20s
steps:
  - name: triage
    agent:
      instructions: Decide.
      prompt: Order ${inputs.orderId}
      model: main
      tools: [pay_refund]
      output: {type: object}
      maxTurns: 12
      maxOutputTokens: 1000
    timeout: 1h30m
    retry: {limit: 0, classes: [Tool, Invalid]}
  - name: sign-off
    dependsOn: [triage]
    when: steps.triage.output.refund
    approval: {subject: "Refund?", details: [1, a], approvers: {users: [ana@example.com]}, required: 1, timeout: 48h}
  - name: refund
    dependsOn: [triage, sign-off]
    tool: {name: pay_refund, args: {orderId: a, deep: {x: [1, null]}}}
    forEach: {items: "${inputs.orders}", maxParallel: 4}
    continueOnError: true
    compensate: {name: pay_refund, args: {}}
    identity: {serviceAccountName: payments.shop}
    image: payments:1
    resources: {requests: {cpu: "0.5"}, limits: {memory: 1Gi, nvidia.com/gpu: "1", ephemeral-storage: 1e9}}
    nodeSelector: {}
    tolerations:
      - {operator: Exists, effect: NoExecute, tolerationSeconds: 60}
      - {key: example.com/pool, operator: Equal, value: ""}
  - {name: pause, wait: {duration: 24h}}
  - {name: until, wait: {until: "2030-01-01T00:00:00Z"}}
  - {name: shipped, wait: {signal: shipped, timeout: 7d}}
finally:
  - {name: note, tool: {name: pay_refund}}
output: {refunded: "${steps.refund.output}"}
""")

RUN: dict[str, Any] = {
    "apiVersion": "agentrun.dev/v1alpha1",
    "kind": "AgentRun",
    "metadata": {"name": "refund-4711"},
    "spec": {
        "workflow": WORKFLOW,
        "inputs": {"orderId": "4711", "list": [1, {"a": None}]},
        "budget": {"modelCalls": 40, "tokens": 200000, "costUSD": "2.50", "toolCalls": 0},
        "timeout": "24h",
        "suspend": False,
        "cancel": True,
        "source": {"run": "refund-4710", "step": "triage", "seq": 17},
        "identity": {"serviceAccountName": "refunds-agent"},
        "ttlSecondsAfterFinished": 604800,
    },
}
BY_REFERENCE = RUN | {"spec": {"workflowRef": {"name": "refund"}}}
REUSABLE = {
    "apiVersion": "agentrun.dev/v1alpha1",
    "kind": "AgentWorkflow",
    "metadata": {"generateName": "refund-"},
    "spec": WORKFLOW,
}
GONE = object()

STEP = "workflow.steps.0."
TOLERATION = "workflow.defaults.tolerations.0."
POD: dict[str, Any] = {
    "identity": {"serviceAccountName": "a"},
    "image": "a",
    "resources": {},
    "nodeSelector": {},
    "tolerations": [],
}
ANY_STEP: dict[str, Any] = {"name": "x", "tool": {"name": "t"}}
CHANGES: list[tuple[str, Any, bool]] = [
    # the path below spec, the value to set there, and whether the run is still valid
    ("workflow", GONE, False),
    ("workflowRef", {"name": "refund"}, False),
    ("workflowRef", {}, False),
    ("inputs", [], False),
    ("inputs", GONE, True),
    ("timeout", "1 day", False),
    ("timeout", 30, False),
    ("timeout", "250ms", True),
    ("timeout", "1s" * 17, False),
    ("suspend", "yes", False),
    ("suspend", 1, False),
    ("budget.costUSD", 2.5, False),
    ("budget.costUSD", "-1", False),
    ("budget.cost_usd", "1", False),
    ("budget.tokens", -1, False),
    ("budget.tokens", 10**12 + 1, False),
    ("budget.tokens", "1", False),
    ("source.step", GONE, False),
    ("source.seq", 0, False),
    ("source.seq", GONE, True),
    ("workflow.nonsense", 1, False),
    ("workflow.description", "x" * 4097, False),
    ("workflow.steps", [], False),
    ("workflow.steps", GONE, False),
    ("workflow.steps", [ANY_STEP | {"name": f"s{n}"} for n in range(1001)], False),
    ("workflow.steps", [ANY_STEP, ANY_STEP], False),
    ("workflow.steps.0", "triage", False),
    ("workflow.finally", [ANY_STEP, ANY_STEP], False),
    ("workflow.finally", [ANY_STEP], True),
    ("workflow.output", [1], True),
    ("workflow.output", "x", True),
    ("workflow.models.1", {"name": "main", "model": "x"}, False),
    ("workflow.models.1", {"name": "other", "model": "x"}, True),
    ("workflow.models.0.provider", "bedrock", False),
    ("workflow.models.0.endpoint", "ftp://a", False),
    ("workflow.models.0.endpoint", "http://a", True),
    ("workflow.models.0.credentials.secretRef.key", "a b", False),
    ("workflow.models.0.credentials.secretRef", "x", False),
    ("workflow.models.0.price.output", GONE, False),
    ("workflow.models.0.contextWindow", 999, False),
    ("workflow.tools.0.name", "a.b", False),
    ("workflow.tools.0.name", "x" * 65, False),
    ("workflow.tools.0.effect", "once", False),
    ("workflow.tools.0.effect", GONE, True),
    ("workflow.tools.0.http", GONE, False),
    ("workflow.tools.0.http.method", "TRACE", False),
    ("workflow.tools.0.http.body", [1, {"a": "b"}], True),
    ("workflow.tools.0.http.headers", {"a": 1}, False),
    ("workflow.tools.0.http.headers", {f"h{n}": "" for n in range(51)}, False),
    ("workflow.tools.0.http.maxBytes", 0, False),
    ("workflow.tools.0.approval.approvers", {}, False),
    ("workflow.tools.0.approval.approvers", {"users": [], "groups": []}, False),
    ("workflow.tools.0.approval.approvers", {"users": [""]}, False),
    ("workflow.tools.1", {"name": "pay_refund", "http": {"url": "https://a"}}, False),
    (STEP + "agent", GONE, False),
    (STEP + "tool", {"name": "pay_refund"}, False),
    (STEP + "wait", {"duration": "1h"}, False),
    (STEP + "agent.prompt", GONE, False),
    (STEP + "agent.prompt", "", False),
    (STEP + "agent.prompt", "é" * 32768, True),
    (STEP + "agent.prompt", "é" * 32769, False),
    (STEP + "agent.maxTurns", 0, False),
    (STEP + "agent.maxTurns", 1.5, False),
    (STEP + "agent.tools", ["a b"], False),
    (STEP + "agent.output", [], False),
    (STEP + "dependsOn", "triage", False),
    (STEP + "depends_on", [], False),
    (STEP + "name", "Triage", False),
    (STEP + "name", "x" * 51, False),
    (STEP + "name", "-x", False),
    (STEP + "when", "", False),
    (STEP + "when", "x" * 1025, False),
    (STEP + "retry.classes", [], False),
    (STEP + "retry.classes", ["Tool", "Tool"], False),
    (STEP + "retry.classes", ["Fenced"], False),
    (STEP + "retry.limit", 101, False),
    (STEP + "retry.backoff", {"factor": 0.5}, False),
    (STEP + "retry.backoff", {"factor": 3}, True),
    (STEP + "forEach", {"items": [1, 2]}, True),
    (STEP + "forEach", {}, False),
    (STEP + "forEach", {"items": [1], "maxParallel": 0}, False),
    ("workflow.steps.1.forEach", {"items": [1, 2]}, False),
    ("workflow.steps.1.approval.required", 11, False),
    ("workflow.steps.1.approval.approvers", {"users": []}, False),
    ("workflow.steps.2.compensate", {"args": {}}, False),
    ("workflow.steps.2.tool.args", {f"a{n}": n for n in range(101)}, False),
    ("workflow.steps.2.tool.args", "x", False),
    ("workflow.steps.3.wait", {}, False),
    ("workflow.steps.3.wait.until", "x", False),
    ("workflow.steps.3.wait.timeout", "1h", False),
    ("workflow.steps.3.forEach", {"items": [1]}, False),
    ("workflow.steps.5.wait.timeout", GONE, True),
    ("workflow.steps.5.wait.duration", "1h", False),
    ("identity", {}, False),
    ("identity.serviceAccountName", "", False),
    ("identity.serviceAccountName", "Refunds", False),
    ("identity.serviceAccountName", "a..b", False),
    ("identity.serviceAccountName", "a.-b", False),
    ("identity.serviceAccountName", "x" * 253, True),
    ("identity.serviceAccountName", "x" * 254, False),
    ("ttlSecondsAfterFinished", -1, False),
    ("ttlSecondsAfterFinished", 0, True),
    ("ttlSecondsAfterFinished", 2**31, False),
    ("ttlSecondsAfterFinished", "7d", False),
    ("workflow.defaults.image", "a b", False),
    ("workflow.defaults.image", "", False),
    ("workflow.defaults.identity", {"serviceAccountName": "a"}, False),
    ("workflow.defaults.resources.requests", {"cpu": 1}, False),
    ("workflow.defaults.resources.requests", {"cpu": "-1"}, False),
    ("workflow.defaults.resources.requests", {"cpu": "1 GB"}, False),
    ("workflow.defaults.resources.requests", {"cpu": ""}, False),
    ("workflow.defaults.resources.requests", {"cpu": ".5", "memory": "1.5Gi"}, True),
    ("workflow.defaults.resources.requests", {f"a.b/{n}": "1" for n in range(11)}, False),
    ("workflow.defaults.resources.claims", [], False),
    ("workflow.defaults.nodeSelector", {"a": 1}, False),
    ("workflow.defaults.nodeSelector", {"a": "b c"}, False),
    ("workflow.defaults.nodeSelector", {"a": "b" * 64}, False),
    ("workflow.defaults.nodeSelector", {"a": ""}, True),
    ("workflow.defaults.nodeSelector", {f"l{n}": "" for n in range(21)}, False),
    ("workflow.defaults.tolerations", [{}], False),
    ("workflow.defaults.tolerations", [{"operator": "Equal"}], False),
    ("workflow.defaults.tolerations", [{"operator": "Exists"}], True),
    ("workflow.defaults.tolerations", [{"operator": "Gt", "key": "a"}], False),
    ("workflow.defaults.tolerations", [{"operator": "Exists"}] * 20, True),
    ("workflow.defaults.tolerations", [{"operator": "Exists"}] * 21, False),
    (TOLERATION + "key", GONE, False),
    (TOLERATION + "key", "a b", False),
    (TOLERATION + "operator", "Exists", False),
    (TOLERATION + "effect", "Evict", False),
    (TOLERATION + "value", "a b", False),
    (TOLERATION + "tolerationSeconds", 1, False),
    ("workflow.steps.2.tolerations.0.effect", GONE, False),
    ("workflow.steps.2.tolerations.0.tolerationSeconds", -1, False),
    ("workflow.steps.2.tolerations.0.tolerationSeconds", GONE, True),
    ("workflow.steps.2.tolerations.0.value", "x", False),
    *((f"workflow.steps.{step}.{field}", value, step < 1) for step in (0, 1, 3) for field, value in POD.items()),
]


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(document)
    *parts, last = path.split(".")
    place: Any = made["spec"]
    for part in parts:
        place = place[int(part) if part.isdigit() else part]
    if value is GONE:
        del place[last]
    elif isinstance(place, list):
        place[int(last) : int(last) + 1] = [value]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize("document", [RUN, BY_REFERENCE, REUSABLE], ids=["run", "reference", "workflow"])
def test_server_and_models_take_the_same_objects(document: dict[str, Any]) -> None:
    assert models_refuse(document) == ""
    assert server_refuses(document) == []


def test_the_example_uses_every_field() -> None:
    """What the table below changes is all there is: a new field belongs into the example."""
    known: set[str] = set()
    used: set[str] = set()

    def visit(model: type[Spec], value: dict[str, Any]) -> None:
        for key, info in model.model_fields.items():
            alias = info.alias or key
            known.add(f"{model.__name__}.{alias}")
            if alias in value:
                used.add(f"{model.__name__}.{alias}")
                found = value[alias]
                for inner in models(info.annotation):
                    for item in found if isinstance(found, list) else [found]:
                        visit(inner, item)

    for document in (RUN, BY_REFERENCE):
        visit(RunSpec, document["spec"])
    assert used == known
    assert len(known) > 80


@pytest.mark.parametrize(
    ("path", "value", "valid"), CHANGES, ids=[f"{n}-{path}" for n, (path, _, _) in enumerate(CHANGES)]
)
def test_server_and_models_agree(path: str, value: Any, valid: bool) -> None:
    document = changed(RUN, path, value)
    assert (models_refuse(document) == "") == valid
    assert (server_refuses(document) == []) == valid


@pytest.mark.parametrize("name", ["", "Refund", "a.b", "x" * 51])
def test_server_and_models_agree_about_names(name: str) -> None:
    document = RUN | {"metadata": {"name": name}}
    assert models_refuse(document)
    assert server_refuses(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (STEP + "agent", GONE),
        (STEP + "tool", {"name": "pay_refund"}),
        ("workflow.steps.1.forEach", {"items": [1]}),
        ("workflow.steps.3.wait", {}),
        ("workflow.steps.3.wait.timeout", "1h"),
        ("workflow.steps.1.approval.approvers", {"users": []}),
        ("workflow", GONE),
        ("workflow.steps.1.identity", {"serviceAccountName": "a"}),
        ("workflow.steps.3.resources", {}),
        (TOLERATION + "key", GONE),
        (TOLERATION + "operator", "Exists"),
        (TOLERATION + "tolerationSeconds", 1),
    ],
)
def test_server_and_models_refuse_in_the_same_words(path: str, value: Any) -> None:
    document = changed(RUN, path, value)
    (said,) = set(server_refuses(document))
    assert models_refuse(document).endswith(f": {said}")


def immutability(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    rules = schema("agentruns.yaml")["properties"]["spec"]["x-kubernetes-validations"]
    return [
        rule["fieldPath"]
        for rule in rules
        if "oldSelf" in rule["rule"] and not holds(rule["rule"], new["spec"], old["spec"])
    ]


FULL = RUN | {"spec": RUN["spec"] | {"workflowRef": {"name": "refund"}}}
OTHER = {
    "workflowRef": {"name": "other"},
    "workflow": WORKFLOW | {"output": "other"},
    "inputs": RUN["spec"]["inputs"] | {"list": [1, {"a": 2}]},
    "budget": {"modelCalls": 41},
    "timeout": "25h",
    "suspend": True,
    "cancel": False,
    "source": {"run": "refund-4710", "step": "triage"},
    "identity": {"serviceAccountName": "other"},
    "ttlSecondsAfterFinished": 0,
}


@pytest.mark.parametrize("field", [info.alias or key for key, info in RunSpec.model_fields.items()])
def test_a_runs_spec_cannot_change_but_for_suspend_cancel_and_retention(field: str) -> None:
    """Changed, removed, or added: the rules stand at the parent, so that none of the three passes."""
    expected = [] if field in {"suspend", "cancel", "ttlSecondsAfterFinished"} else [f".{field}"]
    removed = changed(FULL, field, GONE)
    assert immutability(FULL, FULL) == immutability(removed, removed) == []
    assert immutability(FULL, changed(FULL, field, OTHER[field])) == expected
    assert immutability(FULL, removed) == expected
    assert immutability(removed, FULL) == expected
