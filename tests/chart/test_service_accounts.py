"""``admission.requireServiceAccount``: no step acts as the ServiceAccount ``default``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.api import Api, Document, document, run
from tests.chart.conftest import CHARTS, SYSTEM, until
from tests.chart.pods import PODS, pod
from tests.cluster.control_plane import ControlPlane

DEFAULT = {"serviceAccountName": "default"}
STEPS = [{"name": "a", "agent": {"prompt": "?"}}]
LAST = {**STEPS[0], "name": "b", "identity": DEFAULT}
NAMED = [{**STEPS[0], "identity": {"serviceAccountName": "payments"}}]


def require(plane: ControlPlane, value: str) -> None:
    setting = ("--reuse-values", "--set", f"admission.requireServiceAccount={value}")
    plane.helm("upgrade", "agentrun", CHARTS / "agentrun", "--namespace", SYSTEM, *setting)


@pytest.fixture(scope="module", autouse=True)
def required(plane: ControlPlane, admin: Api, operator: Api) -> Iterator[None]:
    def refused() -> bool:
        return admin.create("agentruns", run("probe"), dry=True).status == 403

    def pods_refused() -> bool:
        return operator.call("POST", f"{PODS}?dryRun=All", pod("probe")).status == 403

    admin.call("POST", "/api/v1/namespaces/support/serviceaccounts", {"metadata": {"name": "default"}})
    admin.call("POST", "/api/v1/namespaces/support/serviceaccounts", {"metadata": {"name": "payments"}})
    require(plane, "true")
    until("runs name a ServiceAccount", refused)
    until("pods name a ServiceAccount", pods_refused)
    yield
    require(plane, "false")
    until("runs need name none", lambda: not refused())
    until("pods need name none", lambda: not pods_refused())


def made(identity: Document | None, steps: list[Document]) -> Document:
    return document("AgentRun", "probe", {"workflow": {"steps": steps}} | ({"identity": identity} if identity else {}))


REFUSED = {
    "nothing named": ("agentruns", run("probe"), "the run names no ServiceAccount"),
    "its steps alone": ("agentruns", made(None, NAMED), "the run names no ServiceAccount"),
    "default by name": ("agentruns", run("probe", identity=DEFAULT), "which every pod of the namespace may use"),
    "default in a step": (
        "agentruns",
        made({"serviceAccountName": "payments"}, [{**STEPS[0], "identity": DEFAULT}]),
        "which every pod of the namespace may use",
    ),
    "a workflow": (
        "agentworkflows",
        document(
            "AgentWorkflow", "probe", {"steps": STEPS, "finally": [{**STEPS[0], "name": "b", "identity": DEFAULT}]}
        ),
        "which every pod of the namespace may use",
    ),
}


@pytest.mark.parametrize(("plural", "obj", "says"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_made_that_acts_as_default(admin: Api, plural: str, obj: Document, says: str) -> None:
    assert says in admin.create(plural, obj, dry=True).refused()


ALLOWED = {
    "a run": ("agentruns", run("probe", identity={"serviceAccountName": "payments"})),
    "its steps too": ("agentruns", made({"serviceAccountName": "payments"}, NAMED)),
    "a workflow": ("agentworkflows", document("AgentWorkflow", "probe", {"steps": STEPS})),
}


@pytest.mark.parametrize(("plural", "obj"), ALLOWED.values(), ids=ALLOWED)
def test_whoever_names_another_is_let_through(admin: Api, plural: str, obj: Document) -> None:
    admin.create(plural, obj, dry=True).ok()


def test_the_operator_makes_no_pod_as_default_for_a_run_that_was_there_before(operator: Api) -> None:
    said = operator.call("POST", f"{PODS}?dryRun=All", pod("probe")).refused()
    assert "no step runs as the ServiceAccount default" in said and "spec.identity.serviceAccountName" in said
    other = pod("probe")
    other["spec"]["serviceAccountName"] = "payments"
    operator.call("POST", f"{PODS}?dryRun=All", other).ok()
