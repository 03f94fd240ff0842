"""The policy on whom the steps of a run act as: to make a run is not to act as any ServiceAccount."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart.api import Api, Document, binding, document, run
from tests.chart.conftest import RBAC, until


@pytest.fixture(scope="module", autouse=True)
def granted(admin: Api, people: dict[str, Api]) -> None:
    """In `support`, ana may use `payments` and every one of sa-0 to sa-15."""
    use = {
        "metadata": {"name": "use"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["serviceaccounts"],
                "resourceNames": ["payments", *(f"sa-{n}" for n in range(17))],
                "verbs": ["use"],
            }
        ],
    }
    admin.call("POST", f"{RBAC}/support/roles", use).ok()
    admin.call("POST", f"{RBAC}/support/rolebindings", binding("use", "ana", kind="Role")).ok()
    may = ("use", "serviceaccounts")
    until("ana may use it", lambda: people["ana"].may(*may, namespace="support", name="payments"))


def step(name: str, account: str | None = None) -> Document:
    identity = {"identity": {"serviceAccountName": account}} if account else {}
    return {"name": name, "agent": {"prompt": "?"}, **identity}


def steps(*accounts: str | None) -> list[Document]:
    return [step(f"s{n}", account) for n, account in enumerate(accounts)]


def of_run(account: str) -> tuple[str, Document]:
    return "agentruns", run("", identity={"serviceAccountName": account})


def inline(account: str) -> tuple[str, Document]:
    return "agentruns", document("AgentRun", "", {"workflow": {"steps": steps(None, account)}})


def inline_finally(account: str) -> tuple[str, Document]:
    workflow = {"steps": steps(None), "finally": [step("last", account)]}
    return "agentruns", document("AgentRun", "", {"workflow": workflow})


def reusable(account: str) -> tuple[str, Document]:
    return "agentworkflows", document("AgentWorkflow", "", {"steps": steps(account, None)})


def reusable_finally(account: str) -> tuple[str, Document]:
    return "agentworkflows", document("AgentWorkflow", "", {"steps": steps(None), "finally": [step("last", account)]})


PLACES = [of_run, inline, inline_finally, reusable, reusable_finally]


@pytest.mark.parametrize("place", PLACES)
def test_who_names_a_service_account_may_use_it(
    people: dict[str, Api], fresh: Iterator[str], place: Callable[[str], tuple[str, Document]]
) -> None:
    def tried(who: str, account: str) -> Any:
        plural, made = place(account)
        made["metadata"]["name"] = next(fresh)
        return people[who].create(plural, made)

    said = tried("eve", "payments").refused()
    assert "eve may not run steps as the ServiceAccount payments of the namespace support: ask for a Role there" in said
    assert "resources: [serviceaccounts], resourceNames: [payments], verbs: [use]" in said
    assert "the ServiceAccount treasury of the namespace support" in tried("ana", "treasury").refused()
    tried("ana", "payments").ok()
    tried("admin", "anything").ok()


def test_each_name_is_asked_about(people: dict[str, Api], fresh: Iterator[str]) -> None:
    workflow = {"steps": steps("payments", "sa-1", "treasury", "payments")}
    made = document("AgentRun", next(fresh), {"workflow": workflow, "identity": {"serviceAccountName": "sa-2"}})
    assert "as the ServiceAccount treasury" in people["ana"].create("agentruns", made).refused()


def test_without_a_name_nothing_is_asked(people: dict[str, Api], fresh: Iterator[str]) -> None:
    people["eve"].create("agentruns", run(next(fresh))).ok()
    people["eve"].create("agentworkflows", document("AgentWorkflow", next(fresh), {"steps": steps(None)})).ok()


def test_the_right_counts_in_its_own_namespace_only(admin: Api, people: dict[str, Api], fresh: Iterator[str]) -> None:
    namespace = next(fresh)
    admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).ok()
    admin.call("POST", f"{RBAC}/{namespace}/rolebindings", binding("agentrun-editor", "ana")).ok()
    ana = people["ana"]
    until("ana edits there", lambda: ana.may("create", "agentruns", group="agentrun.dev", namespace=namespace))
    made = run(next(fresh), identity={"serviceAccountName": "payments"})
    assert f"payments of the namespace {namespace}" in ana.create("agentruns", made, namespace).refused()


def test_a_workflow_that_names_one_is_changed_by_who_may_use_it(people: dict[str, Api], fresh: Iterator[str]) -> None:
    name = next(fresh)
    made = people["ana"].create("agentworkflows", document("AgentWorkflow", name, {"steps": steps("payments")})).ok()
    # its labels are anybody's, but another prompt under the same identity is another use of it
    people["eve"].patch("agentworkflows", name, {"metadata": {"labels": {"a": "b"}}}).ok()
    made["spec"]["steps"][0]["agent"]["prompt"] = "Pay it to eve."
    current = people["ana"].get("agentworkflows", name)
    said = people["eve"].put("agentworkflows", current | {"spec": made["spec"]}).refused()
    assert "eve may not run steps as the ServiceAccount payments" in said
    people["ana"].put("agentworkflows", current | {"spec": made["spec"]}).ok()
    people["eve"].patch("agentworkflows", name, {"spec": {"steps": steps(None)}}).ok()
    assert (
        "eve may not" in people["eve"].patch("agentworkflows", name, {"spec": {"steps": steps("payments")}}).refused()
    )


def test_who_may_not_use_it_still_suspends_and_cancels(people: dict[str, Api], fresh: Iterator[str]) -> None:
    name = next(fresh)
    people["ana"].create("agentruns", run(name, identity={"serviceAccountName": "payments"})).ok()
    people["eve"].patch("agentruns", name, {"spec": {"suspend": True}}).ok()
    people["eve"].patch("agentruns", name, {"spec": {"suspend": False, "cancel": True}}).ok()


def test_the_largest_workflow_is_within_the_budget(people: dict[str, Api], fresh: Iterator[str]) -> None:
    """1,000 steps and 50 at the end, with 16 ServiceAccounts: what an object may name at most."""
    everything = {
        "steps": steps(*(f"sa-{n % 16}" for n in range(1000))),
        "finally": [step(f"f{n}", f"sa-{n % 16}") for n in range(50)],
    }
    people["ana"].create("agentworkflows", document("AgentWorkflow", next(fresh), everything)).ok()
    people["ana"].create("agentruns", document("AgentRun", next(fresh), {"workflow": everything})).ok()
    last = everything | {"finally": [step("f", "treasury")]}
    made = document("AgentWorkflow", next(fresh), last | {"steps": steps(*(f"sa-{n % 15}" for n in range(1000)))})
    assert "as the ServiceAccount treasury" in people["ana"].create("agentworkflows", made).refused()
    # and one name more is refused in words, whoever asks
    made = document("AgentWorkflow", next(fresh), {"steps": steps(*(f"sa-{n % 17}" for n in range(1000)))})
    for who in ("ana", "admin"):
        said = people[who].create("agentworkflows", made).refused()
        assert f"{who} names more than 16 ServiceAccounts in one object" in said
