"""The policies on Approvals and on a run's status: who may write what, as the API server itself answers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agentrun.adapters.objects import approval_view
from agentrun.api.canonical import moment, timestamp
from tests.chart.api import Answer, Api, Document, binding, run
from tests.chart.conftest import RBAC, until
from tests.chart.decisions import DIGEST, NOW, OWNER, approval, decide, decision, made, write
from tests.cluster.control_plane import ControlPlane

COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"


def condition(kind: str = "Decided", reason: str = "Approved", status: str = "True") -> Document:
    return {"type": kind, "status": status, "reason": reason, "message": "m", "lastTransitionTime": NOW}


@pytest.fixture
def asked(operator: Api, fresh: Iterator[str]) -> str:
    """An Approval that waits."""
    return made(operator, fresh)


def test_an_approver_decides_and_another_one_after_them(people: dict[str, Api], asked: str) -> None:
    decide(people["ben"], asked, decision("ben", comment="ok")).ok()
    answer = decide(people["carl"], asked, decision("ben", comment="ok"), decision("carl", "Rejected"))
    assert [made["by"] for made in answer.ok()["status"]["decisions"]] == ["ben", "carl"]


def test_kubectl_decides(plane: ControlPlane, people: dict[str, Api], asked: str) -> None:
    change = f'{{"status":{{"decisions":[{{"by":"ben","decision":"Approved","digest":"{DIGEST}"}}]}}}}'
    words = ("-n", "support", "patch", "approval", asked, "--subresource=status", "--type=merge", "-p", change)
    said = plane.kubectl(*words, user="eve", check=False).stderr
    assert "(Forbidden)" in said and "eve may not decide in the name of ben" in said
    plane.kubectl(*words, user="ben")
    assert people["ben"].get("approvals", asked)["status"]["decisions"][0]["by"] == "ben"


def test_who_is_named_decides_without_a_group(people: dict[str, Api], operator: Api, fresh: Iterator[str]) -> None:
    name = made(operator, fresh, approvers={"users": ["eve"]})
    decide(people["eve"], name, decision("eve")).ok()


REFUSED = [
    ("a forged name", "eve", [decision("ben")], "eve may not decide in the name of ben: write by: eve"),
    ("a forged name, by an approver", "ben", [decision("carl")], "ben may not decide in the name of carl"),
    ("one's own and another's", "ben", [decision("ben"), decision("carl")], "ben may not decide in the name of carl"),
    ("another's, as admin", "admin", [decision("ben")], "admin may not decide in the name of ben"),
    (
        "not an approver",
        "eve",
        [decision("eve")],
        "eve is not among the approvers: ask one of the users ana the groups",
    ),
    ("not an approver, as admin", "admin", [decision("admin")], "admin is not among the approvers"),
    ("one's own run", "ana", [decision("ana")], "ana made the run refund-1, and nobody decides on their own run"),
    (
        "another digest",
        "ben",
        [decision("ben", digest=f"sha256:{'b' * 64}")],
        f"ben decides on another digest than the one that is asked about: .*{DIGEST}",
    ),
]


@pytest.mark.parametrize(("who", "decisions", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(people: dict[str, Api], asked: str, who: str, decisions: list[Document], message: str) -> None:
    assert re.search(message, decide(people[who], asked, *decisions).refused())
    assert "status" not in people["ben"].get("approvals", asked)


STANDS = "{0} may not change or remove the decision of ben: a decision stands as it was made"
TAMPERED: list[tuple[str, str, list[Document], str]] = [
    ("changed by oneself", "ben", [decision("ben", "Rejected")], STANDS),
    ("changed by another", "carl", [decision("ben", "Rejected"), decision("carl")], STANDS),
    ("its comment changed", "ben", [decision("ben", comment="on second thoughts")], STANDS),
    ("its digest changed", "ben", [decision("ben", digest=f"sha256:{'b' * 64}")], STANDS),
    ("removed by oneself", "ben", [], STANDS),
    ("removed by another", "carl", [decision("carl")], STANDS),
    ("removed by admin", "admin", [], STANDS),
]


@pytest.mark.parametrize(
    ("who", "decisions", "message"), [row[1:] for row in TAMPERED], ids=[row[0] for row in TAMPERED]
)
def test_a_decision_stands(
    people: dict[str, Api], asked: str, who: str, decisions: list[Document], message: str
) -> None:
    before = decide(people["ben"], asked, decision("ben")).ok()["status"]
    assert message.format(who) in decide(people[who], asked, *decisions).refused()
    assert people["ben"].get("approvals", asked)["status"] == before


def test_a_second_decision_by_the_same_person_is_refused_by_the_schema(people: dict[str, Api], asked: str) -> None:
    decide(people["ben"], asked, decision("ben")).ok()
    answer = decide(people["ben"], asked, decision("ben"), decision("ben", "Rejected"))
    assert answer.status == 422 and "Duplicate value" in answer.body["message"]


def test_the_order_of_the_decisions_does_not_matter(people: dict[str, Api], asked: str) -> None:
    decide(people["ben"], asked, decision("ben")).ok()
    decide(people["carl"], asked, decision("carl"), decision("ben")).ok()


@pytest.mark.parametrize("reason", ["Approved", "Rejected", "Expired", "Cancelled"])
def test_what_is_decided_takes_no_more_decisions(
    people: dict[str, Api], operator: Api, asked: str, reason: str
) -> None:
    write(operator, asked, conditions=[condition(reason=reason)]).ok()
    said = decide(people["ben"], asked, decision("ben")).refused()
    assert f"ben comes too late: this is already {reason} and takes no more decisions" in said


def test_a_condition_that_is_not_true_yet_closes_nothing(people: dict[str, Api], operator: Api, asked: str) -> None:
    write(operator, asked, conditions=[condition(status="Unknown"), condition("Seen")]).ok()
    decide(people["ben"], asked, decision("ben")).ok()


LATE = "comes too late: this expired at"
PAST = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("at", [None, "2000-01-01T00:00:00Z", NOW, "2999-01-01T00:00:00Z"])
def test_nobody_decides_after_the_end_whatever_they_say_of_the_time(
    people: dict[str, Api], operator: Api, fresh: Iterator[str], at: str | None
) -> None:
    name = made(operator, fresh, expiresAt=PAST)
    late = decision("ben", at=at) if at else {k: v for k, v in decision("ben").items() if k != "at"}
    assert f"ben {LATE} 2026-01-02" in decide(people["ben"], name, late).refused()
    assert "status" not in people["ben"].get("approvals", name)


@pytest.mark.parametrize("at", ["2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_what_a_person_says_of_the_time_makes_nobody_late(people: dict[str, Api], asked: str, at: str) -> None:
    decide(people["ben"], asked, decision("ben", at=at)).ok()


APPLY = "application/apply-patch+yaml"


def apply(who: Api, name: str, manager: str, *decisions: Document) -> Answer:
    """As ``decide``, by server-side apply, under a manager's name of one's choice."""
    path = f"/apis/agentrun.dev/v1alpha1/namespaces/support/approvals/{name}/status?fieldManager={manager}&force=true"
    body = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "Approval", "status": {"decisions": list(decisions)}}
    return who.call("PATCH", path, body, APPLY)


def ends_soon(operator: Api, fresh: Iterator[str], **changed: Any) -> str:
    return made(operator, fresh, expiresAt=timestamp(time.time() + 4), **changed)


def test_late_ones_touch_no_decision_that_came_in_time(
    people: dict[str, Api], operator: Api, fresh: Iterator[str]
) -> None:
    name = ends_soon(operator, fresh)
    apply(people["ben"], name, "shared", decision("ben")).ok()
    by_carl = f"/apis/agentrun.dev/v1alpha1/namespaces/support/approvals/{name}/status?dryRun=All"
    both = {"status": {"decisions": [decision("ben"), decision("carl")]}}
    merge = "application/merge-patch+json"
    until("its time is over", lambda: people["carl"].call("PATCH", by_carl, both, merge).status == 403)

    whole = people["carl"].get("approvals", name)
    forged = {"metadata": whole["metadata"] | {"managedFields": []}}
    for late in (
        decide(people["carl"], name, decision("ben"), decision("carl")),
        decide(people["carl"], name, decision("ben"), decision("carl", at="2000-01-01T00:00:00Z")),
        apply(people["carl"], name, "shared", decision("ben"), decision("carl")),
        apply(people["carl"], name, "another", decision("carl")),
        people["carl"].put("approvals", whole | forged | both, status=True),
    ):
        assert f"carl {LATE}" in late.refused()
    assert people["ben"].get("approvals", name) == whole
    # who applies what is there already changes no instant, under their own manager's name or the one that wrote it
    for manager in ("shared", "eve"):
        apply(people["eve"], name, manager, decision("ben")).ok()
        found = people["ben"].get("approvals", name)
        (counted,) = approval_view(found, time.time()).decisions
        assert found["status"] == whole["status"]
        assert counted.by == "ben" and counted.at < moment(found["spec"]["expiresAt"])


def test_the_instants_of_others_are_not_written_through_the_status(
    people: dict[str, Api], operator: Api, asked: str
) -> None:
    decide(people["ben"], asked, decision("ben")).ok()
    before = people["ben"].get("approvals", asked)
    for found in ([], [before["metadata"]["managedFields"][0] | {"time": "2000-01-01T00:00:00Z"}]):
        forged = {"metadata": before["metadata"] | {"managedFields": found}}
        people["carl"].put("approvals", before | forged, status=True).ok()
        people["carl"].call(
            "PATCH",
            f"/apis/agentrun.dev/v1alpha1/namespaces/support/approvals/{asked}/status",
            {"metadata": {"managedFields": found}},
            "application/merge-patch+json",
        ).ok()
        assert people["ben"].get("approvals", asked)["metadata"]["managedFields"] == before["metadata"]["managedFields"]
        whole = people["admin"].put("approvals", before | forged)
        assert "admin may not change an approval" in whole.refused()


def test_each_decision_has_its_own_instant(people: dict[str, Api], operator: Api, asked: str) -> None:
    decide(people["ben"], asked, decision("ben")).ok()
    first = approval_view(people["ben"].get("approvals", asked), 2e9).decisions[0].at
    until("a second is over", lambda: time.time() > first + 2)
    path = f"/apis/agentrun.dev/v1alpha1/namespaces/support/approvals/{asked}/status?fieldManager=carls-own"
    both = {"status": {"decisions": [decision("ben"), decision("carl")]}}
    people["carl"].call("PATCH", path, both, "application/merge-patch+json").ok()
    ben, carl = approval_view(people["ben"].get("approvals", asked), 2e9).decisions
    assert ben.at == first < carl.at


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_the_end_is_by_the_api_servers_clock_where_the_operators_differs(
    people: dict[str, Api], operator: Api, fresh: Iterator[str], ahead: float
) -> None:
    now = float(int(time.time() + ahead))  # the operator's
    name = made(operator, fresh, askedAt=timestamp(now), expiresAt=timestamp(now + 300))
    decide(people["ben"], name, decision("ben")).ok()
    (taken,) = approval_view(people["ben"].get("approvals", name), now + 10).decisions
    assert now <= taken.at < now + 10
    over = made(operator, fresh, askedAt=timestamp(now), expiresAt=timestamp(now - 2))
    assert f"ben {LATE}" in decide(people["ben"], over, decision("ben")).refused()


def test_where_nobody_knows_the_requester_nobody_decides(
    people: dict[str, Api], operator: Api, fresh: Iterator[str]
) -> None:
    for unknown in (None, ""):
        name = made(operator, fresh, requestedBy=unknown)
        said = decide(people["ben"], name, decision("ben")).refused()
        assert "nobody knows who made the run refund-1, so nobody can decide on it: it might be ben themselves" in said
        assert "Create the run again with the annotation agentrun.dev/requested-by: YOUR NAME" in said


@pytest.mark.parametrize("who", ["ben", "admin"])
def test_conditions_are_the_operators_alone(people: dict[str, Api], asked: str, who: str) -> None:
    said = write(people[who], asked, conditions=[condition()]).refused()
    assert f"{who} may not write the conditions of an approval: only the operator says what came" in said
    both = write(people[who], asked, conditions=[condition()], decisions=[decision(who)])
    assert "may not write the conditions" in both.refused()


def test_the_operator_closes_and_decides_nothing(people: dict[str, Api], operator: Api, asked: str) -> None:
    name = "system:serviceaccount:agentrun-system:agentrun"
    assert "is the operator, which decides nothing" in decide(operator, asked, decision(name)).refused()
    assert "is the operator, which decides nothing" in decide(operator, asked, decision("ben")).refused()
    decide(people["ben"], asked, decision("ben")).ok()
    assert "may not change or remove the decision of ben" in decide(operator, asked).refused()
    closed = write(operator, asked, conditions=[condition()]).ok()
    assert closed["status"]["decisions"][0]["by"] == "ben"


def test_a_hundred_decisions_and_approvers_are_within_the_budget(
    people: dict[str, Api], admin: Api, operator: Api, fresh: Iterator[str]
) -> None:
    everybody = [f"person-{n}-{'x' * 200}" for n in range(100)]
    long = {"comment": "y" * 4000}
    name = made(operator, fresh, approvers={"users": everybody[:50], "groups": [*everybody[50:99], "crowd"]})
    role = binding("agentrun-approver")
    role["subjects"] = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "crowd"}]
    admin.call("POST", f"{RBAC}/support/rolebindings", role).ok()
    one = admin.acting_as(everybody[0], "crowd")
    until(
        "the crowd may decide", lambda: one.may("patch", "approvals/status", group="agentrun.dev", namespace="support")
    )
    recorded: list[Document] = []
    for person in (*everybody[:99], "ben-of-the-crowd"):
        recorded.append(decision(person, **long))
        decide(admin.acting_as(person, "crowd"), name, *recorded).ok()
    said = decide(people["ben"], name, *recorded[1:]).refused()
    assert f"ben may not change or remove the decision of {everybody[0]}" in said


def test_only_the_operator_asks(people: dict[str, Api], fresh: Iterator[str]) -> None:
    said = people["admin"].create("approvals", approval(next(fresh))).refused()
    assert "admin may not create approvals: the operator asks when a run comes to it" in said


@pytest.mark.parametrize("change", [{"metadata": {"labels": {"a": "b"}}}, {"metadata": {"ownerReferences": []}}])
def test_nobody_changes_what_is_asked(
    people: dict[str, Api], admin: Api, operator: Api, fresh: Iterator[str], change: Document
) -> None:
    name = made(operator, fresh)
    said = people["admin"].patch("approvals", name, change).refused()
    assert "admin may not change an approval: people write decisions into its status only" in said
    admin.acting_as(COLLECTOR).patch("approvals", name, change).ok()


def test_the_spec_changes_for_nobody(people: dict[str, Api], admin: Api, asked: str) -> None:
    for who in (people["admin"], admin.acting_as(COLLECTOR)):
        answer = who.patch("approvals", asked, {"spec": {"digest": f"sha256:{'c' * 64}"}})
        assert answer.status in {403, 422} and "spec cannot be changed" in answer.body["message"]


def test_nobody_deletes_a_question_but_the_cluster_itself(
    people: dict[str, Api], admin: Api, operator: Api, fresh: Iterator[str]
) -> None:
    name = made(operator, fresh)
    said = people["admin"].delete("approvals", name).refused()
    assert "admin may not delete an approval: it goes with its run" in said
    all_of_them = people["admin"].call("DELETE", "/apis/agentrun.dev/v1alpha1/namespaces/support/approvals")
    assert "admin may not delete an approval" in all_of_them.refused()
    for controller in (
        COLLECTOR,
        "system:serviceaccount:kube-system:namespace-controller",
        "system:kube-controller-manager",
    ):
        name = made(operator, fresh)
        # the role is there for the first two only: a cluster whose controllers share one name runs them as admins
        groups = () if "serviceaccount" in controller else ("system:masters",)
        admin.acting_as(controller, *groups).delete("approvals", name).ok()


@pytest.mark.parametrize("owners", [[], [OWNER | {"uid": "another"}], [OWNER | {"kind": "ReplicaSet"}]])
def test_who_may_delete_removes_the_question_of_a_run_that_is_gone(
    people: dict[str, Api], admin: Api, operator: Api, fresh: Iterator[str], owners: list[Document]
) -> None:
    name = made(operator, fresh)
    # as the cluster does where a run is deleted with --cascade=orphan
    admin.acting_as(COLLECTOR).patch("approvals", name, {"metadata": {"ownerReferences": owners}}).ok()
    assert people["ben"].delete("approvals", name).status == 403, "no role of the chart has it"
    people["admin"].delete("approvals", name).ok()
    name = made(operator, fresh)
    operator.delete("approvals", name).ok()


def test_the_status_of_a_run_is_the_operators(people: dict[str, Api], operator: Api, fresh: Iterator[str]) -> None:
    name = next(fresh)
    people["ana"].create("agentruns", run(name)).ok()
    said = people["admin"].patch("agentruns", name, {"status": {"phase": "Succeeded"}}, status=True).refused()
    assert "admin may not write the status of a run: it is what the operator saw" in said
    seen = operator.patch("agentruns", name, {"status": {"phase": "Running"}}, status=True).ok()
    assert seen["status"]["phase"] == "Running"
    whole = operator.get("agentruns", name) | {"status": {"phase": "Failed"}}
    assert people["admin"].put("agentruns", whole, status=True).status == 403
    assert operator.put("agentruns", whole, status=True).status == 403, "it patches, and has no right to more"


def test_the_policy_knows_every_field_of_the_status(people: dict[str, Api], admin: Api, asked: str) -> None:
    # it guards decisions and conditions: a field that the schema gets beside them needs a rule
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/approvals.agentrun.dev"
    (version,) = admin.call("GET", path).ok()["spec"]["versions"]
    assert set(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]) == {
        "decisions",
        "conditions",
    }
