"""The policies on who changed what may change in a run: with the name stamped by the API server, and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.api import Api, Document, run
from tests.chart.conftest import until

POLICIES = "/apis/admissionregistration.k8s.io/v1"
NOTES = {
    "suspend": "agentrun.dev/suspend-by",
    "cancel": "agentrun.dev/cancel-by",
    "ttlSecondsAfterFinished": "agentrun.dev/ttl-by",
}
VALUES: dict[str, tuple[Any, Any]] = {
    "suspend": (True, False),
    "cancel": (True, False),
    "ttlSecondsAfterFinished": (60, None),
}


def stamps(admin: Api) -> bool:
    """Whether the API server writes the name of who changes a run."""
    answer = admin.create("agentruns", run("probe", suspend=True), dry=True)
    return NOTES["suspend"] in answer.ok()["metadata"].get("annotations", {})


@pytest.fixture
def unstamped(admin: Api, release: None) -> Iterator[None]:
    """As on a cluster before Kubernetes 1.36: nobody stamps names."""
    path = f"{POLICIES}/mutatingadmissionpolicybindings"
    found = admin.call("GET", f"{path}/agentrun-changed-by").ok()
    admin.call("DELETE", f"{path}/agentrun-changed-by").ok()
    until("no name is stamped", lambda: not stamps(admin))
    yield
    found["metadata"] = {"name": "agentrun-changed-by", "labels": found["metadata"]["labels"]}
    admin.call("POST", path, found).ok()
    until("names are stamped again", lambda: stamps(admin))


def notes(obj: Document) -> dict[str, str]:
    """Who changed what, by the field."""
    found = obj["metadata"].get("annotations", {})
    return {field: found[note] for field, note in NOTES.items() if note in found}


@pytest.mark.parametrize("field", NOTES)
def test_the_name_of_who_changes_it_is_written(
    people: dict[str, Api], admin: Api, fresh: Iterator[str], field: str
) -> None:
    until("names are stamped", lambda: stamps(admin))
    name, (on, off) = next(fresh), VALUES[field]
    assert notes(people["ana"].create("agentruns", run(name)).ok()) == {}
    assert notes(people["eve"].patch("agentruns", name, {"spec": {field: on}}).ok()) == {field: "eve"}
    # again, or something else: it stays whose it was
    assert notes(people["ben"].patch("agentruns", name, {"spec": {field: on}}).ok()) == {field: "eve"}
    other = {"metadata": {"labels": {"a": "b"}}}
    assert notes(people["ben"].patch("agentruns", name, other).ok()) == {field: "eve"}
    forged = {"metadata": {"annotations": {NOTES[field]: "carl"}}}
    assert notes(people["ben"].patch("agentruns", name, forged | {"spec": {field: off}}).ok()) == {field: "ben"}
    whole = people["ana"].get("agentruns", name)
    whole["spec"][field] = on
    assert notes(people["ana"].put("agentruns", whole).ok()) == {field: "ana"}


def test_who_makes_a_run_that_is_suspended_suspended_it(people: dict[str, Api], fresh: Iterator[str]) -> None:
    made = people["ana"].create("agentruns", run(next(fresh), suspend=True, ttlSecondsAfterFinished=5)).ok()
    assert notes(made) == {"suspend": "ana"}
    forged = run(next(fresh), {NOTES["cancel"]: "ben"}, cancel=True)
    assert notes(people["ana"].create("agentruns", forged).ok()) == {"cancel": "ana"}


def test_of_a_copy_of_another_run_no_name_is_taken_over(people: dict[str, Api], fresh: Iterator[str]) -> None:
    annotations = dict.fromkeys(NOTES.values(), "ben")
    assert notes(people["ana"].create("agentruns", run(next(fresh), annotations)).ok()) == {}
    changed = run(next(fresh), annotations | {"a": "b"}, suspend=True, cancel=True, ttlSecondsAfterFinished=5)
    made = people["ana"].create("agentruns", changed).ok()
    assert notes(made) == {"suspend": "ana", "cancel": "ana"} and made["metadata"]["annotations"]["a"] == "b"


@pytest.mark.parametrize("note", NOTES.values())
@pytest.mark.parametrize("who", ["eve", "admin"])
def test_nobody_writes_or_removes_a_name_alone(
    people: dict[str, Api], fresh: Iterator[str], who: str, note: str
) -> None:
    name = next(fresh)
    people["ana"].create("agentruns", run(name)).ok()
    for forged in ("ana", who, ""):
        said = people[who].patch("agentruns", name, {"metadata": {"annotations": {note: forged}}}).refused()
        assert f"{who} may not say who changed" in said and "keep as it is the annotation" in said
    everything = {"suspend": True, "cancel": True, "ttlSecondsAfterFinished": 5}
    people["ben"].patch("agentruns", name, {"spec": everything}).ok()
    for change in ({note: None}, {note: who}):
        assert people[who].patch("agentruns", name, {"metadata": {"annotations": change}}).status == 403


def test_a_server_side_apply_is_stamped_and_an_apply_of_the_same_file_keeps_it(
    people: dict[str, Api], fresh: Iterator[str]
) -> None:
    name = next(fresh)
    path = f"/apis/agentrun.dev/v1alpha1/namespaces/support/agentruns/{name}?fieldManager=git&force=true"
    kind = "application/apply-patch+yaml"
    people["ana"].call("PATCH", path, run(name), kind).ok()
    assert notes(people["eve"].call("PATCH", path, run(name, suspend=True), kind).ok()) == {"suspend": "eve"}
    assert notes(people["ben"].call("PATCH", path, run(name, suspend=True), kind).ok()) == {"suspend": "eve"}
    assert notes(people["ben"].call("PATCH", path, run(name), kind).ok()) == {"suspend": "ben"}


def test_without_stamping_a_name_is_ones_own_or_there_is_none(
    people: dict[str, Api], fresh: Iterator[str], unstamped: None
) -> None:
    name, note = next(fresh), NOTES["suspend"]

    def change(who: str, suspend: bool, by: str | None) -> Any:
        return people[who].patch(
            "agentruns", name, {"metadata": {"annotations": {note: by}}, "spec": {"suspend": suspend}}
        )

    said = people["ana"].create("agentruns", run(name, {note: "ana"})).refused()
    assert "ana may not say who changed suspend where it does not change: leave out the annotation" in said
    people["ana"].create("agentruns", run(name)).ok()
    assert "eve may not say that ana changed suspend: write eve" in change("eve", True, "ana").refused()
    assert notes(change("eve", True, "eve").ok()) == {"suspend": "eve"}
    # what another one left there is not to speak for who changes it now
    said = people["ben"].patch("agentruns", name, {"spec": {"suspend": False}}).refused()
    assert "ben may not say that eve changed suspend" in said
    assert notes(change("ben", False, None).ok()) == {}
    people["ben"].patch("agentruns", name, {"spec": {"suspend": True}}).ok()
