"""Where a step's pod runs, and as which ServiceAccount. Only clusters have pods; on one machine the command line warns.

The patterns are those of Kubernetes, so that it does not refuse later, when the pod is created, what is accepted here.
The messages in capitals are shared with the CRD's rules (``agentrun.api.crd``).
"""

# Without `from __future__ import annotations`, as `api.workflow`.

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from agentrun.api.values import Spec

SERVICE_ACCOUNT_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
IMAGE_PATTERN = r"^[^\s]+$"
QUANTITY_PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
LABEL_KEY_PATTERN = r"^([a-z0-9][-a-z0-9.]*/)?[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$"
LABEL_VALUE_PATTERN = r"^([a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)?$"

TOLERATION_KEY = "a toleration without a key needs operator Exists, and tolerates every taint"
TOLERATION_VALUE = "value is allowed with operator Equal only"
TOLERATION_SECONDS = "tolerationSeconds is allowed with effect NoExecute only"

_RESOURCES = ("cpu", "memory", "ephemeral-storage")

ServiceAccountName = Annotated[str, Field(min_length=1, max_length=253, pattern=SERVICE_ACCOUNT_PATTERN)]
Image = Annotated[str, Field(min_length=1, max_length=1000, pattern=IMAGE_PATTERN)]
Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=QUANTITY_PATTERN)]
"""``"500m"``, ``"1.5"``, ``"2Gi"``: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""

LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]
NodeSelector = Annotated[dict[str, LabelValue], Field(max_length=20)]


class Identity(Spec):
    """The identity of the pods of a run or a step: a ServiceAccount in the run's namespace."""

    service_account_name: ServiceAccountName


class Resources(Spec):
    """The requests and limits of the runner's container."""

    requests: Annotated[dict[str, Quantity], Field(max_length=10)] = {}
    limits: Annotated[dict[str, Quantity], Field(max_length=10)] = {}

    @field_validator("requests", "limits")
    @classmethod
    def _known(cls, amounts: dict[str, str]) -> dict[str, str]:
        for name in amounts:
            if name not in _RESOURCES and not ("/" in name and re.fullmatch(LABEL_KEY_PATTERN, name)):
                raise ValueError(
                    "has a resource that no node offers: use "
                    f"{', '.join(_RESOURCES)}, or a name with a domain such as nvidia.com/gpu"
                )
        return amounts


class Toleration(Spec):
    """A taint that the pod tolerates."""

    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise ValueError(TOLERATION_KEY)
        if self.value is not None and self.operator == "Exists":
            raise ValueError(TOLERATION_VALUE)
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(TOLERATION_SECONDS)
        return self


Tolerations = Annotated[list[Toleration], Field(max_length=20)]


def known_labels(selector: dict[str, str] | None) -> dict[str, str] | None:
    """Return ``selector`` after checking that its keys can be labels of a node.

    Raises:
        ValueError: a key cannot be the key of a label.
    """
    for key in selector or ():
        if len(key) > 317 or not re.fullmatch(LABEL_KEY_PATTERN, key):
            raise ValueError(
                "has a key that cannot be the label of a node: write one such as disktype or example.com/pool"
            )
    return selector
