"""AgentRun: one durable execution, and the shape of its status."""

# Without `from __future__ import annotations`, as `api.workflow`.

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from agentrun.api.labels import CANCEL_BY, SUSPEND_BY, TTL_BY
from agentrun.api.placement import Identity
from agentrun.api.values import LABEL_PATTERN, NAME_PATTERN, Duration, Money, Name, Spec
from agentrun.api.workflow import API_VERSION, POD_FIELDS, WorkflowSpec

ONE_WORKFLOW = "give exactly one of workflowRef and workflow"


class StepState(StrEnum):
    """The state of a step."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"
    OUTCOME_UNKNOWN = "OutcomeUnknown"

    @property
    def final(self) -> bool:
        """Whether the step has ended: it can no longer change."""
        return self in _FINAL


_FINAL = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class ConditionType(StrEnum):
    """The types of a run's conditions. kstatus reads Reconciling and Stalled."""

    SUCCEEDED = "Succeeded"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Reason(StrEnum):
    """The machine-readable reasons in conditions. docs/reference/ explains each, and the verb that resolves it."""

    PENDING = "Pending"
    RUNNING = "Running"
    QUEUED = "Queued"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_SIGNAL = "AwaitingSignal"
    AWAITING_TIMER = "AwaitingTimer"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    CANCELLING = "Cancelling"
    COMPENSATING = "Compensating"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    ATTEMPTS_LOST = "AttemptsLost"
    TOO_MUCH_WORK = "TooMuchWork"
    INVALID_SPEC = "InvalidSpec"
    WORKFLOW_NOT_FOUND = "WorkflowNotFound"
    SOURCE_NOT_FOUND = "SourceNotFound"
    POD_REFUSED = "PodRefused"
    APPROVAL_REFUSED = "ApprovalRefused"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_REFUSED = "ContainerRefused"
    NODE_SILENT = "NodeSilent"
    STORE_UNAVAILABLE = "StoreUnavailable"
    JOURNAL_DAMAGED = "JournalDamaged"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Budget(Spec):
    """Limits for the whole run, reserved before each call."""

    model_calls: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    tokens: Annotated[int, Field(ge=0, le=10**12)] | None = None
    cost_usd: Money | None = Field(default=None, alias="costUSD")
    tool_calls: Annotated[int, Field(ge=0, le=10_000_000)] | None = None


class WorkflowRef(Spec):
    """An AgentWorkflow in the run's namespace."""

    name: Name


StepLabel = Annotated[str, Field(min_length=1, max_length=60, pattern=LABEL_PATTERN)]
"""A step, or an item of a fan-out: ``NAME`` or ``NAME[INDEX]``."""


class Source(Spec):
    """The point of another run from which this one continues: before ``step``, or after its record ``seq``."""

    run: Annotated[str, Field(min_length=1, max_length=253)]
    step: StepLabel
    seq: Annotated[int, Field(ge=1)] | None = None


CHANGED_BY = {"suspend": SUSPEND_BY, "cancel": CANCEL_BY, "ttlSecondsAfterFinished": TTL_BY}
"""The fields of a run's spec that may change, each with the annotation that says who changed it last."""


class RunSpec(Spec):
    """What one execution does. Immutable, except for ``suspend``, ``cancel`` and ``ttlSecondsAfterFinished``."""

    workflow_ref: WorkflowRef | None = None
    workflow: WorkflowSpec | None = None
    inputs: Annotated[dict[str, Any], Field(max_length=10_000)] = {}
    budget: Budget = Budget()
    timeout: Duration | None = None
    suspend: bool = False
    cancel: bool = False
    source: Source | None = None
    identity: Identity | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _one_workflow(self) -> Self:
        if (self.workflow_ref is None) == (self.workflow is None):
            raise ValueError(ONE_WORKFLOW)
        return self


def cluster_only(*specs: RunSpec | WorkflowSpec) -> list[str]:
    """The fields in ``specs`` that have an effect on a cluster only, each once, as people write them.

    Includes the fields of an inline workflow.
    """
    found: set[str] = set()
    for spec in specs:
        if isinstance(spec, RunSpec):
            found |= _given(spec, ("identity", "ttl_seconds_after_finished"))
            found |= set(cluster_only(spec.workflow)) if spec.workflow is not None else set()
        else:
            found |= _given(spec.defaults, POD_FIELDS)
            found = found.union(*(_given(step, POD_FIELDS) for step in (*spec.steps, *spec.finally_)))
    return sorted(found)


def _given(spec: Spec, names: Iterable[str]) -> set[str]:
    return {to_camel(name) for name in names if getattr(spec, name, None) is not None}


class Metadata(Spec):
    """The part of Kubernetes' ObjectMeta that agentrun reads on one machine."""

    name: Name | None = None
    generate_name: Annotated[str, Field(max_length=45)] | None = None
    namespace: Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)] | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class AgentWorkflow(Spec):
    """An AgentWorkflow object, as in a file."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")]
    kind: Annotated[str, Field(pattern="^AgentWorkflow$")]
    metadata: Metadata
    spec: WorkflowSpec


class AgentRun(Spec):
    """An AgentRun object, as in a file: without its status."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")]
    kind: Annotated[str, Field(pattern="^AgentRun$")]
    metadata: Metadata
    spec: RunSpec
