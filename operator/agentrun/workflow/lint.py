"""Reports, before the first effect of a run, what will surely fail or looks like a mistake.

``compile_program`` refuses invalid workflows. The lints find what is valid but would fail a step after other steps have
paid, booked or sent something: arguments that do not fit the schema of their tool, a field that a closed schema does
not have, an invalid instant. They are applied to new runs only: an existing run continues as it was accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain

from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.texts import quoted
from agentrun.api.tools import Tool, ToolCall
from agentrun.api.values import JSON
from agentrun.api.workflow import Step, WorkflowSpec
from agentrun.expressions import diagnostics
from agentrun.expressions.diagnostics import Keys
from agentrun.expressions.templates import (
    Expression,
    ExpressionError,
    Scope,
    Template,
    Values,
    ValueTemplate,
    compile_expression,
)
from agentrun.workflow import shapes
from agentrun.workflow.address import check_endpoints
from agentrun.workflow.fitting import Fitting
from agentrun.workflow.network_guard import forbidden_url
from agentrun.workflow.program import CompiledStep, Program, compile_program
from agentrun.workflow.shapes import ANYTHING, Shape
from agentrun.workflow.step_kinds import kind_of
from agentrun.workflow.tool_kinds import address_of, expressions_of
from agentrun.workflow.tool_kinds import kind_of as tool_kind_of

_OTHER_FORMS = (
    (re.compile(r"\{\{.*?\}\}", re.DOTALL), "{{ … }}"),
    (re.compile(r"\{%.*?%\}", re.DOTALL), "{% … %}"),
    (re.compile(r"\$\([A-Za-z_]\w*\)"), "$(NAME)"),
    (re.compile(r"%[A-Z_][A-Z0-9_]+%"), "%NAME%"),
)
"""How other tools write a value to be inserted. agentrun treats it as ordinary text."""

_Named = Iterator[tuple[Path, Expression]]
"""Expressions, each with its path."""


def checked_program(spec: WorkflowSpec, path: Path = ("spec",)) -> Program:
    """Compile a workflow before its run: like ``compile_program``, but what will surely fail is refused too.

    Raises:
        InvalidDocument: with every problem that was found.
    """
    program = compile_program(spec, path)
    problems = [*check_endpoints(spec, path), *_guarded(spec, path), *_calls(program, path), *_each_step(program, path)]
    if problems := [*problems, *_names(program, path)]:
        raise InvalidDocument(problems)
    return program


def absent_inputs(program: Program, inputs: Mapping[str, JSON], path: Path = ("spec",)) -> Iterator[Problem]:
    """The inputs that the workflow names and ``inputs`` lacks. A run may never evaluate them, so these are warnings."""
    everywhere = (_of_step(step, place) for step, place in _steps(program, path))
    for where, expression in chain(*everywhere, _of_output(program, path)):
        for keys in expression.named:
            if keys[0] == "inputs" and len(keys) > 1 and (missing := _absent(keys, inputs)):
                yield Problem(where, f"{missing} in the run's inputs (in {_shown(expression)})")


def other_forms(spec: WorkflowSpec, path: Path = ("spec",)) -> Iterator[Problem]:
    """Texts into which another tool would insert a value, and agentrun does not."""
    for name, steps in (("steps", spec.steps), ("finally", spec.finally_)):
        for number, step in enumerate(steps):
            for place, body in ((kind_of(step.body).name, step.body), ("compensate", step.compensate)):
                if body is not None:
                    raw = body.model_dump(mode="json", by_alias=True, include=set(kind_of(body).templates))
                    yield from _forms(raw, (*path, name, number, place))


def _forms(value: JSON, place: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _forms(part, (*place, key))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from _forms(part, (*place, at))
    elif isinstance(value, str):
        for form, name in _OTHER_FORMS:
            if hit := form.search(value):
                said = f"{quoted(hit[0], 40)} is not replaced: {name} is the syntax of another tool"
                yield Problem(place, f"{said}, agentrun's is ${{inputs.NAME}}")


# -- where expressions stand -------------------------------------------------------------------------------------------


def _steps(program: Program, path: Path) -> Iterator[tuple[CompiledStep, Path]]:
    for number, step in enumerate(program.spec.steps):
        yield program.steps[step.name], (*path, "steps", number)
    for number, step in enumerate(program.spec.finally_):
        yield program.finally_[step.name], (*path, "finally", number)


def _of_step(step: CompiledStep, place: Path) -> _Named:
    if step.when is not None:
        yield (*place, "when"), step.when
    if step.items is not None:
        yield from _inside(step.items, (*place, "forEach", "items"))
    for name, value in step.texts.items():
        yield from _inside(value, (*place, step.kind.name, name))
    if step.compensation is not None:
        yield from _inside(step.compensation, (*place, "compensate", "args"))


def _of_output(program: Program, path: Path) -> _Named:
    if program.output is not None:
        yield from _inside(program.output, (*path, "output"))


def _inside(value: ValueTemplate, place: Path) -> _Named:
    for where, template in value.texts(place):
        yield from _of_text(template, where)


def _of_text(template: Template, place: Path) -> _Named:
    return ((place, expression) for expression in template.expressions)


# -- steps and their arguments -----------------------------------------------------------------------------------------


def _each_step(program: Program, path: Path) -> Iterator[Problem]:
    for step, place in _steps(program, path):
        yield from step.kind.lint(step.body, step.texts, (*place, step.kind.name))


def _guarded(spec: WorkflowSpec, path: Path) -> Iterator[Problem]:
    """Tools whose host is written as an address to which no request goes."""
    for number, tool in enumerate(spec.tools):
        if (why := forbidden_url(address_of(tool))) is not None:
            yield Problem((*path, "tools", number, tool_kind_of(tool).name), why)


def _calls(program: Program, path: Path) -> Iterator[Problem]:
    """Arguments that do not fit the schema of their tool, or lack what its request names, whatever their templates
    give.
    """
    fitting = Fitting()
    needed = {tool.name: _needed(tool) for tool in program.spec.tools}
    for step, place in _steps(program, path):
        for call, args, kind in (
            (step.body, step.texts.get("args"), step.kind.name),
            (step.spec.compensate, step.compensation, "compensate"),
        ):
            if not isinstance(call, ToolCall) or args is None:
                continue
            where = (*place, kind, "args")
            for inside, message in fitting.misfits(args, program.tool(call.name)):
                said = f"{message}: the arguments do not fit the parameters of tool {call.name}"
                yield Problem((*where, *inside), said)
            for name in needed[call.name]:
                if name not in call.args:
                    yield Problem(where, _lacking(name, call))


def _needed(tool: Tool) -> list[str]:
    """The arguments that every call of the tool reads."""
    named = (keys for _, e in expressions_of(tool, ()) if e.is_plain for keys in e.named)
    return list(dict.fromkeys(str(keys[1]) for keys in named if keys[0] == "args" and len(keys) > 1))


def _lacking(name: str, call: ToolCall) -> str:
    given = ", ".join(call.args) or "nothing"
    hint = diagnostics.nearest(name, call.args)
    return f"{name} is missing, but the request of tool {call.name} uses it; given: {given}{hint}"


# -- what expressions name ---------------------------------------------------------------------------------------------


def _names(program: Program, path: Path) -> Iterator[Problem]:
    """Names of fields that a closed schema does not have, and of fields of values that are not objects."""
    spec = program.spec
    known: dict[Keys, Shape] = {("inputs",): spec.inputs}
    for number, tool in enumerate(spec.tools):
        of_call = known | {("args",): tool.parameters}
        yield from _missing(expressions_of(tool, (*path, "tools", number)), of_call)
    for declared in (*spec.steps, *spec.finally_):
        known["steps", declared.name, "output"] = _output(declared)
    for step, place in _steps(program, path):
        yield from _missing(_of_step(step, place), known | {("item",): _item(step, known)})
    yield from _missing(_of_output(program, path), known)


def _missing(expressions: _Named, known: Mapping[Keys, Shape]) -> Iterator[Problem]:
    for where, expression in expressions:
        yield from _failing(where, expression)
        for keys in expression.named:
            if missing := _place(keys, known)[1]:
                yield Problem(where, f"{missing} (in {_shown(expression)})")


def _failing(where: Path, expression: Expression) -> Iterator[Problem]:
    """The parts of ``expression`` that fail for all values: an invalid instant, duration or pattern, ``1 / 0``."""
    if not expression.is_plain:
        return
    for text in diagnostics.constants(expression.tree) if expression.references else [expression.text]:
        try:
            compile_expression(text, Scope(())).evaluate(Values({}))
        except ExpressionError as error:
            yield Problem(where, f"{error.reason} (in {_shown(expression)})")


def _place(keys: Keys, known: Mapping[Keys, Shape]) -> tuple[Shape, str]:
    for start in (1, 3):
        if keys[:start] in known:
            return shapes.place(known[keys[:start]], keys, start)
    return ANYTHING, ""


def _output(step: Step) -> Shape:
    """The schema of a step's output if it succeeds, as far as it is known."""
    shape = kind_of(step.body).output(step.body)
    return {"type": "array", "items": shape} if step.for_each is not None else shape


def _item(step: CompiledStep, known: Mapping[Keys, Shape]) -> Shape:
    """The schema of an item of the step's fan-out, as far as it is known."""
    for where, template in step.items.texts() if step.items is not None else ():
        if where == () and template.whole is not None and template.whole.path is not None:
            shape, _ = _place(template.whole.path, known)
            return shape.get("items", ANYTHING) if isinstance(shape, dict) and "prefixItems" not in shape else ANYTHING
    return ANYTHING


def _absent(keys: Keys, inputs: Mapping[str, JSON]) -> str:
    """What is missing on the path ``keys``; empty if nothing is."""
    try:
        diagnostics.follow(keys, {"inputs": inputs})
    except LookupError as error:
        return str(error.args[0])
    return ""


def _shown(expression: Expression) -> str:
    return expression.text if len(expression.text) <= 100 else expression.text[:100] + "…"
