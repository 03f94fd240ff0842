"""The charts as they render: every documented value is obeyed, every other key refused, the types are the generated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "agentrun"
TYPES = ROOT / "charts" / "agentrun-crds"
STORE = {"store": {"url": "s3://bucket/runs"}}

Values = dict[str, Any]


def helm(*words: str | Path, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    given = ["-f", "-"] if values is not None else []
    if words[0] == "template":  # a helm that was not released does not know which Kubernetes it is of
        given += ["--kube-version", "1.36.3"]
    return subprocess.run(
        [binaries.build() / "helm", *words, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(values: Values, *more: str) -> list[Values]:
    done = helm("template", "agentrun", CHART, "--namespace", "agents", *more, values=values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def one(documents: list[Values], kind: str, name: str = "agentrun") -> Values:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def operator(documents: list[Values]) -> Values:
    (container,) = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {**container, "env": {entry["name"]: entry.get("value") for entry in container["env"]}}


@pytest.mark.parametrize("chart", [CHART, TYPES], ids=lambda chart: chart.name)
def test_helm_finds_nothing_wrong(chart: Path) -> None:
    done = helm("lint", "--strict", chart, values=STORE if chart == CHART else {})
    assert done.returncode == 0, done.stdout


def test_the_types_are_the_generated_ones_and_stay() -> None:
    done = helm("template", "types", TYPES)
    found = {d["metadata"]["name"]: d for d in yaml.safe_load_all(done.stdout) if d}
    generated = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert len(generated) == 4 and found.keys() == {d["metadata"]["name"] for d in generated}
    for definition in generated:
        there = found[definition["metadata"]["name"]]
        assert there["spec"] == definition["spec"]
        assert there["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_store_is_asked_for() -> None:
    done = helm("template", "agentrun", CHART)
    assert done.returncode != 0 and "store" in done.stderr


OBEYED: list[tuple[Values, str, Any]] = [
    ({"store": {"url": "s3://bucket/p"}}, "env.AGENTRUN_STORE", "s3://bucket/p"),
    ({"store": STORE["store"] | {"region": "eu-central-1"}}, "env.AWS_REGION", "eu-central-1"),
    ({"store": STORE["store"] | {"endpoint": "http://s3:1"}}, "env.AWS_ENDPOINT_URL_S3", "http://s3:1"),
    ({"store": STORE["store"] | {"credentialsSecret": "keys"}}, "env.AGENTRUN_STEP_ENV_SECRET", "keys"),
    ({"store": STORE["store"] | {"credentialsSecret": "keys"}}, "envFrom", [{"secretRef": {"name": "keys"}}]),
    ({"image": {"repository": "here/agentrun", "tag": "7"}}, "image", "here/agentrun:7"),
    ({"image": {"repository": "r", "digest": f"sha256:{'a' * 64}"}}, "image", f"r:0.1.0@sha256:{'a' * 64}"),
    ({"image": {"pullPolicy": "Never"}}, "imagePullPolicy", "Never"),
    ({"image": {"pullPolicy": "Never"}}, "env.AGENTRUN_STEP_PULL_POLICY", "Never"),
    ({"image": {"pullSecrets": ["mirror"]}}, "env.AGENTRUN_STEP_PULL_SECRETS", '["mirror"]'),
    ({"watch": {"namespaces": ["a", "b"]}}, "env.AGENTRUN_NAMESPACES", "a,b"),
    ({"steps": {"image": "own:1"}}, "env.AGENTRUN_STEP_IMAGE", "own:1"),
    ({"steps": {"serviceAccountName": "steps"}}, "env.AGENTRUN_STEP_SERVICE_ACCOUNT", "steps"),
    (
        {"steps": {"resources": {"requests": None, "limits": {"memory": "1Gi"}}}},
        "env.AGENTRUN_STEP_RESOURCES",
        '{"limits":{"memory":"1Gi"}}',
    ),
    ({"steps": {"nodeSelector": {"pool": "a"}}}, "env.AGENTRUN_STEP_NODE_SELECTOR", '{"pool":"a"}'),
    ({"steps": {"tolerations": [{"operator": "Exists"}]}}, "env.AGENTRUN_STEP_TOLERATIONS", '[{"operator":"Exists"}]'),
    ({"metrics": {"enabled": False}}, "env.AGENTRUN_METRICS_LISTEN", "off"),
    ({"metrics": {"port": 9090}}, "env.AGENTRUN_METRICS_LISTEN", ":9090"),
    ({"steps": {"priorityClassName": "low"}}, "env.AGENTRUN_STEP_PRIORITY_CLASS", "low"),
    ({}, "env.AGENTRUN_STEP_PODS_MAX", "500"),
    ({"steps": {"maxPods": 0}}, "env.AGENTRUN_STEP_PODS_MAX", "0"),
    ({"steps": {"maxPods": 12_000_000}}, "env.AGENTRUN_STEP_PODS_MAX", "12000000"),
    ({"steps": {"maxPodsPerNamespace": 7}}, "env.AGENTRUN_STEP_PODS_MAX_PER_NAMESPACE", "7"),
    ({"resources": {"limits": {"memory": "2Gi"}}}, "resources.limits.memory", "2Gi"),
    ({"logLevel": "debug"}, "env.AGENTRUN_LOG_LEVEL", "debug"),
    ({"admission": {"enabled": False}}, "env.AGENTRUN_ADMISSION", "false"),
]


@pytest.mark.parametrize(("values", "path", "expected"), OBEYED, ids=[row[1] for row in OBEYED])
def test_the_operator_is_told(values: Values, path: str, expected: Any) -> None:
    found: Any = operator(rendered(STORE | values))
    for part in path.split("."):
        found = found[part]
    assert found == expected


def test_where_the_operator_runs() -> None:
    values = {
        "replicas": 3,
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "t", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "serviceAccount": {"name": "own", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
        "podDisruptionBudget": {"enabled": False},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"team": "x"}}},
    }
    documents = rendered(STORE | values)
    deployment = one(documents, "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    assert deployment["replicas"] == 3
    assert pod["nodeSelector"] == {"pool": "a"} and {"key": "t", "operator": "Exists"} in pod["tolerations"]
    assert "nodeAffinity" in pod["affinity"] and pod["serviceAccountName"] == "own"
    assert {c["topologyKey"] for c in pod["topologySpreadConstraints"]} >= {"kubernetes.io/hostname"}
    account = one(documents, "ServiceAccount", "own")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/x")
    assert not [d for d in documents if d["kind"] == "PodDisruptionBudget"]
    assert one(documents, "ServiceMonitor")["metadata"]["labels"]["team"] == "x"
    assert [d for d in rendered(STORE) if d["kind"] == "PodDisruptionBudget"]


def test_a_signing_key_is_mounted_where_it_is_named() -> None:
    assert "AGENTRUN_SIGNING_KEY" not in operator(rendered(STORE))["env"]
    documents = rendered(STORE | {"audit": {"signingKeySecret": "signing"}})
    container, pod = operator(documents), one(documents, "Deployment")["spec"]["template"]["spec"]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == "signing-key"]
    assert container["env"]["AGENTRUN_SIGNING_KEY"] == f"{mount['mountPath']}/key.pem" and mount["readOnly"]
    [volume] = [v for v in pod["volumes"] if v["name"] == "signing-key"]
    assert volume["secret"]["secretName"] == "signing"
    assert helm("template", "a", CHART, values=STORE | {"audit": {"signingKeySecret": "a b"}}).returncode != 0


def test_rights_stay_in_the_namespaces_that_are_watched() -> None:
    kinds = {d["kind"] for d in rendered(STORE) if d["metadata"]["name"] == "agentrun-operator"}
    assert {"ClusterRole", "ClusterRoleBinding"} <= kinds
    narrow = rendered(STORE | {"watch": {"namespaces": ["a", "b"]}})
    few = [d for d in narrow if d["metadata"]["name"] == "agentrun-operator" and d["kind"] != "NetworkPolicy"]
    assert {d["kind"] for d in few} <= {"Role", "RoleBinding"}
    assert {d["metadata"]["namespace"] for d in few} == {"a", "b"}


def test_who_made_a_run_is_stamped_where_the_api_server_can() -> None:
    able = ("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
    assert [d for d in rendered(STORE, *able) if d["kind"] == "MutatingAdmissionPolicy"]
    assert not [d for d in rendered(STORE) if d["kind"] == "MutatingAdmissionPolicy"]
    assert not [d for d in rendered(STORE | {"admission": {"enabled": False}}) if "AdmissionPolicy" in d["kind"]]


@pytest.mark.parametrize("another_person", [True, False])
def test_the_operator_asks_for_every_policy_that_vouches(another_person: bool) -> None:
    documents = rendered(STORE | {"admission": {"anotherPerson": another_person}})
    asked = operator(documents)["env"]["AGENTRUN_ADMISSION_POLICIES"].split(",")
    for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
        found = {d["metadata"]["name"] for d in documents if d["kind"] == kind}
        assert sorted(asked) == sorted(found - {"agentrun-operator-pods", "agentrun-operator-runs"})
    (rule,) = one(documents, "ClusterRole", "agentrun-checks")["rules"]
    assert rule["resourceNames"] == asked
    assert ("agentrun-another-person" in asked) is another_person


@pytest.mark.parametrize(
    ("values", "used", "made"),
    [
        ({}, "agentrun", 1_000_000),
        ({"priorityClass": {"value": 7}}, "agentrun", 7),
        ({"priorityClass": {"create": False}}, None, None),
        ({"priorityClassName": "system-cluster-critical"}, "system-cluster-critical", None),
    ],
    ids=str,
)
def test_step_pods_do_not_keep_the_operator_from_a_node(values: Values, used: str | None, made: int | None) -> None:
    """A replica was Pending for minutes on a node that was full of step pods: nothing put it above them."""
    documents = rendered(STORE | values)
    assert one(documents, "Deployment")["spec"]["template"]["spec"].get("priorityClassName") == used
    assert [d["value"] for d in documents if d["kind"] == "PriorityClass"] == ([made] if made is not None else [])


def ports(values: Values) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """The container's ports, and the Service's with what they lead to."""
    documents = rendered(STORE | values)
    service = one(documents, "Service", "agentrun-metrics")["spec"]["ports"]
    container = operator(documents)
    assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("liveness", "readiness", "startup")} == {
        "probes"
    }
    return (
        {port["name"]: port["containerPort"] for port in container["ports"]},
        {port["name"]: (port["port"], port["targetPort"]) for port in service},
    )


def test_where_the_metrics_are() -> None:
    assert ports({}) == ({"probes": 8080}, {"metrics": (8080, "probes")})
    apart = {"probes": (8080, "probes"), "metrics": (9090, "metrics")}
    assert ports({"metrics": {"port": 9090}}) == ({"probes": 8080, "metrics": 9090}, apart)
    assert ports({"metrics": {"enabled": False}}) == ({"probes": 8080}, {"probes": (8080, "probes")})
    done = helm(
        "template", "a", CHART, values=STORE | {"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}}
    )
    assert done.returncode != 0 and "nothing to scrape" in done.stderr


def network(values: Values, name: str = "agentrun-operator") -> list[Values]:
    found = [d for d in rendered(STORE | values) if d["kind"] == "NetworkPolicy" and d["metadata"]["name"] == name]
    return [{**d["spec"], "namespace": d["metadata"]["namespace"]} for d in found]


MONITORING = [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]
OUT = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}]


def test_who_reaches_the_operator() -> None:
    [policy] = network({})
    assert policy["policyTypes"] == ["Ingress"] and "egress" not in policy and policy["namespace"] == "agents"
    labels = one(rendered(STORE), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    test, scrapers = policy["ingress"]
    helm_test = one(rendered(STORE), "Pod", "agentrun-test")["metadata"]["labels"]
    assert test["from"][0]["podSelector"]["matchLabels"].items() <= helm_test.items()
    assert scrapers == {"from": [{"podSelector": {}}], "ports": [{"port": "probes", "protocol": "TCP"}]}
    [policy] = network({"networkPolicy": {"metricsFrom": MONITORING}, "metrics": {"port": 9090}})
    assert policy["ingress"][1] == {"from": MONITORING, "ports": [{"port": "metrics", "protocol": "TCP"}]}
    none: list[Values] = [{"networkPolicy": {"metricsFrom": []}}, {"metrics": {"enabled": False}}]
    for values in none:
        [policy] = network(values)
        assert len(policy["ingress"]) == 1, "an empty list of peers would be everybody"
    assert network({"networkPolicy": {"enabled": False}}) == []


def test_where_the_operator_may_go() -> None:
    [policy] = network({"networkPolicy": {"egress": OUT}})
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    dns, rest = policy["egress"]
    assert {(p["port"], p["protocol"]) for p in dns["ports"]} == {(53, "UDP"), (53, "TCP")} and rest == OUT[0]


def test_what_reaches_steps_and_where_they_may_go() -> None:
    name = "agentrun-steps"
    assert network({"watch": {"namespaces": ["a"]}}, name) == []
    on = {"steps": {"networkPolicy": {"enabled": True}}}
    policies = network(on | {"watch": {"namespaces": ["a", "b"]}}, name)
    assert [p["namespace"] for p in policies] == ["a", "b"]
    for policy in policies:
        assert policy["podSelector"] == {"matchExpressions": [{"key": "agentrun.dev/run", "operator": "Exists"}]}
        assert policy["policyTypes"] == ["Ingress"] and policy["ingress"] == [] and "egress" not in policy
    chosen = {"steps": {"networkPolicy": {"enabled": True, "namespaces": ["shop"], "egress": OUT}}}
    [policy] = network(chosen, name)
    assert policy["namespace"] == "shop" and policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"][1] == OUT[0]
    done = helm("template", "a", CHART, values=STORE | on)
    assert done.returncode != 0 and "steps.networkPolicy.namespaces" in done.stderr


def test_what_binds_the_operator_holds_in_every_namespace() -> None:
    documents: list[Values] = []
    for watch in ([], ["a", "b"]):
        documents = rendered(STORE | {"watch": {"namespaces": watch}})
        for name in ("agentrun-operator-pods", "agentrun-operator-runs"):
            assert "matchResources" not in one(documents, "ValidatingAdmissionPolicyBinding", name)["spec"]
    pods = json.dumps(one(documents, "ValidatingAdmissionPolicy", "agentrun-operator-pods"))
    assert "request.namespace in ['a','b']" in pods and "allowedImages" not in pods
    chosen = STORE | {"steps": {"allowedImages": ["here/agents/"], "image": "own:1"}}
    pods = json.dumps(one(rendered(chosen), "ValidatingAdmissionPolicy", "agentrun-operator-pods"))
    assert "['here/agents/']" in pods and "c.image == 'own:1'" in pods
    images, audiences = ["x'] || true"], ["a', 'b"]
    forged: list[Values] = [{"steps": {"allowedImages": images}}, {"admission": {"tokenAudiences": audiences}}]
    for bad in forged:
        assert helm("template", "a", CHART, values=STORE | bad).returncode != 0, "it would be part of an expression"


def every_object(values: Values, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where values.yaml has mappings of its own keys, and not the reader's."""
    free = {"annotations", "labels", "nodeSelector", "affinity", "requests", "limits"}
    found = [path]
    for key, value in values.items():
        if isinstance(value, dict) and key not in free:
            found += every_object(value, (*path, key))
    return found


PLACES = every_object(yaml.safe_load((CHART / "values.yaml").read_text()))


@pytest.mark.parametrize("path", PLACES, ids=[".".join(path) or "top" for path in PLACES])
def test_a_key_that_means_nothing_is_refused(path: tuple[str, ...]) -> None:
    values: Values = {"noSuchKey": 1}
    for key in reversed(path):
        values = {key: values}
    if path[:1] == ("store",):
        values["store"] |= STORE["store"]
    done = helm("template", "agentrun", CHART, values=STORE | values)
    assert done.returncode != 0 and "noSuchKey" in done.stderr, path
