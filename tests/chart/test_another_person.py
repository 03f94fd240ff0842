"""The policies that nobody decides on their own run under another name, as the API server answers to real users."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart.api import Answer, Api, Document, binding
from tests.chart.conftest import RBAC, until
from tests.chart.decisions import decide, decision, made

ROBOT = "system:serviceaccount:robots:cron"
"""A ServiceAccount that made a run; in a namespace of its own, so that rights there are the test's alone."""

WORKLOADS = [("apps", kind) for kind in ("deployments", "statefulsets", "daemonsets", "replicasets")]
WORKLOADS += [("", "replicationcontrollers"), ("batch", "cronjobs")]
WAYS: list[tuple[str, str, str, str]] = [
    ("", "serviceaccounts", "impersonate", "cron"),
    ("", "serviceaccounts", "impersonate", ""),
    ("", "serviceaccounts/token", "create", "cron"),
    ("", "serviceaccounts/token", "create", ""),
    *(("", "secrets", verb, "") for verb in ("get", "list", "watch")),
    *(("", "pods", verb, "") for verb in ("create", "patch", "update")),
    *(("", f"pods/{way}", verb, "") for way in ("exec", "attach") for verb in ("create", "get")),
    *(("", "pods/ephemeralcontainers", verb, "") for verb in ("patch", "update")),
    *((group, kind, verb, "") for group, kind in WORKLOADS for verb in ("create", "patch", "update")),
    ("batch", "jobs", "create", ""),
    ("*", "*", "*", ""),
]
"""Group, resource, verb and name of each right by which somebody acts as the ServiceAccount."""

NO_WAYS: list[tuple[str, str, str, str]] = [
    ("", "serviceaccounts", "impersonate", "another"),
    ("", "serviceaccounts/token", "create", "another"),
    ("", "serviceaccounts", "get", ""),
    ("", "pods", "get", ""),
    ("", "pods", "delete", ""),
    ("", "pods/log", "get", ""),
    ("", "secrets", "create", ""),
    ("", "configmaps", "create", ""),
    ("agentrun.dev", "agentruns", "create", ""),
]


@pytest.fixture(scope="module")
def robots(admin: Api, release: None) -> None:
    admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": "robots"}}).ok()


@pytest.fixture(scope="module")
def strangers(admin: Api, robots: None) -> Callable[..., Api]:
    """A new user of the group finance who may decide in `support`, with one more right."""
    numbers = itertools.count()

    def stranger(right: tuple[str, str, str, str] | None = None, namespace: str = "robots") -> Api:
        name = f"stranger-{next(numbers)}"
        admin.call("POST", f"{RBAC}/support/rolebindings", binding("agentrun-approver", name)).ok()
        one = admin.acting_as(name, "finance")
        if right is not None:
            group, resource, verb, of = right
            rule: Document = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            rule |= {"resourceNames": [of]} if of else {}
            role = {"metadata": {"name": name}, "rules": [rule]}
            admin.call("POST", f"{RBAC}/{namespace}/roles", role).ok()
            admin.call("POST", f"{RBAC}/{namespace}/rolebindings", binding(name, name, kind="Role")).ok()
            until("the right is there", lambda: one.may(verb, resource, group=group, namespace=namespace, name=of))
        until(
            f"{name} may decide",
            lambda: one.may("patch", "approvals/status", group="agentrun.dev", namespace="support"),
        )
        return one

    return stranger


def name_of(who: Api) -> str:
    found: str = who._acting[0]
    return found


def tried(who: Api, operator: Api, fresh: Iterator[str], **changed: Any) -> Answer:
    """Their decision on a run that the ServiceAccount made."""
    asked = made(operator, fresh, **{"requestedBy": ROBOT} | changed)
    return decide(who, asked, decision(name_of(who)))


def test_another_person_decides_on_the_run_of_a_service_account(
    strangers: Callable[..., Api], operator: Api, fresh: Iterator[str]
) -> None:
    tried(strangers(), operator, fresh).ok()


@pytest.mark.parametrize("right", WAYS, ids=" ".join)
def test_who_may_act_as_the_service_account_that_made_the_run_is_no_other_person(
    strangers: Callable[..., Api], operator: Api, fresh: Iterator[str], right: tuple[str, str, str, str]
) -> None:
    one = strangers(right)
    said = tried(one, operator, fresh).refused()
    assert f"{name_of(one)} may " in said and f"{ROBOT}, who made the run refund-1" in said
    assert "ask an approver who may not" in said
    tried(one, operator, fresh, requestedBy="ana").ok()
    tried(one, operator, fresh, requestedBy="system:serviceaccount:elsewhere:cron").ok()


@pytest.mark.parametrize("right", NO_WAYS, ids=" ".join)
def test_other_rights_stand_in_nobodys_way(
    strangers: Callable[..., Api], operator: Api, fresh: Iterator[str], right: tuple[str, str, str, str]
) -> None:
    tried(strangers(right), operator, fresh).ok()


def test_an_editor_of_the_namespace_may_act_as_its_service_accounts(
    admin: Api, strangers: Callable[..., Api], operator: Api, fresh: Iterator[str]
) -> None:
    one = strangers()
    admin.call("POST", f"{RBAC}/robots/rolebindings", binding("system:aggregate-to-edit", name_of(one))).ok()
    until("they are an editor", lambda: one.may("create", "pods", namespace="robots"))
    # Which of the editor's rights is named first is the policy's to choose.
    assert "whoever may act as the one who made a run is no other person" in tried(one, operator, fresh).refused()


def test_who_may_impersonate_the_person_who_made_the_run_is_no_other_person(
    admin: Api, strangers: Callable[..., Api], operator: Api, fresh: Iterator[str]
) -> None:
    one = strangers()
    rule = {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["ana"]}
    cluster = "/apis/rbac.authorization.k8s.io/v1"
    admin.call("POST", f"{cluster}/clusterroles", {"metadata": {"name": "as-ana"}, "rules": [rule]}).ok()
    bound = binding("as-ana", name_of(one)) | {"kind": "ClusterRoleBinding"}
    admin.call("POST", f"{cluster}/clusterrolebindings", bound).ok()
    until("they may act as ana", lambda: one.may("impersonate", "users", name="ana"))
    assert (
        f"{name_of(one)} may impersonate ana, who made the run"
        in tried(one, operator, fresh, requestedBy="ana").refused()
    )
    tried(one, operator, fresh, requestedBy="eve").ok()


def account(admin: Api, namespace: str, name: str) -> Api:
    """The ServiceAccount, by its token, with the right to decide in `support`."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.call("POST", path, {"metadata": {"name": name}})
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    one = admin.with_token(admin.call("POST", f"{path}/{name}/token", token).ok()["status"]["token"])
    bound = binding("agentrun-approver")
    bound["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    admin.call("POST", f"{RBAC}/support/rolebindings", bound).ok()
    until("it may decide", lambda: one.may("patch", "approvals/status", group="agentrun.dev", namespace="support"))
    return one


def test_a_service_account_decides_by_its_name_alone(
    admin: Api, robots: None, operator: Api, fresh: Iterator[str]
) -> None:
    one, name = account(admin, "robots", "judge"), "system:serviceaccount:robots:judge"
    groups = {"groups": ["system:serviceaccounts:robots", "system:serviceaccounts", "system:authenticated"]}
    said = decide(one, made(operator, fresh, approvers=groups), decision(name)).refused()
    assert f"{name} is a ServiceAccount and may not decide as one of a group" in said
    decide(one, made(operator, fresh, approvers={"users": [name]}), decision(name)).ok()


def test_a_service_account_of_the_runs_own_namespace_decides_nothing(
    admin: Api, operator: Api, fresh: Iterator[str]
) -> None:
    one, name = account(admin, "support", "judge"), "system:serviceaccount:support:judge"
    said = decide(one, made(operator, fresh, approvers={"users": [name]}), decision(name)).refused()
    assert f"{name} is a ServiceAccount of the namespace of the run" in said
