"""The pod of an attempt as it is made: what it holds, what it must not, and how it is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.adapters.pods import BadSettings, PodSettings, build_pod, pod_name
from agentrun.api.facts import Allowance
from agentrun.api.keys import StepKey
from agentrun.attempt.environment import GRACE
from agentrun.attempt.spec import AttemptSpec
from agentrun.plan.snapshot import Ref
from tests.harness.pods import MODEL, REFUND, RUN, RUN_PATH, SETTINGS, UID, build, pinned, start

LOST = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    for taint in ("not-ready", "unreachable")
]


TRIAGE: dict[str, Any] = {"name": "triage", "agent": {"prompt": "?", "tools": ["look", "note"]}}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]}


# -- settings ---------------------------------------------------------------------------------------------------------

ENVIRONMENT = {"AGENTRUN_STORE": "s3://bucket/agentrun", "AGENTRUN_STEP_IMAGE": "agentrun:1"}


def test_the_settings_are_what_the_chart_sets() -> None:
    given_ = ENVIRONMENT | {
        "AGENTRUN_STEP_PULL_POLICY": "Always",
        "AGENTRUN_STEP_PULL_SECRETS": '["mirror"]',
        "AGENTRUN_STEP_ENV_SECRET": "store",
        "AGENTRUN_STEP_SERVICE_ACCOUNT": "steps",
        "AGENTRUN_STEP_RESOURCES": '{"requests": {"cpu": "50m"}, "limits": {"memory": "512Mi"}}',
        "AGENTRUN_STEP_NODE_SELECTOR": '{"disktype": "ssd"}',
        "AGENTRUN_STEP_TOLERATIONS": '[{"key": "gpu", "operator": "Exists"}]',
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_S3": "https://s3.example",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    pod = build(settings=PodSettings.from_environment(given_))
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("agentrun:1", "Always")
    assert spec["imagePullSecrets"] == [{"name": "mirror"}]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert spec["serviceAccountName"] == "steps"
    assert container["resources"] == {"requests": {"cpu": "50m"}, "limits": {"memory": "512Mi"}}
    assert spec["nodeSelector"] == {"disktype": "ssd"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}, *LOST]
    assert (
        environment(pod).items() >= {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_S3": "https://s3.example"}.items()
    )
    assert "hunter2" not in json.dumps(pod)


def test_what_is_empty_is_not_set() -> None:
    names = (
        "PULL_POLICY",
        "PULL_SECRETS",
        "ENV_SECRET",
        "SERVICE_ACCOUNT",
        "RESOURCES",
        "NODE_SELECTOR",
        "TOLERATIONS",
    )
    empty = {f"AGENTRUN_STEP_{name}": "" for name in names} | {"AWS_REGION": "", "AWS_ENDPOINT_URL_S3": ""}
    assert PodSettings.from_environment(ENVIRONMENT | empty) == PodSettings.from_environment(ENVIRONMENT)
    none = {"RESOURCES": "{}", "NODE_SELECTOR": "{}", "TOLERATIONS": "[]", "PULL_SECRETS": "[]"}
    found = PodSettings.from_environment(ENVIRONMENT | {f"AGENTRUN_STEP_{name}": text for name, text in none.items()})
    assert build(settings=found) == build()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENTRUN_STORE", ""),
        ("AGENTRUN_STORE", "./folder"),
        ("AGENTRUN_STEP_IMAGE", ""),
        ("AGENTRUN_STEP_IMAGE", "two words"),
        ("AGENTRUN_STEP_PULL_POLICY", "Sometimes"),
        ("AGENTRUN_STEP_PULL_SECRETS", "mirror"),
        ("AGENTRUN_STEP_PULL_SECRETS", '["Mirror"]'),
        ("AGENTRUN_STEP_ENV_SECRET", "no_name"),
        ("AGENTRUN_STEP_SERVICE_ACCOUNT", "Steps"),
        ("AGENTRUN_STEP_RESOURCES", '{"limits": {"memory": "much"}}'),
        ("AGENTRUN_STEP_RESOURCES", '{"limit": {}}'),
        ("AGENTRUN_STEP_NODE_SELECTOR", '{"a b": "c"}'),
        ("AGENTRUN_STEP_TOLERATIONS", '[{"effect": "NoSchedule"}]'),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"^{name}\\b") as error:
        PodSettings.from_environment(ENVIRONMENT | {name: value})
    assert "\n" not in str(error.value)


# -- the pod ----------------------------------------------------------------------------------------------------------


def test_a_pod_fits_the_level_restricted_and_has_no_token() -> None:
    spec = build()["spec"]
    [container] = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 65532
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "emptyDir", "secret"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_a_pod_says_whose_it_is() -> None:
    meta = build(path="refund[3].compensate", attempt=2)["metadata"]
    assert meta["labels"] == {"agentrun.dev/run": "refund-4711", "agentrun.dev/step": "refund"}
    assert meta["annotations"] == {
        "agentrun.dev/run-uid": UID.replace("-", ""),
        "agentrun.dev/key": "refund.3.compensate",
        "agentrun.dev/attempt": "2",
    }
    [owner] = meta["ownerReferences"]
    assert owner == {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "name": "refund-4711",
        "uid": UID,
        "controller": True,
    }
    assert re.fullmatch("refund-4711-refund-3-undo-2-[0-9a-f]{8}", meta["name"])


def test_the_runner_finds_its_spec_in_the_pod() -> None:
    begun = start(refs={"triage": Ref("Succeeded", 4)}, events=(2, 3), allowance=Allowance(3), outcome="Failed")
    pod = build_pod(SETTINGS, RUN, pinned(TRIAGE, REFUND | {"dependsOn": ["triage"]}), begun)
    found = AttemptSpec.from_environment(environment(pod))
    assert found == AttemptSpec("s3://bucket/agentrun", RUN_PATH, begun, leash=False)


@pytest.mark.parametrize(
    ("path", "secrets"),
    [
        ("triage", {"openai": ["api-key"], "crm": ["token"]}),
        ("refund", {"payments": ["token"]}),
        ("refund.compensate", {"payments": ["undo-token"]}),
        ("triage.compensate", {"payments": ["token"]}),
        ("all", {"payments": ["token", "undo-token"]}),
        ("plain", {}),
    ],
)
def test_a_step_gets_the_secrets_that_its_own_tools_and_model_name(path: str, secrets: dict[str, list[str]]) -> None:
    steps = [
        TRIAGE | {"compensate": {"name": "pay"}},
        REFUND,
        {"name": "plain", "tool": {"name": "look"}},
        {"name": "all", "agent": {"prompt": "?", "model": "free", "tools": ["undo", "pay"]}},
    ]
    models = [MODEL, {"name": "free", "model": "of-the-environment"}]
    spec = build_pod(SETTINGS, RUN, pinned(*steps, models=models, defaults={"model": "main"}), start(path))["spec"]
    volumes = {volume["name"]: volume["secret"] for volume in spec["volumes"] if "secret" in volume}
    assert {v["secretName"]: [item["key"] for item in v["items"]] for v in volumes.values()} == secrets
    assert all(v["optional"] is True and v["defaultMode"] == 0o440 for v in volumes.values())
    mounts = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"] if m["name"] != "tmp"}
    assert mounts == {name: f"/var/run/agentrun/secrets/{v['secretName']}" for name, v in volumes.items()}
    assert ("AGENTRUN_SECRETS" in environment({"spec": spec})) is bool(secrets)


def test_a_step_goes_before_the_defaults_and_those_before_the_settings() -> None:
    general = PodSettings.from_environment(
        ENVIRONMENT
        | {
            "AGENTRUN_STEP_SERVICE_ACCOUNT": "steps",
            "AGENTRUN_STEP_RESOURCES": '{"limits": {"memory": "1Gi"}}',
            "AGENTRUN_STEP_NODE_SELECTOR": '{"pool": "all"}',
            "AGENTRUN_STEP_TOLERATIONS": '[{"operator": "Exists"}]',
        }
    )
    defaults = {"image": "of:defaults", "resources": {"limits": {"memory": "2Gi"}}, "nodeSelector": {"pool": "b"}}
    own = {
        "identity": {"serviceAccountName": "payer"},
        "image": "of:step",
        "resources": {"limits": {"memory": "3Gi"}},
        "nodeSelector": {},
        "tolerations": [],
    }

    def placed(step: dict[str, Any], **more: Any) -> tuple[Any, ...]:
        spec = build_pod(general, RUN, pinned(step, **more), start())["spec"]
        [container] = spec["containers"]
        memory = container["resources"]["limits"]["memory"]
        tolerations = spec["tolerations"][:-2] or None
        return spec["serviceAccountName"], container["image"], memory, spec.get("nodeSelector"), tolerations

    anywhere = [{"operator": "Exists"}]
    assert placed(REFUND) == ("steps", "agentrun:1", "1Gi", {"pool": "all"}, anywhere)
    assert placed(REFUND, identity="runner") == ("runner", "agentrun:1", "1Gi", {"pool": "all"}, anywhere)
    assert placed(REFUND, defaults=defaults) == ("steps", "of:defaults", "2Gi", {"pool": "b"}, anywhere)
    assert placed(REFUND | own, defaults=defaults, identity="runner") == ("payer", "of:step", "3Gi", None, None)


def test_a_pod_has_the_priority_that_the_operator_was_told_or_the_clusters() -> None:
    assert "priorityClassName" not in build()["spec"]
    assert build(settings=replace(SETTINGS, priority_class="low"))["spec"]["priorityClassName"] == "low"


def test_a_pod_is_not_left_for_long_on_a_node_that_is_lost() -> None:
    """The fence makes a successor safe while the pod may still run there; Kubernetes' own default is five minutes."""
    assert build()["spec"]["tolerations"] == LOST
    patient = LOST[1] | {"tolerationSeconds": 900}
    own = build_pod(SETTINGS, RUN, pinned(REFUND | {"tolerations": [patient]}), start())["spec"]["tolerations"]
    assert own == [patient, LOST[0]]


def test_a_pod_does_not_outlive_a_dead_operator() -> None:
    assert build(timeout=600.0)["spec"]["activeDeadlineSeconds"] == 1500
    assert build(timeout=0.0)["spec"]["activeDeadlineSeconds"] == 900
    assert build(timeout=None)["spec"]["activeDeadlineSeconds"] == 3600 + 900
    assert build(timeout=1e12)["spec"]["activeDeadlineSeconds"] == 2**31 - 1
    assert build()["spec"]["terminationGracePeriodSeconds"] > GRACE


def test_a_pod_is_small() -> None:
    """Smaller pods are created faster; and Linux takes 128 KiB in one variable, so a step may look at all others."""
    assert len(json.dumps(build(), separators=(",", ":"))) < 2200
    refs = {f"a-step-with-a-name-of-the-longest-kind-that-is-{n:04d}": Ref("Succeeded", 10**7) for n in range(1000)}
    assert len(environment(build(refs=refs))["AGENTRUN_STEP"]) < 128 * 1024


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True)
KEYS = st.builds(StepKey, NAMES, st.none() | st.integers(0, 9999), st.booleans())
RUNS = st.tuples(NAMES, st.uuids().map(str))


@given(st.lists(st.tuples(RUNS, KEYS, st.integers(1, 10**6)), min_size=2, max_size=2, unique=True))
def test_names_are_dns_labels_and_different(attempts: list[tuple[tuple[str, str], StepKey, int]]) -> None:
    one, other = (pod_name(*run, key, number) for run, key, number in attempts)
    assert one != other
    for name, (_, key, number) in zip((one, other), attempts, strict=True):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 63
        index = "" if key.index is None else f"-{key.index}"
        assert re.search(f"-[a-z0-9][-a-z0-9]*{index}{'-undo' if key.compensate else ''}-{number}-[0-9a-f]{{8}}$", name)


def test_names_that_only_their_hyphens_tell_apart() -> None:
    assert pod_name("a-b", UID, StepKey("c"), 1) != pod_name("a", UID, StepKey("b-c"), 1)
    assert pod_name("a", UID, StepKey("b", 1), 1) != pod_name("a", UID, StepKey("b-1"), 1)
