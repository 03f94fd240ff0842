"""Approvals on a cluster: what the operator makes, and what it reads of what people wrote."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentrun.api.approval import (
    DETAILS_MAX,
    SUBJECT_MAX,
    ApprovalSpec,
    Decision,
    Owner,
    approval_name,
    approval_object,
    decided_at,
    decisions_of,
)
from agentrun.api.canonical import canonical, digest_of, timestamp
from agentrun.api.crd import definitions
from agentrun.api.facts import ApprovalRequest, StepKey
from agentrun.api.workflow import Approvers

RUN = Owner("refund-4711", "support", "ad6d39e9-f698-4aba-9925-d7c7a26dbed0")
SIGN_OFF = StepKey("sign-off")
REQUEST = ApprovalRequest(
    "Refund 129.0 for order 4711?",
    {"amount": 129.0},
    digest_of("asked"),
    Approvers(groups=["finance"]),
    2,
    1_800_000_000.5,
)
CALL = ApprovalRequest(
    'pay_refund({"amount": 129.0})', {"amount": 129.0}, digest_of("call"), Approvers(users=["ben"]), 1, 1.0, "c", "pay"
)


def schema() -> dict[str, Any]:
    found: dict[str, Any] = definitions()["approvals.yaml"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


VALID = jsonschema_rs.Draft202012Validator(schema(), validate_formats=True)


def test_an_approval_steps_approval() -> None:
    made = approval_object(RUN, SIGN_OFF, 1, REQUEST, "ana@example.com")
    assert made == {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {
            "name": "refund-4711-sign-off",
            "namespace": "support",
            "labels": {"agentrun.dev/run": "refund-4711", "agentrun.dev/step": "sign-off"},
            "ownerReferences": [
                {
                    "apiVersion": "agentrun.dev/v1alpha1",
                    "kind": "AgentRun",
                    "name": "refund-4711",
                    "uid": RUN.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "run": {"name": "refund-4711", "uid": RUN.uid},
            "step": "sign-off",
            "attempt": 1,
            "subject": "Refund 129.0 for order 4711?",
            "details": {"amount": 129.0},
            "digest": REQUEST.digest,
            "approvers": {"groups": ["finance"], "users": []},
            "required": 2,
            "requestedBy": "ana@example.com",
            "expiresAt": "2027-01-15T08:00:00.500000Z",
        },
    }
    assert VALID.is_valid(made)


def test_a_tool_calls_approval() -> None:
    key = StepKey("letter", 3, compensate=True)
    made = approval_object(RUN, key, 2, CALL, None)
    assert made["metadata"]["name"] == f"refund-4711-letter-3-{CALL.digest[7:15]}"
    assert made["metadata"]["labels"]["agentrun.dev/step"] == "letter"
    spec = made["spec"]
    assert (spec["step"], spec["attempt"], spec["tool"], spec["callId"]) == ("letter[3].compensate", 2, "pay", "c")
    assert "requestedBy" not in spec
    assert VALID.is_valid(made)


def test_runs_whose_short_names_are_one_have_long_ones_apart() -> None:
    asked = [
        (Owner("a-b", "n", "1"), StepKey("c"), digest_of(1)),
        (Owner("a", "n", "2"), StepKey("b-c"), digest_of(2)),
    ]
    requests = [(o, k, ApprovalRequest("?", None, d, Approvers(users=["x"]), 1, 0.0)) for o, k, d in asked]
    assert {approval_name(o.name, k, r) for o, k, r in requests} == {"a-b-c"}
    long = [approval_object(o, k, 1, r, None, long=True)["metadata"]["name"] for o, k, r in requests]
    assert long == [f"a-b-c-{r.digest[7:15]}" for _, _, r in requests]
    assert long[0] != long[1]


def test_what_is_too_large_is_bound_by_its_digest() -> None:
    fits = "x" * (DETAILS_MAX - 2)
    for details, kept in ((fits, True), (fits + "x", False)):
        request = ApprovalRequest("é" * SUBJECT_MAX, details, REQUEST.digest, REQUEST.approvers, 1, 0.0)
        spec = approval_object(RUN, SIGN_OFF, 1, request, None)["spec"]
        larger = {"digest": digest_of(details), "size": len(canonical(details))}
        assert spec["details"] == (details if kept else larger)
        assert spec["subject"] == request.subject
    longer = ApprovalRequest("é" * (SUBJECT_MAX + 1), None, REQUEST.digest, REQUEST.approvers, 1, 0.0)
    made = approval_object(RUN, SIGN_OFF, 1, longer, None)
    assert made["spec"]["subject"] == "é" * (SUBJECT_MAX - 1) + "…"
    assert "details" not in made["spec"]
    assert VALID.is_valid(made)


names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


@given(names, names, st.none() | st.integers(0, 9999), st.booleans(), st.text(), plain_json, st.booleans())
def test_every_approval_fits_the_schema(
    run: str, step: str, index: int | None, undo: bool, subject: str, details: Any, call: bool
) -> None:
    assume(not any(0xD800 <= ord(c) < 0xE000 for c in subject))
    more = ("call-1", "pay_refund") if call else (None, None)
    request = ApprovalRequest(subject, details, digest_of(details), Approvers(users=["x"]), 1, 1.5, *more)
    key = StepKey(step, index, undo)
    made = approval_object(Owner(run, "n", RUN.uid), key, 1, request, None)
    assert VALID.is_valid(json.loads(json.dumps(made)))
    assert ApprovalSpec.model_validate(made["spec"]).digest == request.digest
    assert len(made["metadata"]["name"]) <= 253
    assert StepKey.parse(made["spec"]["step"]) == key


DECISION = {
    "by": "ben@example.com",
    "decision": "Approved",
    "digest": REQUEST.digest,
    "comment": "ok",
    "at": "2026-11-24T04:15:59Z",
}


def test_decisions_are_read_in_their_order() -> None:
    second = {"by": "cleo", "decision": "Rejected", "digest": REQUEST.digest}
    assert decisions_of({"status": {"decisions": [DECISION, second]}}) == (
        Decision("ben@example.com", "Approved", REQUEST.digest, "ok", "2026-11-24T04:15:59Z"),
        Decision("cleo", "Rejected", REQUEST.digest, "", ""),
    )
    assert VALID.is_valid(approval_object(RUN, SIGN_OFF, 1, REQUEST, None) | {"status": {"decisions": [DECISION]}})


@pytest.mark.parametrize(
    "change",
    [
        {"by": ""},
        {"by": 1},
        {"by": None},
        {"decision": "approved"},
        {"decision": ["Approved"]},
        {"decision": {}},
        {"digest": "sha256:1"},
        {"digest": None},
        {"comment": 1},
        {"at": 1},
    ],
)
def test_an_entry_that_is_no_decision_decides_nothing(change: dict[str, Any]) -> None:
    obj = {"status": {"decisions": [DECISION | change, DECISION]}}
    assert [decision.by for decision in decisions_of(obj)] == ["ben@example.com"]
    assert not VALID.is_valid(approval_object(RUN, SIGN_OFF, 1, REQUEST, None) | obj)


@given(st.dictionaries(st.sampled_from(["status", "metadata"]), plain_json) | plain_json.map(lambda v: {"status": v}))
def test_no_object_is_too_strange_to_read(obj: dict[str, Any]) -> None:
    assert decisions_of(obj) == ()
    assert decided_at(obj, 5.0) == 5.0
    assert decisions_of({"status": {"decisions": [obj, obj.get("status")]}}) == ()
    assert decided_at({"metadata": {"managedFields": [obj, obj.get("status")]}}, 5.0) == 5.0


def managed(*entries: tuple[str | None, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "time": at} | ({"subresource": of} if of else {})
                for of, at in entries
            ]
        }
    }


def test_when_the_last_decision_came() -> None:
    now = 1_800_000_000.0
    obj = managed(
        (None, timestamp(now - 1)), ("status", timestamp(now - 60)), ("status", timestamp(now - 50)), ("scale", "x")
    )
    assert decided_at(obj, now) == now - 50
    assert decided_at(managed((None, timestamp(now - 1))), now) == now
    assert decided_at({}, now) == now
    assert decided_at(managed(("status", timestamp(now + 5))), now) == now
    assert decided_at(managed(("status", "2027-01-15T08:00:00Z")), now + 5) == now


@pytest.mark.parametrize("at", ["yesterday", "", "9999-99-99T00:00:00Z", "0001-01-01T00:00:00"])
def test_an_instant_that_no_server_gives_is_not_believed(at: str) -> None:
    assert decided_at(managed(("status", timestamp(1.0)), ("status", at)), 7.0) == 7.0


def test_the_claimed_instant_decides_nothing() -> None:
    obj = managed(("status", timestamp(100.0))) | {"status": {"decisions": [DECISION | {"at": timestamp(1.0)}]}}
    assert decided_at(obj, 200.0) == 100.0


def test_the_object_is_the_callers_own() -> None:
    request = copy.deepcopy(REQUEST)
    made = approval_object(RUN, SIGN_OFF, 1, request, None)
    made["spec"]["approvers"]["groups"].append("everybody")
    assert request == REQUEST
