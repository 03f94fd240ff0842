"""The policies on who made a run or told it something: with the name stamped by the API server, and without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agentrun.api.command import accepted
from tests.chart.api import REQUESTED_BY, Api, Document, document, run
from tests.chart.conftest import stamped, until

POLICIES = "/apis/admissionregistration.k8s.io/v1"
ALICE = {REQUESTED_BY: "alice"}


def command(name: str, annotations: dict[str, str] | None = None) -> Document:
    return document("AgentCommand", name, {"run": {"name": "refund-1"}, "resume": {}}, annotations)


@pytest.fixture
def unstamped(admin: Api, release: None) -> Iterator[None]:
    """As on a cluster before Kubernetes 1.36: nobody stamps names."""
    path = f"{POLICIES}/mutatingadmissionpolicybindings"
    found = admin.call("GET", f"{path}/agentrun-requested-by").ok()
    admin.call("DELETE", f"{path}/agentrun-requested-by").ok()
    until("no name is stamped", lambda: not stamped(admin))
    yield
    found["metadata"] = {"name": "agentrun-requested-by", "labels": found["metadata"]["labels"]}
    admin.call("POST", path, found).ok()
    until("names are stamped again", lambda: stamped(admin))


@pytest.mark.parametrize("annotations", [None, {}, {"a": "b"}, ALICE, {REQUESTED_BY: ""}])
def test_the_api_server_writes_the_name_over_whatever_was_there(
    people: dict[str, Api], fresh: Iterator[str], annotations: dict[str, str] | None
) -> None:
    made = people["ana"].create("agentruns", run(next(fresh), annotations))
    assert made.requester == "ana"
    assert made.body["metadata"]["annotations"].keys() == {REQUESTED_BY, *(annotations or {})}
    assert people["ben"].create("agentcommands", command(next(fresh), annotations)).requester == "ben"


def test_a_server_side_apply_is_stamped_too(people: dict[str, Api], fresh: Iterator[str]) -> None:
    name = next(fresh)
    path = f"/apis/agentrun.dev/v1alpha1/namespaces/support/agentruns/{name}?fieldManager=test"
    kind = "application/apply-patch+yaml"
    assert people["ana"].call("PATCH", path, run(name, ALICE), kind).requester == "ana"
    # and applying the same file again, without the annotation, leaves it
    assert people["eve"].call("PATCH", path.replace("=test", "=eve"), run(name), kind).requester == "ana"


CHANGES = [{REQUESTED_BY: "eve"}, {REQUESTED_BY: "alice"}, {REQUESTED_BY: ""}, {REQUESTED_BY: None}]


@pytest.mark.parametrize("change", CHANGES, ids=json.dumps)
@pytest.mark.parametrize("who", ["eve", "admin"])
def test_nobody_changes_or_removes_the_name(
    people: dict[str, Api], fresh: Iterator[str], who: str, change: Document
) -> None:
    name = next(fresh)
    people["ana"].create("agentruns", run(name)).ok()
    said = people[who].patch("agentruns", name, {"metadata": {"annotations": change}}).refused()
    assert f"{who} may not change who made this: keep the annotation agentrun.dev/requested-by as it is, ana" in said
    people["ana"].create("agentcommands", command(name)).ok()
    assert people["admin"].patch("agentcommands", name, {"metadata": {"annotations": change}}).status == 403


def test_others_suspend_and_cancel_a_run(people: dict[str, Api], fresh: Iterator[str]) -> None:
    name = next(fresh)
    people["ana"].create("agentruns", run(name)).ok()
    changed = people["eve"].patch("agentruns", name, {"spec": {"suspend": True}, "metadata": {"labels": {"a": "b"}}})
    assert changed.requester == "ana"


def test_without_stamping_a_forged_name_is_refused(
    people: dict[str, Api], fresh: Iterator[str], unstamped: None
) -> None:
    for plural, made in (("agentruns", run), ("agentcommands", command)):
        for forged in ("alice", ""):
            said = people["ana"].create(plural, made(next(fresh), {REQUESTED_BY: forged})).refused()
            assert f"ana may not say that {forged} made this: leave out the annotation" in said
        assert people["ana"].create(plural, made(next(fresh), {REQUESTED_BY: "ana"})).requester == "ana"
        assert people["ana"].create(plural, made(next(fresh), {"a": "b"})).requester is None

    nameless = next(fresh)
    people["ana"].create("agentruns", run(nameless)).ok()
    for who in ("ana", "admin"):
        said = people[who].patch("agentruns", nameless, {"metadata": {"annotations": {REQUESTED_BY: who}}}).refused()
        assert f"{who} may not change who made this" in said and "(there is none). To have one, create it again" in said
    people["eve"].patch("agentruns", nameless, {"spec": {"cancel": True}}).ok()


def test_a_command_never_changes(people: dict[str, Api], fresh: Iterator[str]) -> None:
    name = next(fresh)
    people["ana"].create("agentcommands", command(name)).ok()
    answer = people["admin"].patch("agentcommands", name, {"spec": {"run": {"name": "refund-2"}}})
    assert answer.status == 422 and "spec cannot be changed" in answer.body["message"]
    assert people["ana"].patch("agentcommands", name, {"metadata": {"labels": {"a": "b"}}}).status == 403
    assert people["ana"].delete("agentcommands", name).status == 403


def test_the_status_of_a_command_is_the_operators(people: dict[str, Api], operator: Api, fresh: Iterator[str]) -> None:
    name = next(fresh)
    forged = {"status": {"conditions": [accepted("", 0.0)]}}
    made = people["ana"].create("agentcommands", command(name) | forged).ok()
    assert "status" not in made
    assert people["ana"].patch("agentcommands", name, forged, status=True).status == 403, "no role of the chart has it"
    said = people["admin"].patch("agentcommands", name, forged, status=True).refused()
    assert "admin may not write the status of a command: it is what the operator answered" in said
    answer = operator.patch("agentcommands", name, forged, status=True)
    assert answer.ok()["status"] == forged["status"] and answer.requester == "ana"
    assert operator.patch("agentcommands", name, {"metadata": {"labels": {"a": "b"}}}).status == 403
    operator.delete("agentcommands", name).ok()
