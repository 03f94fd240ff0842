"""AgentCommands: what an API server and the operator take, and in which words they refuse."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.command import PAYLOAD_MAX, Command, Happened, Resolve, Resume, Signal
from agentrun.api.crd import definitions
from agentrun.api.errors import InvalidDocument
from agentrun.documents.agent_command import read_command
from tests.harness.crd import closed, holds, violations

RUN = {"name": "refund-4711"}
UID = "ad6d39e9-f698-4aba-9925-d7c7a26dbed0"


def schema() -> dict[str, Any]:
    found: dict[str, Any] = definitions()["agentcommands.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


SPEC = schema()["properties"]["spec"]
SERVER = jsonschema_rs.Draft202012Validator(closed(SPEC))


def command(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentCommand",
        "metadata": {
            "name": "refund-4711-x7k2p",
            "namespace": "support",
            "uid": UID,
            "creationTimestamp": "2026-11-24T04:15:59Z",
            "annotations": {"agentrun.dev/requested-by": "ana@example.com"},
            **metadata,
        },
        "spec": spec,
    }


def refused(obj: dict[str, Any]) -> str:
    with pytest.raises(InvalidDocument) as caught:
        read_command(obj)
    return str(caught.value)


def server_refuses(spec: Any) -> list[str]:
    return [error.message for error in SERVER.iter_errors(spec)] or list(violations(SPEC, spec))


GOOD: list[tuple[dict[str, Any], Signal | Resume | Resolve]] = [
    ({"signal": {"name": "shipped"}}, Signal(name="shipped")),
    ({"signal": {"name": "shipped", "payload": [1, None]}}, Signal(name="shipped", payload=[1, None])),
    ({"resume": {}}, Resume()),
    ({"resume": {"step": "letter[3].compensate"}}, Resume(step="letter[3].compensate")),
    ({"resolve": {"step": "refund", "happened": {}}}, Resolve(step="refund", happened=Happened())),
    (
        {"resolve": {"step": "refund", "callId": "c", "happened": {"result": {"ok": True}}}},
        Resolve(step="refund", call_id="c", happened=Happened(result={"ok": True})),
    ),
    ({"resolve": {"step": "refund", "retry": True}}, Resolve(step="refund", retry=True)),
    ({"resolve": {"step": "refund", "giveUp": True}}, Resolve(step="refund", give_up=True)),
]


@pytest.mark.parametrize(("verb", "expected"), GOOD, ids=[str(n) for n in range(len(GOOD))])
def test_a_command_is_read(verb: dict[str, Any], expected: Any) -> None:
    spec = {"run": RUN, **verb}
    assert read_command(command(spec)) == Command(
        "refund-4711-x7k2p", "support", UID, 1795493759.0, "ana@example.com", "refund-4711", None, expected
    )
    assert server_refuses(spec) == []


def test_the_answers_are_the_journals_words() -> None:
    answers = [verb.answer for _, verb in GOOD if isinstance(verb, Resolve)]
    assert answers == ["happened", "happened", "retry", "giveUp"]


def test_who_made_it_and_which_run_is_meant() -> None:
    spec = {"run": RUN | {"uid": UID}, "resume": {}}
    assert read_command(command(spec)).run_uid == UID
    for found in ({}, {"agentrun.dev/requested-by": ""}, {"agentrun.dev/requested-by": 1}, None, "x"):
        assert read_command(command(spec, annotations=found)).requested_by is None


BAD: list[tuple[Any, str]] = [
    ({"run": RUN}, "spec: give exactly one of signal, resume and resolve"),
    ({"run": RUN, "resume": {}, "signal": {"name": "a"}}, "spec: give exactly one of signal, resume and resolve"),
    ({"run": RUN, "resolve": {"step": "a"}}, "spec.resolve: give exactly one of happened, retry and giveUp"),
    (
        {"run": RUN, "resolve": {"step": "a", "retry": True, "giveUp": True}},
        "spec.resolve: give exactly one of happened, retry and giveUp",
    ),
    ({"run": RUN, "resolve": {"step": "a", "happened": {}, "retry": True}}, "give exactly one of happened, retry and"),
    ({"run": RUN, "resolve": {"step": "a", "retry": False}}, "spec.resolve.retry: "),
    ({"run": RUN, "resolve": {"step": "a", "happened": 5}}, "spec.resolve.happened: must be an object, found the num"),
    ({"run": RUN, "resolve": {"retry": True}}, "spec.resolve.step: is missing"),
    ({"run": RUN, "resolve": {"step": "a b", "retry": True}}, "spec.resolve.step: must be a step, an item of one, or"),
    ({"run": RUN, "resolve": {"step": "a", "callId": "", "retry": True}}, "spec.resolve.callId: must not be empty"),
    ({"resume": {}}, "spec.run: is missing"),
    ({"run": {}, "resume": {}}, "spec.run.name: is missing"),
    (
        {"run": {"name": "A"}, "resume": {}},
        "spec.run.name: must be a name of lower-case letters, digits and hyphens, such",
    ),
    (
        {"run": RUN | {"uid": "x"}, "resume": {}},
        "spec.run.uid: must be a uid: lower-case hexadecimal digits and hyphens, f",
    ),
    ({"run": RUN, "resume": {"from": "a"}}, 'spec.resume.from: unknown field "from": known fields: step'),
    ({"run": RUN, "signal": {}}, "spec.signal.name: is missing"),
    ({"run": RUN, "cancel": {}}, 'spec.cancel: unknown field "cancel"'),
    ([], "spec: must be an object, found a list"),
    (None, "spec: must be an object, found nothing (null)"),
]


@pytest.mark.parametrize(("spec", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_bad_command_is_refused_here_and_there(spec: Any, message: str) -> None:
    said = refused(command(spec))
    assert said.startswith("AgentCommand refund-4711-x7k2p: spec")
    assert message in said
    assert server_refuses(spec)
    if "exactly one" in message:
        assert said.endswith(server_refuses(spec)[0])


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"signal": {"name": "a", "payload": "x" * PAYLOAD_MAX}}, "spec.signal.payload"),
        (
            {"resolve": {"step": "a", "happened": {"result": "x" * PAYLOAD_MAX}}},
            "spec.resolve.happened.result",
        ),
    ],
)
def test_a_payload_is_bounded(spec: dict[str, Any], path: str) -> None:
    said = refused(command({"run": RUN, **spec}))
    assert said.endswith(f": {path}: is larger than 64 KiB: send a reference to it instead")


def test_depth_is_bounded_without_recursion() -> None:
    payload: Any = None
    for _ in range(100_000):
        payload = [payload]
    said = refused(command({"run": RUN, "signal": {"name": "a", "payload": payload}}))
    assert said.endswith(": spec: nested deeper than 64 levels: make it flatter")


@pytest.mark.parametrize(
    "metadata",
    [{"name": None}, {"uid": 1}, {"namespace": []}, {"creationTimestamp": None}, {"creationTimestamp": "noon"}],
)
def test_an_object_that_no_server_gave_is_refused(metadata: dict[str, Any]) -> None:
    assert "metadata" in refused(command({"run": RUN, "resume": {}}, **metadata))
    assert "metadata" in refused({"metadata": None, "spec": {}})


def test_a_command_cannot_change() -> None:
    (rule,) = (rule["rule"] for rule in SPEC["x-kubernetes-validations"] if "oldSelf" in rule["rule"])
    old = {"run": RUN, "resume": {}}
    assert holds(rule, old, old)
    assert not holds(rule, {"run": RUN, "resume": {"step": "a"}}, old)
    assert "spec" in schema()["required"]


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=9), values, max_size=4),
    max_leaves=12,
)


@given(
    plain_json
    | st.fixed_dictionaries(
        {"run": st.just(RUN)},
        optional={
            "signal": plain_json | st.fixed_dictionaries({"name": plain_json}, optional={"payload": plain_json}),
            "resume": plain_json | st.fixed_dictionaries({}, optional={"step": plain_json}),
            "resolve": plain_json | st.dictionaries(st.sampled_from(["step", "retry", "happened"]), plain_json),
        },
    )
)
def test_operator_and_server_agree_about_every_value(spec: Any) -> None:
    obj = json.loads(json.dumps(command(spec)))
    try:
        read_command(obj)
        taken = True
    except InvalidDocument:
        taken = False
    assert taken == (server_refuses(without_nulls(SPEC, spec)) == [])


def without_nulls(node: dict[str, Any], value: Any) -> Any:
    """``value`` as a server takes it: a field of the schema that is null is dropped first."""
    if not isinstance(value, dict) or "properties" not in node:
        return value
    known = node["properties"]
    return {k: without_nulls(known.get(k, {}), v) for k, v in value.items() if v is not None or k not in known}
