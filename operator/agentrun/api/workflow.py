"""AgentWorkflow: a reusable workflow, as a person writes it.

Every field here has an effect. The checks that a schema cannot express (the graph, references, expressions) are in
``agentrun.workflow.program``. The messages in capitals are shared with the CRD's own rules (``agentrun.api.crd``), so
that a laptop and a cluster refuse with the same messages. Annotations are not postponed (``from __future__``): pydantic
would compile the text of each at start-up.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from agentrun.api.placement import Identity, Image, NodeSelector, Resources, Tolerations, known_labels
from agentrun.api.tools import URL_PATTERN, Approvers, JsonSchema, SecretRef, Tool, ToolCall
from agentrun.api.values import TEXT_MAX, Duration, Expression, Money, Name, Spec, Template, ToolName

GROUP = "agentrun.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_STEPS = 1000
MAX_ITEMS = 10_000
DEFAULT_PARALLEL = 10
DEFAULT_MAX_TURNS = 20


class StepKindRules(NamedTuple):
    """The schema's rules for one kind of step. ``agentrun.workflow.step_kinds`` has everything else."""

    holds_pod: bool
    for_each: bool


STEP_KINDS: Mapping[str, StepKindRules] = {
    "agent": StepKindRules(holds_pod=True, for_each=True),
    "tool": StepKindRules(holds_pod=True, for_each=True),
    "approval": StepKindRules(holds_pod=False, for_each=False),
    "wait": StepKindRules(holds_pod=False, for_each=False),
}
"""The kinds of steps, by the field of ``Step`` that has the body."""


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"


_REPEATED = _listed(name for name, rules in STEP_KINDS.items() if rules.for_each)
_IN_PODS = _listed(name for name, rules in STEP_KINDS.items() if rules.holds_pod)

ONE_KIND = f"give exactly one of {_listed(STEP_KINDS)}"
FOR_EACH_KINDS = f"forEach applies to {_REPEATED} only: a step of another kind happens once"
POD_KINDS = (
    f"identity, image, resources, nodeSelector and tolerations apply to {_IN_PODS} only: "
    "a step of another kind has no pod"
)
ONE_WAIT = "give exactly one of duration, until and signal"
WAIT_TIMEOUT = "timeout applies to signal only: duration and until end by themselves"


class FailureClass(StrEnum):
    """Why an attempt, a step or a run failed. docs/reference/ says which are retried, and how."""

    INFRASTRUCTURE = "Infrastructure"
    RATE_LIMITED = "RateLimited"
    PROVIDER = "Provider"
    TOOL = "Tool"
    INVALID = "Invalid"
    TIMEOUT = "Timeout"
    BUDGET = "Budget"
    UNKNOWN = "Unknown"
    REJECTED = "Rejected"


class Price(Spec):
    """USD per million tokens."""

    input: Money
    cached_input: Money | None = None
    output: Money


class Model(Spec):
    """A model endpoint that steps refer to by name."""

    name: Name
    model: Annotated[str, Field(min_length=1, max_length=200)]
    provider: Literal["openai"] = "openai"
    endpoint: Annotated[str, Field(max_length=2000, pattern=URL_PATTERN)] | None = None
    api: Literal["responses", "chat"] = "responses"
    credentials: SecretRef | None = None
    price: Price | None = None
    context_window: Annotated[int, Field(ge=1000, le=100_000_000)] = 200_000
    """Tokens that the model accepts for history and answer. The history is compacted before it exceeds that."""


class Backoff(Spec):
    """The pause before the n-th retry: ``initial * factor ** (n - 1)``, at most ``max``."""

    initial: Duration = "5s"
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    max: Duration = "2m"


RetryClass = Literal["RateLimited", "Provider", "Tool", "Invalid", "Infrastructure"]


class Retry(Spec):
    """How often a failed attempt of a step is retried, and after which pause."""

    limit: Annotated[int, Field(ge=0, le=100)] = 2
    backoff: Backoff = Backoff()
    classes: Annotated[list[RetryClass], Field(min_length=1, max_length=5)] = ["RateLimited", "Provider", "Tool"]

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[RetryClass]) -> list[RetryClass]:
        if twice := next((item for n, item in enumerate(classes) if item in classes[:n]), None):
            raise ValueError(f"lists {twice} twice: keep one")
        return classes


class Defaults(Spec):
    """Defaults for steps that do not set these fields themselves."""

    model: Name | None = None
    timeout: Duration | None = None
    retry: Retry | None = None
    image: Image | None = None
    resources: Resources | None = None
    node_selector: NodeSelector | None = None
    tolerations: Tolerations | None = None

    _labels = field_validator("node_selector")(known_labels)


class Agent(Spec):
    """A model that works in turns: it answers, or calls tools and sees their results."""

    instructions: Template = ""
    prompt: Annotated[Template, Field(min_length=1)]
    model: Name | None = None
    tools: Annotated[list[ToolName], Field(max_length=100)] = []
    output: JsonSchema | None = None
    max_turns: Annotated[int, Field(ge=1, le=10_000)] = DEFAULT_MAX_TURNS
    max_output_tokens: Annotated[int, Field(ge=16, le=1_000_000)] | None = None


class ApprovalStep(Spec):
    """A question to people; the run holds no process while it waits."""

    subject: Annotated[Template, Field(min_length=1, max_length=1000)]
    details: Any = None
    approvers: Approvers
    required: Annotated[int, Field(ge=1, le=10)] = 1
    timeout: Duration = "24h"


class Wait(Spec):
    """A pause: exactly one of ``duration``, ``until`` (RFC 3339) and ``signal``."""

    duration: Annotated[str, Field(max_length=TEXT_MAX)] | None = None
    until: Annotated[str, Field(max_length=TEXT_MAX)] | None = None
    signal: Name | None = None
    timeout: Duration | None = None
    """How long to wait for ``signal``. Without a timeout, until a person sends the signal or cancels the run."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if sum(end is not None for end in (self.duration, self.until, self.signal)) != 1:
            raise ValueError(ONE_WAIT)
        if self.timeout is not None and self.signal is None:
            raise ValueError(WAIT_TIMEOUT)
        return self


class ForEach(Spec):
    """Run the step once for each element of ``items``; ``item`` and ``index`` are in scope."""

    items: Any
    max_parallel: Annotated[int, Field(ge=1, le=1000)] = DEFAULT_PARALLEL


PodBody = Agent | ToolCall
"""The body of a step that attempts carry out, each in its own process (on a cluster: in its own pod).

The planner alone carries out any other body.
"""

StepBody = PodBody | ApprovalStep | Wait
"""The body of a step: the value of the one field that its kind is named after."""


POD_FIELDS = ("identity", "image", "resources", "node_selector", "tolerations")
"""The fields of a step that describe its pod."""


class Step(Spec):
    """One step: exactly one of ``agent``, ``tool``, ``approval`` and ``wait``."""

    name: Name
    agent: Agent | None = None
    tool: ToolCall | None = None
    approval: ApprovalStep | None = None
    wait: Wait | None = None
    depends_on: Annotated[list[Name], Field(max_length=MAX_STEPS)] = []
    when: Expression | None = None
    for_each: ForEach | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    continue_on_error: bool = False
    compensate: ToolCall | None = None
    identity: Identity | None = None
    image: Image | None = None
    resources: Resources | None = None
    node_selector: NodeSelector | None = None
    tolerations: Tolerations | None = None

    _labels = field_validator("node_selector")(known_labels)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in STEP_KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"{'has ' + ' and '.join(kinds) if kinds else 'does nothing'}: {ONE_KIND}")
        rules = STEP_KINDS[kinds[0]]
        if self.for_each is not None and not rules.for_each:
            raise ValueError(FOR_EACH_KINDS)
        if not rules.holds_pod and any(getattr(self, field) is not None for field in POD_FIELDS):
            raise ValueError(POD_KINDS)
        return self

    @property
    def body(self) -> StepBody:
        """What the step does."""
        bodies: Iterator[StepBody | None] = (getattr(self, kind) for kind in STEP_KINDS)
        return next(body for body in bodies if body is not None)


def _taken(*lists: tuple[str, Sequence[Step | Tool | Model]]) -> Iterator[InitErrorDetails]:
    """A problem for each name that occurs earlier in the same list or in a list before it."""
    first: dict[str, str] = {}
    for field, items in lists:
        for index, item in enumerate(items):
            place = f"{field}[{index}]"
            if (other := first.setdefault(item.name, place)) != place:
                about = {"name": item.name, "other": other}
                said = PydanticCustomError("name_taken", "the name {name} is taken by {other}: give another", about)
                yield InitErrorDetails(type=said, loc=(field, index, "name"), input=item.name)


class WorkflowSpec(Spec):
    """The content of an AgentWorkflow, and of ``spec.workflow`` of an AgentRun."""

    description: Annotated[str, Field(max_length=4096)] = ""
    inputs: JsonSchema = {"type": "object"}
    models: Annotated[list[Model], Field(max_length=50)] = []
    defaults: Defaults = Defaults()
    tools: Annotated[list[Tool], Field(max_length=200)] = []
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    finally_: Annotated[list[Step], Field(max_length=50, alias="finally")] = []
    output: Any = None

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        steps = _taken(("steps", self.steps), ("finally", self.finally_))
        if found := [*steps, *_taken(("tools", self.tools)), *_taken(("models", self.models))]:
            # A ValidationError keeps the path of each repeated name; a ValueError would not.
            raise ValidationError.from_exception_data("WorkflowSpec", found)
        return self
