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
    decisions_of,
)
from agentrun.api.canonical import canonical, digest_of, timestamp
from agentrun.api.crd import definitions
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.tools import Approvers

NOW = 1_799_996_400.0
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
    made = approval_object(RUN, SIGN_OFF, 1, REQUEST, "ana@example.com", now=NOW)
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
            "askedAt": "2027-01-15T07:00:00.000000Z",
            "expiresAt": "2027-01-15T08:00:00.500000Z",
        },
    }
    assert VALID.is_valid(made)


def test_a_tool_calls_approval() -> None:
    key = StepKey("letter", 3, compensate=True)
    made = approval_object(RUN, key, 2, CALL, None, now=NOW)
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
    long = [approval_object(o, k, 1, r, None, long=True, now=NOW)["metadata"]["name"] for o, k, r in requests]
    assert long == [f"a-b-c-{r.digest[7:15]}" for _, _, r in requests]
    assert long[0] != long[1]


def test_what_is_too_large_is_bound_by_its_digest() -> None:
    fits = "x" * (DETAILS_MAX - 2)
    for details, kept in ((fits, True), (fits + "x", False)):
        request = ApprovalRequest("é" * SUBJECT_MAX, details, REQUEST.digest, REQUEST.approvers, 1, 0.0)
        spec = approval_object(RUN, SIGN_OFF, 1, request, None, now=NOW)["spec"]
        larger = {"digest": digest_of(details), "size": len(canonical(details))}
        assert spec["details"] == (details if kept else larger)
        assert spec["subject"] == request.subject
    longer = ApprovalRequest("é" * (SUBJECT_MAX + 1), None, REQUEST.digest, REQUEST.approvers, 1, 0.0)
    made = approval_object(RUN, SIGN_OFF, 1, longer, None, now=NOW)
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
    made = approval_object(Owner(run, "n", RUN.uid), key, 1, request, None, now=NOW)
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
    assert decisions_of({"status": {"decisions": [DECISION, second]}}, 7.0) == (
        Decision("ben@example.com", "Approved", REQUEST.digest, "ok", 7.0),
        Decision("cleo", "Rejected", REQUEST.digest, "", 7.0),
    )
    made = approval_object(RUN, SIGN_OFF, 1, REQUEST, None, now=NOW)
    assert VALID.is_valid(made | {"status": {"decisions": [DECISION]}})


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
    assert [decision.by for decision in decisions_of(obj, NOW)] == ["ben@example.com"]
    assert not VALID.is_valid(approval_object(RUN, SIGN_OFF, 1, REQUEST, None, now=NOW) | obj)


anything = st.dictionaries(st.sampled_from(["status", "metadata", "spec"]), plain_json) | plain_json.map(
    lambda v: {"status": v}
)


@given(anything, plain_json, plain_json)
def test_no_object_is_too_strange_to_read(obj: dict[str, Any], some: Any, more: Any) -> None:
    assert decisions_of(obj, 5.0) == ()
    assert decisions_of({"status": {"decisions": [obj, some]}}, 5.0) == ()
    status = {"decisions": [DECISION]}
    for entry in (some, {"subresource": "status", "time": some}, written(5.0, "ben@example.com") | {"fieldsV1": more}):
        for spec in ({}, {"askedAt": some}, {"askedAt": timestamp(1.0)}):
            (found,) = decisions_of({"metadata": {"managedFields": [entry]}, "spec": spec, "status": status}, 5.0)
            assert 0 <= found.at <= 5.0


def written(at: Any, *by: str, manager: str = "kubectl", **more: Any) -> dict[str, Any]:
    """What the API server notes of a writer of the status who wrote these people's decisions."""
    fields: dict[str, Any] = {f'k:{{"by":{json.dumps(name)}}}': {".": {}, "f:by": {}} for name in by}
    entry = {"manager": manager, "operation": "Update", "subresource": "status"}
    entry |= {"time": timestamp(at) if isinstance(at, float) else at} if at is not None else {}
    return entry | {"fieldsV1": {"f:status": {"f:decisions": {".": {}, **fields}}}} | more


def instants(*entries: dict[str, Any], now: float = 2_000.0, people: tuple[str, ...] = ("ben", "carl")) -> list[float]:
    """When each of ``people`` decided, by these notes."""
    decisions = [DECISION | {"by": name} for name in people]
    obj = {"metadata": {"managedFields": list(entries)}, "status": {"decisions": decisions}}
    return [found.at for found in decisions_of(obj, now)]


MADE = {"manager": "operator", "operation": "Update", "time": timestamp(500.0), "fieldsV1": {"f:spec": {}}}
CLOSED = written(1_900.0, manager="operator") | {"fieldsV1": {"f:status": {"f:conditions": {}}}}
BUCKET = written(1_001.0, "ben", "carl", manager="ancient-changes")
del BUCKET["subresource"]


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([written(1_000.0, "ben"), written(1_500.0, "carl")], [1_000.0, 1_500.0]),
        ([written(1_500.0, "carl"), written(1_000.0, "ben"), MADE], [1_000.0, 1_500.0]),
        ([written(1_000.0, "ben"), written(1_500.0, "carl"), CLOSED], [1_000.0, 1_500.0]),
        # under one manager's name: late, never early
        ([written(1_500.0, "ben", "carl")], [1_500.0, 1_500.0]),
        # who applies what is there owns it too, from then on
        ([written(1_000.0, "ben"), written(1_500.0, "ben", "carl", operation="Apply")], [1_000.0, 1_500.0]),
        ([written(1_000.0, "ben"), written(None, "ben", "carl"), written(1_500.0, "carl")], [1_000.0, 1_500.0]),
        # of more than ten writers the API server keeps the oldest together
        ([BUCKET, written(1_500.0, "dora")], [1_001.0, 1_001.0]),
        # nobody is noted as a writer of carl's
        ([written(1_000.0, "ben"), written(1_500.0)], [1_000.0, 1_500.0]),
        ([written(1_000.0), CLOSED], [1_900.0, 1_900.0]),
        ([MADE], [2_000.0, 2_000.0]),
        ([], [2_000.0, 2_000.0]),
        ([written(3_000.0, "ben"), written(1_500.0, "carl")], [2_000.0, 1_500.0]),
        ([written("yesterday", "ben"), written(1_500.0, "carl")], [1_500.0, 1_500.0]),
        ([written("9999-99-99T00:00:00Z", "ben"), written("0001-01-01T00:00:00", "carl")], [2_000.0, 2_000.0]),
        ([written(1_000.0, "ben"), {"subresource": "status"}, {"time": 7}, "x", None], [1_000.0, 1_000.0]),
    ],
)
def test_each_decision_has_the_instant_at_which_the_api_server_took_it(entries: list[Any], found: list[float]) -> None:
    assert instants(*entries) == found


@given(st.permutations([written(1_000.0, "ben"), written(1_500.0, "carl"), CLOSED, MADE, written(1_700.0, "dora")]))
def test_what_others_write_later_makes_no_decision_late(entries: list[dict[str, Any]]) -> None:
    assert instants(*entries, people=("carl", "ben", "dora")) == [1_500.0, 1_000.0, 1_700.0]


@given(st.text(min_size=1, max_size=8))
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    assert instants(written(1_000.0, name), written(1_500.0, f"{name}x"), people=(name,)) == [1_000.0]


@pytest.mark.parametrize("ahead", [-3_600.0, 0.0, 3_600.0])
def test_an_instant_of_the_api_server_is_told_by_the_operators_clock(ahead: float) -> None:
    made = approval_object(RUN, SIGN_OFF, 1, REQUEST, None, now=1_000_000.2)
    made["metadata"] |= {
        "creationTimestamp": timestamp(float(int(1_000_000.4 + ahead))),
        "managedFields": [written(float(int(1_000_050.9 + ahead)), "ben"), written(1_000_000.0 + ahead, "carl")],
    }
    made["status"] = {"decisions": [DECISION | {"by": name} for name in ("ben", "carl")]}
    ben, carl = decisions_of(made, 1_000_200.0)
    assert 1_000_050.9 - 2 <= ben.at <= 1_000_050.9
    assert carl.at == 1_000_000.2, "nobody decides before they are asked"


def test_the_claimed_instant_decides_nothing() -> None:
    decided = {"decisions": [DECISION | {"at": timestamp(1.0)}]}
    obj = {"metadata": {"managedFields": [written(100.0, "ben@example.com")]}, "status": decided}
    assert [found.at for found in decisions_of(obj, 200.0)] == [100.0]


def test_the_object_is_the_callers_own() -> None:
    request = copy.deepcopy(REQUEST)
    made = approval_object(RUN, SIGN_OFF, 1, request, None, now=NOW)
    made["spec"]["approvers"]["groups"].append("everybody")
    assert request == REQUEST
