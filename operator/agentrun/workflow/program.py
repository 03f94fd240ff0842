"""A workflow, checked and compiled: the graph in order, every expression type-checked once.

``compile_program`` reports everything that is wrong at once, each with its path in the document; a program that
exists can be planned without looking at the text again.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.texts import quoted
from agentrun.api.values import seconds
from agentrun.api.workflow import Model, Retry, Step, Tool, WorkflowSpec
from agentrun.expressions.cel import TOO_MANY, together
from agentrun.expressions.templates import (
    Expression,
    ExpressionError,
    Scope,
    ValueTemplate,
    compile_expression,
    compile_text,
    compile_value,
)
from agentrun.workflow.http import check_http
from agentrun.workflow.json_schema import check_schema, weight
from agentrun.workflow.names import Names

EXPRESSIONS_MAX = 2 * 1024 * 1024
"""Bytes of all checked expressions of a workflow together, some 4,000 conditions: a second of work to compile them."""

SCHEMAS_MAX = 1024 * 1024
"""What all schemas of a workflow weigh together: see ``schema.weight``. Two seconds of work to compile them."""

DEFAULT_TIMEOUT = "1h"
STEP_VARIABLES = ("inputs", "steps", "run")
ITEM_VARIABLES = ("item", "index")
TOOL_SCOPE = Scope(("inputs", "run", "args"), None)


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """One step with what the planner and the runner evaluate of it."""

    name: str
    spec: Step
    ancestors: Set[str]
    """Every step that is done before this one starts: those whose outputs it may use."""
    when: Expression | None
    items: ValueTemplate | None
    texts: Mapping[str, ValueTemplate]
    """The step's own templates by field: ``prompt``, ``instructions``, ``args``, ``subject``, ``details`` …"""
    compensation: ValueTemplate | None
    retry: Retry
    timeout: float
    """Seconds of active time."""
    needs: tuple[str, ...]
    """The steps whose outputs the runner has to read to begin."""
    needs_to_undo: tuple[str, ...]
    """The same for the compensation."""

    @property
    def when_per_item(self) -> bool:
        """Whether ``when`` is asked of each item rather than once."""
        return self.when is not None and not self.when.references.isdisjoint(ITEM_VARIABLES)


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled workflow. ``steps`` and ``finally_`` are in an order in which dependencies come first."""

    spec: WorkflowSpec
    steps: Mapping[str, CompiledStep]
    finally_: Mapping[str, CompiledStep]
    output: ValueTemplate | None

    def step(self, name: str) -> CompiledStep:
        """The step of that name, wherever it stands. Raises KeyError."""
        return self.steps[name] if name in self.steps else self.finally_[name]

    def tool(self, name: str) -> Tool:
        """The tool of that name. Raises KeyError."""
        return next(tool for tool in self.spec.tools if tool.name == name)


def model_of(spec: WorkflowSpec, step: Step) -> Model | None:
    """The model that an agent step uses: its own, the default one, or the only one there is."""
    assert step.agent is not None
    name = step.agent.model or spec.defaults.model
    if name is None:
        return spec.models[0] if len(spec.models) == 1 else None
    return next((model for model in spec.models if model.name == name), None)


def compile_program(spec: WorkflowSpec, path: Path = ("spec",), *, pinned: bool = False) -> Program:
    """Check and compile ``spec``, which stands at ``path`` of its document.

    ``pinned``: it was checked before, perhaps by a version that had no bounds for the work that this is.

    Raises:
        InvalidDocument: with every problem that was found.
    """
    if pinned:
        return _compile(spec, path)
    schemas: list[Any] = [spec.inputs, *(t.parameters for t in spec.tools)]
    schemas += [s.agent.output for s in (*spec.steps, *spec.finally_) if s.agent is not None]
    if sum(weight(schema) for schema in schemas) > SCHEMAS_MAX:
        message = "its schemas, with their patterns, are too large together: divide the workflow, or shorten them"
        raise InvalidDocument([Problem(path, message)])
    with together(EXPRESSIONS_MAX):
        try:
            return _compile(spec, path)
        except InvalidDocument as error:
            # One problem says that the expressions are too large together: the first of them that is.
            others = [p for p in error.problems if not p.message.startswith(TOO_MANY)]
            first = [p for p in error.problems if p.message.startswith(TOO_MANY)][:1]
            raise InvalidDocument(others + first) from None


def _compile(spec: WorkflowSpec, path: Path) -> Program:
    problems: list[Problem] = []
    main, main_is_acyclic = _graph(spec.steps, (*path, "steps"), problems)
    last, last_is_acyclic = _graph(spec.finally_, (*path, "finally"), problems, elsewhere={s.name for s in spec.steps})
    problems += check_schema(spec.inputs, (*path, "inputs"))
    for number, tool in enumerate(spec.tools):
        _check_tool(tool, (*path, "tools", number), problems)
    every = frozenset(s.name for s in spec.steps)
    if not (main_is_acyclic and last_is_acyclic):  # what comes before a step is not known
        raise InvalidDocument(problems)
    steps = {step.name: _compile_step(spec, step, ancestors, place, problems) for step, ancestors, place in main}
    finals = {
        step.name: _compile_step(spec, step, every | ancestors, place, problems) for step, ancestors, place in last
    }
    output = None
    if spec.output is not None:
        output = compile_value(spec.output, Scope(STEP_VARIABLES, every), (*path, "output"), problems)
    if problems:
        raise InvalidDocument(problems)
    return Program(spec, steps, finals, output)


def compile_step(spec: WorkflowSpec, name: str) -> CompiledStep:
    """One step of a workflow that was checked before: what a runner needs, without compiling all the others.

    Raises:
        InvalidDocument: the workflow was not checked before.
    """
    step = next(s for s in [*spec.steps, *spec.finally_] if s.name == name)
    problems: list[Problem] = []
    compiled = _compile_step(spec, step, None, ("spec", "steps", name), problems)
    if problems:
        raise InvalidDocument(problems)
    return compiled


def _graph(
    steps: Sequence[Step], path: Path, problems: list[Problem], elsewhere: Iterable[str] = ()
) -> tuple[list[tuple[Step, Names, Path]], bool]:
    """The steps with all that comes before each, dependencies first, in the document's order where it is free; and
    whether no step depends on itself, directly or through others.
    """
    by_name = {step.name: (number, step) for number, step in enumerate(steps)}
    acyclic = True
    for number, step in enumerate(steps):
        for place, dependency in enumerate(step.depends_on):
            where = (*path, number, "dependsOn", place)
            if dependency == step.name:
                acyclic = False
                problems.append(Problem(where, f"{step.name} depends on itself, a cycle: remove this line"))
            elif dependency in elsewhere:
                problems.append(
                    Problem(where, f"{dependency} is not a finally step: all main steps are over by then; remove this")
                )
            elif dependency not in by_name:
                problems.append(Problem(where, f"there is no step {quoted(dependency)}{_nearest(dependency, by_name)}"))
    none = Names({name: number for name, (number, _) in by_name.items()})
    ancestors: dict[str, Names] = {}
    order: list[str] = []
    # Depth first with a stack of its own: a chain of 1,000 steps is deeper than Python's recursion allows.
    for root in by_name:
        stack = [(root, iter(by_name[root][1].depends_on))]
        trail = {root: None}
        while stack:
            name, rest = stack[-1]
            if name in ancestors:
                stack.pop()
                trail.pop(name, None)
                continue
            for dependency in rest:
                if dependency in trail and dependency != name:
                    names = list(trail)
                    ring = " → ".join([*names[names.index(dependency) :], dependency])
                    acyclic = False
                    where = (*path, by_name[name][0], "dependsOn")
                    problems.append(Problem(where, f"a cycle: {ring}; remove one of these dependencies"))
                elif dependency in by_name and dependency not in ancestors and dependency != name:
                    stack.append((dependency, iter(by_name[dependency][1].depends_on)))
                    trail[dependency] = None
                    break
            else:
                own = [d for d in by_name[name][1].depends_on if d in ancestors]
                ancestors[name] = none.with_all((d, ancestors[d]) for d in own)
                order.append(name)
    return [(by_name[n][1], ancestors[n], (*path, by_name[n][0])) for n in order], acyclic


def _compile_step(
    spec: WorkflowSpec, step: Step, ancestors: Set[str] | None, path: Path, problems: list[Problem]
) -> CompiledStep:
    scope = Scope(STEP_VARIABLES, ancestors)
    inner = Scope((*STEP_VARIABLES, *ITEM_VARIABLES), ancestors) if step.for_each else scope
    when = _expression(step.when, inner, (*path, "when"), problems, want="bool")
    items = step.for_each and compile_value(step.for_each.items, scope, (*path, "forEach", "items"), problems)
    texts: dict[str, ValueTemplate] = {}

    def add(compiled: Callable[..., ValueTemplate], kind: str, **fields: Any) -> None:
        for field, value in fields.items():
            if value is not None:
                texts[field] = compiled(value, inner, (*path, kind, field), problems)

    if step.agent is not None:
        add(compile_text, "agent", instructions=step.agent.instructions, prompt=step.agent.prompt)
        _check_agent(spec, step, path, problems)
    if step.tool is not None:
        add(compile_value, "tool", args=step.tool.args)
        _check_tool_name(spec, step.tool.name, (*path, "tool", "name"), problems)
    if step.approval is not None:
        add(compile_text, "approval", subject=step.approval.subject)
        add(compile_value, "approval", details=step.approval.details)
    if step.wait is not None:
        add(compile_text, "wait", duration=step.wait.duration, until=step.wait.until)
        if step.wait.duration is not None and "${" not in step.wait.duration:
            _check_duration(step.wait.duration, (*path, "wait", "duration"), problems)
    compensation = None
    if step.compensate is not None:
        own = None if ancestors is None else ancestors | {step.name}
        undo = Scope(inner.variables, own)
        compensation = compile_value(step.compensate.args, undo, (*path, "compensate", "args"), problems)
        _check_tool_name(spec, step.compensate.name, (*path, "compensate", "name"), problems)
    return CompiledStep(
        name=step.name,
        spec=step,
        ancestors=ancestors or frozenset(),
        when=when,
        items=items or None,
        texts=texts,
        compensation=compensation,
        retry=step.retry or spec.defaults.retry or Retry(),
        timeout=seconds(step.timeout or spec.defaults.timeout or DEFAULT_TIMEOUT),
        needs=_needs(*texts.values(), items or None),
        needs_to_undo=_needs(compensation, items or None),
    )


def _needs(*templates: ValueTemplate | None) -> tuple[str, ...]:
    return tuple(sorted(frozenset[str]().union(*(t.step_references for t in templates if t is not None))))


def _check_agent(spec: WorkflowSpec, step: Step, path: Path, problems: list[Problem]) -> None:
    assert step.agent is not None
    models = [model.name for model in spec.models]
    if model_of(spec, step) is None:
        name = step.agent.model or spec.defaults.model
        if name is None:
            message = (
                "no model: name one here or in spec.defaults.model"
                if models
                else "no model: declare one in spec.models"
            )
            problems.append(Problem((*path, "agent", "model"), message))
        else:
            problems.append(
                Problem((*path, "agent", "model"), f"there is no model {quoted(name)}{_nearest(name, models)}")
            )
    for number, name in enumerate(step.agent.tools):
        _check_tool_name(spec, name, (*path, "agent", "tools", number), problems)
    if step.agent.output is not None:
        problems += check_schema(step.agent.output, (*path, "agent", "output"))


def _check_tool(tool: Tool, path: Path, problems: list[Problem]) -> None:
    problems += check_schema(tool.parameters, (*path, "parameters"))
    if tool.parameters.get("type", "object") != "object":
        problems.append(
            Problem((*path, "parameters", "type"), "the arguments of a tool are an object: write type: object")
        )
    if tool.approval is not None:
        _expression(tool.approval.when, TOOL_SCOPE, (*path, "approval", "when"), problems, want="bool")
    problems += check_http(tool.http, (*path, "http"))


def _check_tool_name(spec: WorkflowSpec, name: str, path: Path, problems: list[Problem]) -> None:
    names = [tool.name for tool in spec.tools]
    if name not in names:
        problems.append(Problem(path, f"there is no tool {quoted(name)}{_nearest(name, names)}"))


def _expression(
    text: str | None, scope: Scope, path: Path, problems: list[Problem], want: Any = None
) -> Expression | None:
    if text is None:
        return None
    try:
        return compile_expression(text, scope, want)
    except ExpressionError as error:
        problems.append(Problem(path, str(error)))
        return None


def _check_duration(text: str, path: Path, problems: list[Problem]) -> None:
    try:
        seconds(text)
    except ValueError as error:
        problems.append(Problem(path, str(error)))


def _nearest(name: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f": did you mean {near[0]}?"
    return f"; there are {', '.join(sorted(known)[:10])}" if known else "; none is declared"
