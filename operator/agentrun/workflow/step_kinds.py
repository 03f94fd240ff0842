"""The kinds of steps, one row each: what the compiler, the planner and the starter of a step need to know of a kind.

The schema's part of a kind (its field, whether it has a pod, whether it may be repeated) is the row of the same name in
``agentrun.api.workflow.STEP_KINDS``. Higher packages execute a kind, in a ``match`` over the bodies:
``plan.graph_state`` for kinds without a pod, ``runner.dispatch`` for kinds with one. mypy reports a kind that is
missing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentrun.api.canonical import moment
from agentrun.api.errors import Path, Problem
from agentrun.api.tools import (
    SecretKey,
    ToolCall,
)
from agentrun.api.values import Spec, pause, seconds
from agentrun.api.workflow import (
    Agent,
    ApprovalStep,
    Model,
    StepBody,
    Wait,
    WorkflowSpec,
)
from agentrun.expressions.templates import Scope, ValueTemplate, compile_text, compile_value
from agentrun.workflow.json_schema import check_schema
from agentrun.workflow.names import no_such
from agentrun.workflow.shapes import ANYTHING, Shape
from agentrun.workflow.tool_kinds import secret_refs_of

Compile = Callable[[Any, Scope, Path, list[Problem]], ValueTemplate]
"""``compile_text`` for a field that is a text, ``compile_value`` for a field that is any JSON value."""

Texts = Mapping[str, ValueTemplate]
"""A step's compiled templates by field."""

Body = TypeVar("Body", bound=Spec)


def _nothing_wrong(*_: object) -> Iterable[Problem]:
    return ()


@dataclass(frozen=True)
class StepKind(Generic[Body]):
    """One kind of step. Every function gets the step's body; a path given to it is the body's path."""

    name: str
    """The field of a step that holds the body."""
    templates: Mapping[str, Compile]
    """The body's fields that are templates, in the order in which their problems are reported."""
    output: Callable[[Body], Shape]
    """The schema of the output of a step that succeeds, as far as it is known."""
    check: Callable[[WorkflowSpec, Body, Path], Iterable[Problem]] = _nothing_wrong
    """Finds what is invalid in the body, except in its templates."""
    lint: Callable[[Body, Texts, Path], Iterable[Problem]] = _nothing_wrong
    """Finds what is valid but will surely fail. It is applied to a workflow before its run begins."""
    schemas: Callable[[Body], Sequence[Any]] = lambda _body: ()
    """The JSON Schemas in the body. All schemas of a workflow have a common size limit."""
    model: Callable[[WorkflowSpec, Body], Model | None] = lambda _spec, _body: None
    """The model that the step asks."""
    tools: Callable[[Body], Sequence[str]] = lambda _body: ()
    """The names of the tools that the step may call."""
    one_call: bool = False
    """The step is one call of a tool: the result that a person gives for that call is the step's output, and the call's
    effect is the step's."""
    forked_with: Sequence[str] = ()
    """The body's fields that a fork can give another value: ``fork --prompt`` and ``--model``."""
    permits: bool = False
    """The step's outcome permits the steps after it. A fork that repeats those steps asks again."""


def kind_of(body: StepBody) -> StepKind[Any]:
    """The row of the kind of ``body``."""
    return KINDS[type(body)]


def kind_of_document(step: Mapping[str, Any]) -> StepKind[Any]:
    """The row of the kind of a step as a document has it: one that was checked, as a pinned workflow is."""
    return next(kind for kind in KINDS.values() if step.get(kind.name) is not None)


def model_of(spec: WorkflowSpec, body: StepBody) -> Model | None:
    """The model that a step asks. For an agent: its own, else the default one, else the only one in the workflow."""
    return kind_of(body).model(spec, body)


def secret_refs(spec: WorkflowSpec, body: StepBody) -> Iterator[SecretKey]:
    """The Secrets of a step: its model's, and those of the tools it may call. The step gets no other Secrets."""
    kind = kind_of(body)
    model = kind.model(spec, body)
    if model is not None and model.credentials is not None:
        yield model.credentials.secret_ref
    tools = {tool.name: tool for tool in spec.tools}
    for name in kind.tools(body):
        yield from secret_refs_of(tools[name])


def check_tool_name(spec: WorkflowSpec, name: str, path: Path) -> Iterator[Problem]:
    """A problem if the workflow has no tool of that name."""
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
            yield Problem((*path, "tools", number), f"the tool {name} is listed twice: keep one")


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
        forked_with=("prompt", "model"),
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
"""One row for each type of ``StepBody``."""
