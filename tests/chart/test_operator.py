"""What whoever takes the operator over can do with its ServiceAccount: make pods of steps, remove them, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from agentrun.adapters.pods import PodSettings, build_pod
from agentrun.api.facts import Allowance
from agentrun.api.keys import StepKey
from agentrun.control.views import RunRef, RunView
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.snapshot import Start
from agentrun.records.manifest import RunManifest
from tests.chart.api import GROUP, MERGE, Api, Document, run
from tests.chart.conftest import SYSTEM, until
from tests.harness.planner_world import compiled

ACCOUNT = f"system:serviceaccount:{SYSTEM}:agentrun"
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
RUN = RunView(RunRef("support", "r"), UID, version=7, generation=1, created=0.0, finished=None)
STEP = {"name": "pay", "agent": {"prompt": "?"}, "timeout": "5m"}
MODEL = {"name": "main", "model": "m", "credentials": {"secretRef": {"name": "openai", "key": "key"}}}

OTHERS = ("kube-system", "kube-public", "kube-node-lease")

Path = tuple[str | int, ...]


def pods(namespace: str = "support") -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def steps_pod(name: str = "attack", namespace: str = "support") -> Document:
    """The pod of a step as the operator makes it."""
    settings = PodSettings(
        store_url="s3://journals/test", image="agentrun:0.1.0", env_secret="keys", pull_secrets=("m",)
    )
    pinned = PinnedRun(
        RunPath("support", "r", UID.replace("-", "")), cast("RunManifest", {}), compiled(STEP, models=[MODEL], tools=[])
    )
    made = build_pod(settings, RUN, pinned, Start(StepKey("pay"), 1, {}, (), Allowance(), 300.0))
    made["metadata"] |= {"name": name, "namespace": namespace}
    return made


def changed(value: Any, path: Path, to: Any) -> Any:
    """``value`` with ``to`` at ``path``; "+" appends to a list. None removes."""
    if not path:
        return to
    key, rest = path[0], path[1:]
    if key == "+":
        return [*(value or []), to]
    if isinstance(key, int):
        return [changed(item, rest, to) if number == key else item for number, item in enumerate(value)]
    found = {**(value or {}), key: changed((value or {}).get(key), rest, to)}
    return {k: v for k, v in found.items() if v is not None}


@pytest.mark.parametrize(
    ("verb", "resource", "group"),
    [
        ("create", "pods/exec", ""),
        ("create", "pods/eviction", ""),
        ("patch", "pods", ""),
        ("update", "pods", ""),
        ("patch", "pods/ephemeralcontainers", ""),
        ("get", "secrets", ""),
        ("create", "serviceaccounts/token", ""),
        ("create", "events", ""),
        ("create", "agentruns", "agentrun.dev"),
        ("patch", "agentruns", "agentrun.dev"),
        ("deletecollection", "agentruns", "agentrun.dev"),
        ("create", "rolebindings", "rbac.authorization.k8s.io"),
        ("patch", "validatingadmissionpolicies", "admissionregistration.k8s.io"),
        ("delete", "validatingadmissionpolicybindings", "admissionregistration.k8s.io"),
    ],
)
def test_its_roles_give_it_no_more_than_it_needs(verb: str, resource: str, group: str, operator: Api) -> None:
    assert not operator.may(verb, resource, group=group, namespace="support")


@pytest.fixture(scope="module")
def taken(admin: Api, release: None) -> Iterator[Api]:
    """The operator's ServiceAccount with every right that roles can give: what is refused, a policy refuses."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    subject = {"kind": "ServiceAccount", "name": "agentrun", "namespace": SYSTEM}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "taken"}, "roleRef": role, "subjects": [subject]}
    admin.call(
        "POST", path, {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", **binding}
    ).ok()
    for namespace in ("support", SYSTEM, *OTHERS):
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        admin.call("POST", where, {"metadata": {"name": "default"}})  # nobody else makes them here
    acting = admin.acting_as(ACCOUNT)
    until("the policy holds", lambda: acting.call("POST", f"{pods('kube-system')}?dryRun=All", plain()).status == 403)
    until("its own pod is made", lambda: acting.call("POST", f"{pods()}?dryRun=All", steps_pod()).status == 201)
    yield acting
    admin.call("DELETE", f"{path}/taken")


def plain(**labels: str) -> Document:
    """A pod of nobody's."""
    return {"metadata": {"name": "plain", "labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}


OWNER: Path = ("metadata", "ownerReferences")
SPEC: Path = ("spec",)
CONTAINER: Path = (*SPEC, "containers", 0)
SECURITY: Path = (*CONTAINER, "securityContext")
SYSCTL = {"name": "kernel.shm_rmid_forced", "value": "1"}
PROBE = {"httpGet": {"port": 80, "host": "169.254.169.254"}}


def token(audience: str | None) -> Document:
    source: Document = {"path": "token"} | ({"audience": audience} if audience is not None else {})
    return {"name": "v", "projected": {"sources": [{"serviceAccountToken": source}]}}


def another(**more: Any) -> Document:
    """Another container, restricted but for ``more``."""
    security: Document = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {"name": "other", "image": "x", "securityContext": security | more}


ATTACKS: list[tuple[str, Path, Any]] = [
    ("owns", OWNER, None),
    ("owns", OWNER, []),
    ("owns", (*OWNER, 0, "controller"), False),
    ("owns", (*OWNER, 0, "kind"), "Job"),
    ("owns", (*OWNER, 0, "apiVersion"), "agentrun.dev.evil/v1"),
    ("owns", (*OWNER, 0, "name"), "another"),
    ("owns", (*OWNER, "+"), {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1-2"}),
    ("owns", ("metadata", "labels"), None),
    ("owns", ("metadata", "labels", "agentrun.dev/run"), "another"),
    ("token", (*SPEC, "automountServiceAccountToken"), None),
    ("token", (*SPEC, "automountServiceAccountToken"), True),
    ("node", (*SPEC, "hostNetwork"), True),
    ("node", (*SPEC, "hostPID"), True),
    ("node", (*SPEC, "hostIPC"), True),
    ("node", (*SPEC, "shareProcessNamespace"), True),
    ("node", (*SPEC, "nodeName"), "control-plane"),
    ("node", (*CONTAINER, "ports"), [{"containerPort": 80, "hostPort": 80}]),
    ("node", (*CONTAINER, "livenessProbe"), PROBE),
    ("node", (*CONTAINER, "lifecycle"), {"preStop": PROBE}),
    ("volumes", (*SPEC, "volumes", "+"), {"name": "v", "hostPath": {"path": "/"}}),
    ("volumes", (*SPEC, "volumes", "+"), {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}),
    ("volumes", (*SPEC, "volumes", "+"), {"name": "v", "csi": {"driver": "d"}}),
    ("volumes", (*SPEC, "volumes", "+"), {"name": "v", "nfs": {"server": "s", "path": "/"}}),
    ("volumes", (*SPEC, "volumes", "+"), {"name": "v", "image": {"reference": "x"}}),
    ("volumes", (*SPEC, "volumes", "+"), token(None)),
    ("volumes", (*SPEC, "volumes", "+"), token("https://kubernetes.default.svc")),
    ("volumes", (*SPEC, "volumes", "+"), token("vault")),
    ("pods of steps are restricted", (*SPEC, "securityContext"), None),
    ("pods of steps are restricted", (*SPEC, "securityContext", "runAsNonRoot"), False),
    ("pods of steps are restricted", (*SPEC, "securityContext", "runAsNonRoot"), None),
    ("pods of steps are restricted", (*SPEC, "securityContext", "runAsUser"), 0),
    ("pods of steps are restricted", (*SPEC, "securityContext", "seccompProfile"), {"type": "Unconfined"}),
    ("pods of steps are restricted", (*SPEC, "securityContext", "seccompProfile"), None),
    ("pods of steps are restricted", (*SPEC, "securityContext", "appArmorProfile"), {"type": "Unconfined"}),
    ("pods of steps are restricted", (*SPEC, "securityContext", "seLinuxOptions"), {"type": "spc_t"}),
    (
        "pods of steps are restricted",
        (*SPEC, "securityContext", "sysctls"),
        [{"name": "kernel.shm_rmid_forced", "value": "1"}],
    ),
    ("containers of steps are restricted", SECURITY, None),
    ("containers of steps are restricted", (*SECURITY, "allowPrivilegeEscalation"), None),
    ("containers of steps are restricted", SECURITY, {"privileged": True}),
    ("containers of steps are restricted", (*SECURITY, "capabilities"), None),
    ("containers of steps are restricted", (*SECURITY, "capabilities", "add"), ["NET_BIND_SERVICE"]),
    ("containers of steps are restricted", (*SECURITY, "capabilities"), {"drop": ["NET_RAW"]}),
    ("containers of steps are restricted", (*SECURITY, "runAsUser"), 0),
    ("containers of steps are restricted", (*SECURITY, "runAsNonRoot"), False),
    ("containers of steps are restricted", (*SECURITY, "seccompProfile"), {"type": "Unconfined"}),
    ("containers of steps are restricted", (*SECURITY, "seLinuxOptions"), {"level": "s0"}),
    ("containers of steps are restricted", (*SPEC, "containers", "+"), another(allowPrivilegeEscalation=True)),
    ("containers of steps are restricted", (*SPEC, "initContainers", "+"), {"name": "i", "image": "x"}),
    ("containers of steps are restricted", (*SPEC, "initContainers", "+"), another(runAsUser=0)),
]


@pytest.mark.parametrize(
    ("why", "path", "to"), ATTACKS, ids=[f"{'.'.join(map(str, row[1]))}={row[2]}"[:90] for row in ATTACKS]
)
def test_it_makes_no_pod_but_that_of_a_step(why: str, path: Path, to: Any, taken: Api) -> None:
    """A right to make pods that nothing binds is a right to every node: a privileged pod with a hostPath was made."""
    body = changed(steps_pod(), path, to)
    answer = taken.call("POST", f"{pods()}?dryRun=All", body)
    assert why in answer.refused()


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ((*SPEC, "volumes", "+"), token("sts.amazonaws.com")),
        ((*SPEC, "volumes", "+"), token("pods.eks.amazonaws.com")),
        ((*SPEC, "volumes", "+"), {"name": "ca", "configMap": {"name": "kube-root-ca.crt"}}),
        ((*SPEC, "containers", "+"), another()),
        ((*SPEC, "initContainers", "+"), another()),
        ((*SPEC, "priorityClassName"), None),
        ((*CONTAINER, "image"), "own.example/agents:7"),
    ],
    ids=str,
)
def test_what_webhooks_and_workflows_put_in_is_taken(path: Path, to: Any, taken: Api) -> None:
    taken.call("POST", f"{pods()}?dryRun=All", changed(steps_pod(), path, to)).ok()


@pytest.mark.parametrize("namespace", OTHERS)
def test_it_makes_no_pod_where_it_has_no_business(namespace: str, taken: Api) -> None:
    answer = taken.call("POST", f"{pods(namespace)}?dryRun=All", steps_pod(namespace=namespace))
    assert "only in the namespaces that it serves" in answer.refused()


def test_no_step_is_the_operator_itself(taken: Api) -> None:
    body = changed(steps_pod(namespace=SYSTEM), (*SPEC, "serviceAccountName"), "agentrun")
    assert "never the operator's own" in taken.call("POST", f"{pods(SYSTEM)}?dryRun=All", body).refused()


@pytest.fixture
def there(admin: Api, taken: Api, fresh: Iterator[str]) -> Iterator[tuple[str, str]]:
    """A pod of a step and one of somebody else's, by name."""
    step, other = next(fresh), next(fresh)
    taken.call("POST", pods(), steps_pod(step)).ok()
    admin.call("POST", pods(), changed(plain(), ("metadata", "name"), other)).ok()
    yield step, other
    for name in (step, other):
        admin.call("DELETE", f"{pods()}/{name}?gracePeriodSeconds=0")


def test_it_does_nothing_else_to_pods(taken: Api, there: tuple[str, str]) -> None:
    for name in there:
        path = f"{pods()}/{name}"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "support"}}
        node = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": "n"},
        }
        debug = {"spec": {"ephemeralContainers": [{"name": "d", "image": "x"}]}}
        tries: list[tuple[str, str, Mapping[str, Any], str]] = [
            ("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE),
            ("PATCH", f"{path}/status", {"status": {"phase": "Succeeded"}}, MERGE),
            ("PATCH", f"{path}/ephemeralcontainers", debug, "application/strategic-merge-patch+json"),
            ("POST", f"{path}/eviction", eviction, "application/json"),
            ("POST", f"{path}/binding", node, "application/json"),
            ("POST", f"{path}/exec?command=id&container=step&stdout=true", {}, "application/json"),
            ("POST", f"{path}/attach?container=step&stdout=true", {}, "application/json"),
            ("POST", f"{path}/portforward", {}, "application/json"),
        ]
        for method, where, body, kind in tries:
            answer = taken.call(method, where, dict(body), kind)
            assert "does nothing else to pods" in answer.refused(), (method, where)


def test_it_removes_pods_of_steps_alone(taken: Api, admin: Api, there: tuple[str, str]) -> None:
    step, other = there
    assert "only pods of steps" in taken.call("DELETE", f"{pods()}/{other}").refused()
    assert "only pods of steps" in taken.call("DELETE", pods()).refused(), "deletecollection"
    assert "only pods of steps" in taken.call("DELETE", f"{pods()}?labelSelector=!agentrun.dev/run").refused()
    assert admin.call("GET", f"{pods()}/{other}").status == 200
    taken.call("DELETE", f"{pods()}?labelSelector=agentrun.dev/run&gracePeriodSeconds=0").ok()
    assert admin.call("GET", f"{pods()}/{step}").status == 404


def test_it_removes_only_runs_that_have_ended_and_are_to_be_removed(
    admin: Api, taken: Api, operator: Api, fresh: Iterator[str]
) -> None:
    live, kept, over = (next(fresh) for _ in range(3))
    for name in (live, over):
        admin.create("agentruns", run(name, ttlSecondsAfterFinished=1)).ok()
    admin.create("agentruns", run(kept)).ok()
    for name in (kept, over):
        ended = {"status": {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}}
        operator.patch("agentruns", name, ended, status=True).ok()
    where = f"{GROUP}/namespaces/support/agentruns"
    for name in (live, kept):
        assert "only runs that have ended" in taken.call("DELETE", f"{where}/{name}").refused()
    assert "only runs that have ended" in taken.call("DELETE", where).refused()
    operator.call("DELETE", f"{where}/{over}").ok()
    assert "makes and changes no runs" in taken.create("agentruns", run(next(fresh))).refused()
    assert "makes and changes no runs" in taken.patch("agentruns", live, {"spec": {"suspend": True}}).refused()
