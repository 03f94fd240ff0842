"""Checks and compiles a workflow: the graph in order, every expression type-checked once.

``compile_program`` reports all problems at once, each with its path in the document. A compiled program can be planned
without reading the text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.tools import Tool
from agentrun.api.values import seconds
from agentrun.api.workflow import Model, PodBody, Retry, Step, StepBody, WorkflowSpec
from agentrun.expressions.cel import TOO_MANY, together
from agentrun.expressions.templates import (
    Expression,
    ExpressionError,
    Scope,
    ValueTemplate,
    compile_expression,
    compile_value,
)
from agentrun.workflow.json_schema import check_schema, weight
from agentrun.workflow.names import Names, no_such
from agentrun.workflow.step_kinds import StepKind, check_tool_name, kind_of
from agentrun.workflow.tool_kinds import check_body

if TYPE_CHECKING:
    from agentrun.api.keys import StepKey

EXPRESSIONS_MAX = 2 * 1024 * 1024
"""The most bytes of all checked expressions of a workflow together: some 4,000 conditions, compiled in a second."""

SCHEMAS_MAX = 1024 * 1024
"""The most that all schemas of a workflow may weigh together (``json_schema.weight``): compiled in two seconds."""

DEFAULT_TIMEOUT = "1h"
STEP_VARIABLES = ("inputs", "steps", "run")
ITEM_VARIABLES = ("item", "index")
TOOL_SCOPE = Scope(("inputs", "run", "args"), None)


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """One step, with the compiled parts that the planner and the runner evaluate."""

    name: str
    spec: Step
    body: StepBody
    """What the step does."""
    kind: StepKind[Any]
    model: Model | None
    """The model that the step asks, if it has one."""
    ancestors: Set[str]
    """All steps that are done before this one starts. The step may use their outputs."""
    when: Expression | None
    items: ValueTemplate | None
    texts: Mapping[str, ValueTemplate]
    """The step's own templates by field: ``prompt``, ``instructions``, ``args``, ``subject``, ``details`` …"""
    compensation: ValueTemplate | None
    retry: Retry
    timeout: float
    """Seconds of active time."""
    needs: tuple[str, ...]
    """The steps whose outputs the runner reads before it begins."""
    needs_to_undo: tuple[str, ...]
    """The same for the compensation."""

    @property
    def when_per_item(self) -> bool:
        """Whether ``when`` is evaluated for each item, and not once."""
        return self.when is not None and not self.when.references.isdisjoint(ITEM_VARIABLES)

    @property
    def bodies(self) -> tuple[StepBody, ...]:
        """The step's own work, and its compensation if it has one."""
        return (self.body,) if self.spec.compensate is None else (self.body, self.spec.compensate)

    def does(self, key: StepKey) -> PodBody:
        """What an attempt at ``key`` does: the step's own work, or its compensation.

        Raises:
            ValueError: there are no such attempts: the step has no compensation, or its kind has no pod.
        """
        found = self.spec.compensate if key.compensate else self.body
        if not isinstance(found, PodBody):
            raise ValueError(f"there are no attempts at {key.label}")
        return found


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled workflow. In ``steps`` and ``finally_``, a step comes after those that it depends on."""

    spec: WorkflowSpec
    steps: Mapping[str, CompiledStep]
    finally_: Mapping[str, CompiledStep]
    output: ValueTemplate | None

    def step(self, name: str) -> CompiledStep:
        """The step of that name, in ``steps`` or ``finally_``. Raises KeyError."""
        return self.steps[name] if name in self.steps else self.finally_[name]

    def tool(self, name: str) -> Tool:
        """The tool of that name. Raises StopIteration if there is none."""
        return next(tool for tool in self.spec.tools if tool.name == name)


def compile_program(spec: WorkflowSpec, path: Path = ("spec",), *, pinned: bool = False) -> Program:
    """Check and compile ``spec``, which is at ``path`` of its document.

    ``pinned``: the workflow was checked before, so the limits on its size are not applied: an earlier version may not
    have had them.

    Raises:
        InvalidDocument: with every problem that was found.
    """
    if pinned:
        return _compile(spec, path)
    schemas: list[Any] = [spec.inputs, *(t.parameters for t in spec.tools)]
    schemas += [schema for s in (*spec.steps, *spec.finally_) for schema in kind_of(s.body).schemas(s.body)]
    if sum(weight(schema) for schema in schemas) > SCHEMAS_MAX:
        message = "its schemas, with their patterns, are too large together: divide the workflow, or shorten them"
        raise InvalidDocument([Problem(path, message)])
    with together(EXPRESSIONS_MAX):
        try:
            return _compile(spec, path)
        except InvalidDocument as error:
            # Every expression beyond the limit reports TOO_MANY. Keep only the first of these problems.
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
    if not (main_is_acyclic and last_is_acyclic):  # the ancestors are not known
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
    """Compile one step of a workflow that was checked before. The runner needs only that one.

    Raises:
        InvalidDocument: the step is invalid: the workflow was not checked before.
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
    """The steps, each with its ancestors and its path, and whether the graph is acyclic.

    Dependencies come first; beyond that, the document's order is kept.
    """
    by_name = {step.name: (number, step) for number, step in enumerate(steps)}
    acyclic = True
    for number, step in enumerate(steps):
        for place, dependency in enumerate(step.depends_on):
            where = (*path, number, "dependsOn", place)
            if dependency == step.name:
                acyclic = False
                problems.append(Problem(where, f"{step.name} depends on itself: remove this line"))
            elif dependency in elsewhere:
                problems.append(
                    Problem(
                        where, f"{dependency} is not a finally step: all main steps have ended by then; remove this"
                    )
                )
            elif dependency not in by_name:
                problems.append(Problem(where, no_such("step", dependency, by_name)))
    none = Names({name: number for name, (number, _) in by_name.items()})
    ancestors: dict[str, Names] = {}
    order: list[str] = []
    # Depth first with an explicit stack: a chain of 1,000 steps exceeds Python's recursion limit.
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
                    problems.append(
                        Problem(where, f"these steps form a cycle: {ring}; remove one of these dependencies")
                    )
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
    body, kind = step.body, kind_of(step.body)
    texts = {
        field: compiled(value, inner, (*path, kind.name, field), problems)
        for field, compiled in kind.templates.items()
        if (value := getattr(body, field)) is not None
    }
    problems += kind.check(spec, body, (*path, kind.name))
    compensation = None
    if step.compensate is not None:
        own = None if ancestors is None else ancestors | {step.name}
        undo = Scope(inner.variables, own)
        compensation = compile_value(step.compensate.args, undo, (*path, "compensate", "args"), problems)
        problems += check_tool_name(spec, step.compensate.name, (*path, "compensate", "name"))
    return CompiledStep(
        name=step.name,
        spec=step,
        body=body,
        kind=kind,
        model=kind.model(spec, body),
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


def _check_tool(tool: Tool, path: Path, problems: list[Problem]) -> None:
    problems += check_schema(tool.parameters, (*path, "parameters"))
    if tool.parameters.get("type", "object") != "object":
        problems.append(
            Problem((*path, "parameters", "type"), "the arguments of a tool must be an object: write type: object")
        )
    if tool.approval is not None:
        _expression(tool.approval.when, TOOL_SCOPE, (*path, "approval", "when"), problems, want="bool")
    problems += check_body(tool, path)


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
