"""Builds the pod of an attempt: a pure function of the operator's settings, the run, its workflow and the start.

The pod is small, because every byte of it is written to etcd and comes back in watch events; fields that the API server
fills in are left out. It meets the Pod Security level ``restricted``
(https://kubernetes.io/docs/concepts/security/pod-security-standards/).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from pydantic import TypeAdapter, ValidationError

from agentrun.api.errors import AgentrunError
from agentrun.api.keys import StepKey
from agentrun.api.labels import ATTEMPT, KEY, RUN_LABEL, RUN_UID, STEP_LABEL
from agentrun.api.placement import (
    Image,
    NodeSelector,
    Resources,
    ServiceAccountName,
    Toleration,
    Tolerations,
    known_labels,
)
from agentrun.api.texts import quoted
from agentrun.api.workflow import API_VERSION, Defaults, Step
from agentrun.attempt.environment import GRACE, SECRETS_VARIABLE, STEP_VARIABLE, TERMINATION_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.control.views import RunView
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.snapshot import Start
from agentrun.workflow.program import Program
from agentrun.workflow.step_kinds import secret_refs

CONTAINER = "step"
SECRETS = "/var/run/agentrun/secrets"
TERMINATION_LOG = "/dev/termination-log"
USER = 65532
NAME_MAX = 63
SCRATCH = "1Gi"

BACKSTOP = 900.0
"""Seconds that a pod may live beyond its step's timeout: to pull the image and mount the secrets, to settle an unknown
outcome of an earlier attempt (10 s), and to stop (30 s). The runner ends itself at the timeout, and the operator
deletes a pod that does not (15 s later). The kubelet's deadline is for a pod whose operator is gone."""

NODE_LOST = 60
"""Seconds until a pod is evicted from a node that does not answer; Kubernetes' default is 300. The fence keeps an
attempt that may still run there from doing anything new, so the next attempt need not wait for certainty."""

_NODE_LOST = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST}
    for taint in ("not-ready", "unreachable")
]

_DEADLINE_MAX = 2**31 - 1

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class BadSettings(AgentrunError):
    """An environment variable of the operator has no usable value. The message names it."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The settings of step pods, unless the workflow has its own."""

    store_url: str
    image: str
    pull_policy: PullPolicy = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    env_secret: str | None = None
    """A Secret whose keys become environment variables of the pods: the store's credentials."""
    service_account: str = "default"
    priority_class: str | None = None
    resources: Resources = field(default_factory=Resources)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables without secrets: where the store is."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> PodSettings:
        """The settings in ``env``. An empty variable counts as not set.

        Raises:
            BadSettings: a variable is missing or wrong.
        """
        store = env.get("AGENTRUN_STORE", "")
        if not store.startswith("s3://"):
            raise BadSettings(
                f"AGENTRUN_STORE is {quoted(store)}: set it to s3://BUCKET/PREFIX, which step pods can reach too"
            )
        policy = env.get("AGENTRUN_STEP_PULL_POLICY") or "IfNotPresent"
        if policy not in get_args(PullPolicy):
            raise BadSettings(
                f"AGENTRUN_STEP_PULL_POLICY is {quoted(policy)}: set it to one of {', '.join(get_args(PullPolicy))}"
            )
        if not env.get("AGENTRUN_STEP_IMAGE"):
            raise BadSettings("AGENTRUN_STEP_IMAGE is not set: set it to the image of the step pods")
        return cls(
            store_url=store,
            image=_text(env, "AGENTRUN_STEP_IMAGE", Image, "image"),
            pull_policy=cast("PullPolicy", policy),
            pull_secrets=tuple(_json(env, "AGENTRUN_STEP_PULL_SECRETS", list[ServiceAccountName], [])),
            env_secret=_text(env, "AGENTRUN_STEP_ENV_SECRET", ServiceAccountName, "Secret") or None,
            service_account=_text(env, "AGENTRUN_STEP_SERVICE_ACCOUNT", ServiceAccountName, "ServiceAccount")
            or "default",
            priority_class=_text(env, "AGENTRUN_STEP_PRIORITY_CLASS", ServiceAccountName, "PriorityClass") or None,
            resources=_json(env, "AGENTRUN_STEP_RESOURCES", Resources, Resources()),
            node_selector=_json(env, "AGENTRUN_STEP_NODE_SELECTOR", NodeSelector, {}, known_labels),
            tolerations=_json(env, "AGENTRUN_STEP_TOLERATIONS", Tolerations, []),
            env={name: env[name] for name in ("AWS_REGION", "AWS_ENDPOINT_URL_S3") if env.get(name)},
        )


def _text(env: Mapping[str, str], name: str, kind: Any, what: str) -> str:
    text = env.get(name, "")
    if text:
        try:
            TypeAdapter(kind).validate_python(text)
        except ValidationError:
            raise BadSettings(f"{name} is {quoted(text)}, which cannot be the name of a {what}: correct it") from None
    return text


def _json(env: Mapping[str, str], name: str, kind: Any, default: Any, check: Any = None) -> Any:
    text = env.get(name, "")
    if not text:
        return default
    try:
        found = TypeAdapter(kind).validate_json(text)
        if check is not None:
            check(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadSettings(f"{name}{f' ({place})' if place else ''}: {first['msg']}; write JSON, as in a pod") from None
    except ValueError as error:
        raise BadSettings(f"{name}: {error}") from None
    return found


def build_pod(settings: PodSettings, run: RunView, pinned: PinnedRun, start: Start) -> dict[str, Any]:
    """The manifest of an attempt's pod. The same arguments give the same pod, with the same name."""
    step, defaults = pinned.program.step(start.key.name).spec, pinned.program.spec.defaults
    secret_mounts, secret_volumes = _secret_files(secrets_of(pinned.program, start.key))
    env = {
        STEP_VARIABLE: AttemptSpec(settings.store_url, pinned.run, start, leash=False).to_json(),
        TERMINATION_VARIABLE: TERMINATION_LOG,
        **settings.env,
        **({SECRETS_VARIABLE: SECRETS} if secret_mounts else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(run, pinned, start),
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _deadline(pinned, start),
            "terminationGracePeriodSeconds": int(GRACE) + 10,
            "serviceAccountName": _identity(settings, pinned, step),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _POD_SECURITY,
            "containers": [_container(settings, defaults, step, env, [_SCRATCH_MOUNT, *secret_mounts])],
            "volumes": [_SCRATCH_VOLUME, *secret_volumes],
            **_images(settings),
            **_placement(settings, defaults, step),
        },
    }


# -- the parts of a pod ------------------------------------------------------------------------------------------------

_POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}

_CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

_SCRATCH_MOUNT = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 (an emptyDir of the pod's own)
_SCRATCH_VOLUME = {"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}}


def _metadata(run: RunView, pinned: PinnedRun, start: Start) -> dict[str, Any]:
    # The owner is deleted first and its pods after it. blockOwnerDeletion is not set: it would need a permission more.
    owner = {"apiVersion": API_VERSION, "kind": "AgentRun", "name": run.ref.name, "uid": run.uid, "controller": True}
    return {
        "name": pod_name(run.ref.name, run.uid, start.key, start.attempt),
        "namespace": run.ref.namespace,
        "labels": {RUN_LABEL: run.ref.name, STEP_LABEL: start.key.name},
        "annotations": {RUN_UID: pinned.run.uid, KEY: start.key.path, ATTEMPT: str(start.attempt)},
        "ownerReferences": [owner],
    }


def _container(
    settings: PodSettings, defaults: Defaults, step: Step, env: Mapping[str, str], mounts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The container that runs the attempt."""
    found: dict[str, Any] = {
        "name": CONTAINER,
        "image": step.image or defaults.image or settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-E", "-P", "-m", "agentrun.runner"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": list(mounts),
        # If the runner dies without a termination message, a person wants to see the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
    }
    if settings.env_secret is not None:
        found["envFrom"] = [{"secretRef": {"name": settings.env_secret}}]
    resources = step.resources or defaults.resources or settings.resources
    if resources.requests or resources.limits:
        found["resources"] = resources.model_dump(by_alias=True, exclude_defaults=True)
    return found


def _secret_files(secrets: Mapping[str, Sequence[str]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The mounts and volumes for ``secrets`` (keys by name of the Secret), with a file for each key."""
    mounts, volumes = [], []
    for number, (name, keys) in enumerate(secrets.items()):
        mounts.append({"name": f"secret-{number}", "mountPath": f"{SECRETS}/{name}"})
        # Optional: if a Secret is missing, the runner itself says which tool or model needs it. With 0440 and the group
        # of fsGroup, only the runner can read the files.
        secret = {"secretName": name, "items": [{"key": key, "path": key} for key in keys]}
        volumes.append({"name": f"secret-{number}", "secret": secret | {"optional": True, "defaultMode": 0o440}})
    return mounts, volumes


def _images(settings: PodSettings) -> dict[str, Any]:
    """The pull secrets of the pod."""
    return {"imagePullSecrets": [{"name": name} for name in settings.pull_secrets]} if settings.pull_secrets else {}


def _placement(settings: PodSettings, defaults: Defaults, step: Step) -> dict[str, Any]:
    """The nodes on which the pod may run, and its priority."""
    selector = _first(step.node_selector, defaults.node_selector, settings.node_selector)
    wanted = _first(step.tolerations, defaults.tolerations, settings.tolerations) or ()
    tolerations = [t.model_dump(by_alias=True, exclude_none=True) for t in wanted]
    named = {toleration.get("key") for toleration in tolerations}
    return {
        **({"priorityClassName": settings.priority_class} if settings.priority_class is not None else {}),
        **({"nodeSelector": dict(selector)} if selector else {}),
        "tolerations": [*tolerations, *(t for t in _NODE_LOST if t["key"] not in named)],
    }


def pod_name(run: str, uid: str, key: StepKey, attempt: int) -> str:
    """``<run>-<step>[-<index>][-undo]-<attempt>-<hash>``: a DNS label. If it is too long, only run and step are cut.

    The hash covers all that makes the attempt unique. So neither a cut nor a hyphen can give two attempts one name.
    """
    digest = hashlib.sha256(f"{uid}/{key.path}/{attempt}".encode()).hexdigest()[:8]
    index = "" if key.index is None else f"-{key.index}"
    end = f"{index}{'-undo' if key.compensate else ''}-{attempt}-{digest}"
    room = NAME_MAX - len(end) - 1
    step = key.name[: max(room // 2, room - len(run))].rstrip("-")
    return f"{run.replace('.', '-')[: room - len(step)].rstrip('-')}-{step}{end}"


def secrets_of(program: Program, key: StepKey) -> dict[str, list[str]]:
    """The Secrets that the step may read, with their keys: only those that its tools and its model name."""
    found: dict[str, set[str]] = {}
    for ref in secret_refs(program.spec, program.step(key.name).does(key)):
        found.setdefault(ref.name, set()).add(ref.key)
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def _identity(settings: PodSettings, pinned: PinnedRun, step: Step) -> str:
    if step.identity is not None:
        return step.identity.service_account_name
    run: Mapping[str, str] = pinned.manifest.get("identity") or {}
    return run.get("serviceAccountName", settings.service_account)


def _deadline(pinned: PinnedRun, start: Start) -> int:
    left = pinned.program.step(start.key.name).timeout if start.timeout is None else start.timeout
    return min(math.ceil(left + BACKSTOP), _DEADLINE_MAX)


def _first(*choices: Any) -> Any:
    """The first choice that is not None. An empty list or mapping counts: it means none."""
    return next((choice for choice in choices if choice is not None), None)
