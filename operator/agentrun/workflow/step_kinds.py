"""The kinds of steps, a row each: what the compiler, the planner and whoever starts a step ask about a kind.

What the schema says of a kind (its field, whether it holds a pod, whether it may be repeated) is the row of the same
name in ``agentrun.api.workflow.STEP_KINDS``. What carries a kind out stands above this room, in a ``match`` over the
bodies: ``plan.steps`` for what holds no pod, ``runner.work`` for what does. mypy fails where a kind is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentrun.api.canonical import moment
from agentrun.api.errors import Path, Problem
from agentrun.api.values import Spec, pause, seconds
from agentrun.api.workflow import (
    Agent,
    ApprovalStep,
    Model,
    SecretKey,
    StepBody,
    ToolCall,
    Wait,
    WorkflowSpec,
)
from agentrun.expressions.templates import Scope, ValueTemplate, compile_text, compile_value
from agentrun.workflow.json_schema import check_schema
from agentrun.workflow.names import no_such
from agentrun.workflow.shapes import ANYTHING, Shape
from agentrun.workflow.tool_kinds import secret_refs_of

Compile = Callable[[Any, Scope, Path, list[Problem]], ValueTemplate]
"""``compile_text`` for a field that is a text, ``compile_value`` for one that is any value with texts in it."""

Texts = Mapping[str, ValueTemplate]
"""A step's compiled templates by field."""

Body = TypeVar("Body", bound=Spec)


def _nothing_wrong(*_: object) -> Iterable[Problem]:
    return ()


@dataclass(frozen=True)
class StepKind(Generic[Body]):
    """One kind of step. Every function gets the step's body; paths lead to it."""

    name: str
    """The field of a step that holds the body."""
    templates: Mapping[str, Compile]
    """The body's fields that are templates, in the order in which their problems are told."""
    output: Callable[[Body], Shape]
    """What is known of the output of a step that succeeds."""
    check: Callable[[WorkflowSpec, Body, Path], Iterable[Problem]] = _nothing_wrong
    """What has no meaning, apart from its templates."""
    lint: Callable[[Body, Texts, Path], Iterable[Problem]] = _nothing_wrong
    """What has a meaning and will surely fail. Asked of a workflow that has not begun."""
    schemas: Callable[[Body], Sequence[Any]] = lambda _body: ()
    """The JSON Schemas that it holds: those of a workflow are bounded together."""
    model: Callable[[WorkflowSpec, Body], Model | None] = lambda _spec, _body: None
    """The model that it asks."""
    tools: Callable[[Body], Sequence[str]] = lambda _body: ()
    """The names of the tools that it may call."""
    one_call: bool = False
    """It is one call of a tool: a person's word on that call is the step's output, and its effect is the step's."""
    permits: bool = False
    """Its outcome permits what comes after it. A fork that does that anew asks anew."""


def kind_of(body: StepBody) -> StepKind[Any]:
    """The row of the kind that ``body`` is of."""
    return KINDS[type(body)]


def model_of(spec: WorkflowSpec, body: StepBody) -> Model | None:
    """The model that a step asks: for an agent its own, the default one, or the only one there is."""
    return kind_of(body).model(spec, body)


def secret_refs(spec: WorkflowSpec, body: StepBody) -> Iterator[SecretKey]:
    """The Secrets that a step reads, and no other is handed to it: its model's, and those of the tools it may call."""
    kind = kind_of(body)
    model = kind.model(spec, body)
    if model is not None and model.credentials is not None:
        yield model.credentials.secret_ref
    tools = {tool.name: tool for tool in spec.tools}
    for name in kind.tools(body):
        yield from secret_refs_of(tools[name])


def check_tool_name(spec: WorkflowSpec, name: str, path: Path) -> Iterator[Problem]:
    """A problem where the workflow has no tool of that name."""
    names = [tool.name for tool in spec.tools]
    if name not in names:
        yield Problem(path, no_such("tool", name, names))


# -- agent -------------------------------------------------------------------------------------------------------------


def _model_of_agent(spec: WorkflowSpec, agent: Agent) -> Model | None:
    name = agent.model or spec.defaults.model
    if name is None:
        return spec.models[0] if len(spec.models) == 1 else None
    return next((model for model in spec.models if model.name == name), None)


def _check_agent(spec: WorkflowSpec, agent: Agent, path: Path) -> Iterator[Problem]:
    if _model_of_agent(spec, agent) is None:
        name = agent.model or spec.defaults.model
        if name is not None:
            message = no_such("model", name, [model.name for model in spec.models])
        elif spec.models:
            message = "no model: name one here or in spec.defaults.model"
        else:
            message = "no model: declare one in spec.models"
        yield Problem((*path, "model"), message)
    for number, name in enumerate(agent.tools):
        yield from check_tool_name(spec, name, (*path, "tools", number))
    if agent.output is not None:
        yield from check_schema(agent.output, (*path, "output"))


def _lint_agent(agent: Agent, _: Texts, path: Path) -> Iterator[Problem]:
    for number, name in enumerate(agent.tools):
        if name in agent.tools[:number]:
            yield Problem((*path, "tools", number), f"the tool {name} stands twice: keep one")


# -- wait --------------------------------------------------------------------------------------------------------------


def _check_wait(_: WorkflowSpec, wait: Wait, path: Path) -> Iterator[Problem]:
    if wait.duration is not None and "${" not in wait.duration:
        try:
            seconds(wait.duration)
        except ValueError as error:
            yield Problem((*path, "duration"), str(error))


def _lint_wait(_: Wait, texts: Texts, path: Path) -> Iterator[Problem]:
    for name, read in (("until", moment), ("duration", pause)):
        text = texts.get(name)
        if text is not None and text.literal:
            try:
                read(text.outline)
            except ValueError as error:
                yield Problem((*path, name), str(error))


# -- the table ---------------------------------------------------------------------------------------------------------

_APPROVED: Shape = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "approved": {"type": "boolean"},
        "by": {"type": "array", "items": {"type": "string"}},
        "comment": {"type": "string"},
    },
}

KINDS: Mapping[type[Spec], StepKind[Any]] = {
    Agent: StepKind[Agent](
        name="agent",
        templates={"instructions": compile_text, "prompt": compile_text},
        output=lambda agent: {"type": "string"} if agent.output is None else agent.output,
        check=_check_agent,
        lint=_lint_agent,
        schemas=lambda agent: () if agent.output is None else (agent.output,),
        model=_model_of_agent,
        tools=lambda agent: agent.tools,
    ),
    ToolCall: StepKind[ToolCall](
        name="tool",
        templates={"args": compile_value},
        output=lambda _: ANYTHING,
        check=lambda spec, call, path: check_tool_name(spec, call.name, (*path, "name")),
        tools=lambda call: [call.name],
        one_call=True,
    ),
    ApprovalStep: StepKind[ApprovalStep](
        name="approval",
        templates={"subject": compile_text, "details": compile_value},
        output=lambda _: _APPROVED,
        permits=True,
    ),
    Wait: StepKind[Wait](
        name="wait",
        templates={"duration": compile_text, "until": compile_text},
        output=lambda wait: ANYTHING if wait.signal is not None else {"type": "null"},
        check=_check_wait,
        lint=_lint_wait,
    ),
}
"""A row for each type of ``StepBody``."""
