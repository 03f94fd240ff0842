"""The policy on the pods of steps: what such a pod says of itself is the operator's word alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.api import MERGE, Api, Document
from tests.chart.conftest import until
from tests.chart.pods import NOTES, OWNER, PODS, pod


@pytest.fixture(scope="module")
def steps_pod(admin: Api, operator: Api, fresh: Iterator[str]) -> str:
    """A pod that the operator made."""
    admin.call("POST", "/api/v1/namespaces/support/serviceaccounts", {"metadata": {"name": "default"}})
    until("the policy holds", lambda: admin.call("POST", f"{PODS}?dryRun=All", pod("probe")).status == 403)
    name = next(fresh)
    until("its account is known", lambda: operator.call("POST", PODS, pod(name)).status == 201)
    return name


def test_nobody_makes_the_pod_of_a_step(admin: Api, steps_pod: str) -> None:
    """Whoever may create pods made one with the name of a step and its end, and what follows an approval was begun."""
    assert "may not create the pod of a step" in admin.call("POST", PODS, pod("forged")).refused()
    assert admin.call("POST", f"{PODS}?dryRun=All", pod("other", labels={"app": "x"})).status == 201


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": {"agentrun.dev/key": "pay"}},
        {"annotations": {"agentrun.dev/attempt": None}},
        {"labels": {"agentrun.dev/run": "other"}},
        {"labels": {"agentrun.dev/run": None}},
        {"ownerReferences": [{**OWNER, "name": "other", "uid": "2-3"}]},
    ],
    ids=str,
)
def test_nobody_changes_what_it_says(change: Document, admin: Api, steps_pod: str) -> None:
    answer = admin.call("PATCH", f"{PODS}/{steps_pod}", {"metadata": change}, MERGE)
    assert "may not change what a pod says of the step" in answer.refused()


def test_nobody_puts_another_image_into_it(admin: Api, steps_pod: str) -> None:
    """A kubelet starts a container anew whose image was changed, and what that leaves would be the step's last word."""
    change = {"spec": {"containers": [{"name": "step", "image": "mine"}]}}
    answer = admin.call("PATCH", f"{PODS}/{steps_pod}", change, "application/strategic-merge-patch+json")
    assert "keep its owner, its images" in answer.refused()


def test_nobody_makes_another_pod_one_of_a_step(admin: Api, steps_pod: str, fresh: Iterator[str]) -> None:
    other = next(fresh)
    admin.call("POST", PODS, pod(other, labels={}, annotations={}, ownerReferences=[])).ok()
    change = {"labels": {"agentrun.dev/run": "r"}, "annotations": NOTES}
    assert "may not change" in admin.call("PATCH", f"{PODS}/{other}", {"metadata": change}, MERGE).refused()


def test_what_it_does_not_say_may_be_changed(admin: Api, steps_pod: str) -> None:
    change = {"metadata": {"labels": {"team": "a"}, "annotations": {"team": "a"}, "finalizers": []}}
    admin.call("PATCH", f"{PODS}/{steps_pod}", change, MERGE).ok()
