"""The operator's settings, read from the environment that the chart sets (docs/reference/ lists every variable)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agentrun.adapters.pods import PodSettings
from agentrun.api.errors import AgentrunError
from agentrun.api.texts import quoted
from agentrun.observe.server import DEFAULT_LISTEN
from agentrun.plan.pod_bounds import Bounds


class BadSetting(AgentrunError):
    """A variable is missing or has no usable value. The message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one operator process."""

    pods: PodSettings
    namespaces: tuple[str, ...]
    """The namespaces to watch; empty: all."""
    lease_namespace: str | None
    """The namespace of the Lease; None: the operator's own."""
    lease_name: str
    pod_name: str
    admission_policies: tuple[str, ...]
    """The admission policies without which no decision is accepted; empty: something else vouches for decisions."""
    bounds: Bounds
    """How many step pods may exist at once."""
    listen: str
    metrics_listen: str
    """The address of the metrics; empty: the same as that of the probes."""
    log_level: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """The settings in ``environment``. Raises AgentrunError if a variable is wrong."""
        admission = environment.get("AGENTRUN_ADMISSION", "true")
        policies = _words(environment.get("AGENTRUN_ADMISSION_POLICIES", ""))
        if admission not in ("true", "false"):
            raise BadSetting(f"AGENTRUN_ADMISSION is {quoted(admission)}: write true or false")
        if admission == "true" and not policies:
            raise BadSetting(
                "AGENTRUN_ADMISSION_POLICIES is empty: name the policies that verify decisions, as the chart does, "
                "or set AGENTRUN_ADMISSION=false if something else guards approvals/status"
            )
        return cls(
            pods=PodSettings.from_environment(environment),
            namespaces=_words(environment.get("AGENTRUN_NAMESPACES", "")),
            lease_namespace=environment.get("AGENTRUN_LEASE_NAMESPACE") or None,
            lease_name=environment.get("AGENTRUN_LEASE_NAME") or "agentrun",
            pod_name=environment.get("AGENTRUN_POD_NAME") or "agentrun",
            admission_policies=policies if admission == "true" else (),
            bounds=Bounds(
                whole=_bound(environment, "AGENTRUN_STEP_PODS_MAX"),
                namespace=_bound(environment, "AGENTRUN_STEP_PODS_MAX_PER_NAMESPACE"),
            ),
            listen=environment.get("AGENTRUN_LISTEN", DEFAULT_LISTEN),
            metrics_listen=environment.get("AGENTRUN_METRICS_LISTEN", "").strip(),
            log_level=environment.get("AGENTRUN_LOG_LEVEL", "info"),
        )


def _bound(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "").strip()
    if not re.fullmatch("[0-9]{0,9}", text):
        raise BadSetting(f"{name} is {quoted(text)}: write a whole number; 0 or empty means no limit")
    return int(text or "0") or None


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({word.strip() for word in text.split(",") if word.strip()}))
