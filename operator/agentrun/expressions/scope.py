"""The names of an expression: which it may use (its scope), and which it does use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache

from agentrun.api.errors import AgentrunError
from agentrun.expressions import diagnostics
from agentrun.expressions.ast import Node
from agentrun.expressions.cost import PATTERN_MAX, pattern_size

_FIELDS = {"run": frozenset({"name", "namespace", "outcome", "requestedBy"})}
_STEP_FIELDS = frozenset({"output", "state"})
ACCESS = frozenset({"_[_]", "_[?_]", "_?._", "has"})
"""The functions that read a part of a value."""

LITERAL = r"""//[^\n]*|(?<![A-Za-z0-9_])[bB]?[rR](?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n\r]*'|"[^"\n\r]*")""" + (
    r"""|'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}|'(?:[^'\\\n\r]|\\.)*'|"(?:[^"\\\n\r]|\\.)*\""""
)
"""A pattern (with DOTALL) for a comment or a string literal, in all of CEL's forms."""

_LITERALS = re.compile(LITERAL, re.DOTALL)
_STEP = re.compile(r"(?<![\w.])steps\s*\.\s*\??\s*([a-z0-9][-a-z0-9]*)")


class ExpressionError(AgentrunError):
    """An expression is invalid, or has no value for the given variables.

    ``reason`` is the message without the expression's text.
    """

    def __init__(self, reason: str, text: str = "") -> None:
        self.reason = reason
        shown = text if len(text) <= 100 else text[:100] + "…"
        super().__init__(f"{reason} (in {shown})" if text else reason)


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that an expression may use.

    ``variables``: for example ``("inputs", "steps", "run", "item")``. ``steps``: the steps that it may refer to; with
    None, that is not checked.
    """

    variables: tuple[str, ...]
    steps: Set[str] | None = None


@lru_cache(maxsize=4096)
def _doubtful_steps(text: str) -> tuple[str, ...]:
    """The texts after ``steps.`` that are meant as a step's name and are not valid identifiers in CEL."""
    if "steps" not in text:
        return ()
    bare = _LITERALS.sub(lambda literal: " " * len(literal[0]), text)
    names = [match[1].rstrip("-") for match in _STEP.finditer(bare)]
    return tuple(name for name in names if not diagnostics.is_field(name))


def misnamed_steps(text: str, scope: Scope) -> Iterator[str]:
    """The names of steps that are written after a dot and cannot be: CEL reads ``steps.sign-off`` as a subtraction."""
    if "steps" not in scope.variables:
        return
    for written in _doubtful_steps(text):
        if scope.steps is None:
            # The names are not known. A text that does not start like an identifier is certainly meant as a name.
            if not diagnostics.is_field(written.partition("-")[0]):
                yield written
            continue
        name = written
        while name not in scope.steps and "-" in name:
            name = name.rpartition("-")[0].rstrip("-")
        if name in scope.steps and not diagnostics.is_field(name):
            yield name


def references(node: Node, variables: tuple[str, ...], local: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each variable that ``node`` names, with the step if the variable is ``steps``. Raises ExpressionError."""
    match node:
        case Node("ident"):
            name = _global(node, local)
            if name == "steps":
                raise ExpressionError("steps can only be used as steps.NAME or steps['NAME']")
            if name in variables:
                yield name, ""
        case Node("select") | Node("call") if node.kind == "select" or node.name in ACCESS:
            yield from _accessed(node, variables, local)
        case Node("fold"):
            over, start, *inner = node.args
            yield from references(over, variables, local)
            yield from references(start, variables, local)
            for child in inner:
                yield from references(child, variables, local | set(node.names))
        case _:
            _check_supported(node)
            for child in node.args:
                yield from references(child, variables, local)


def _accessed(node: Node, variables: tuple[str, ...], local: frozenset[str]) -> Iterator[tuple[str, str]]:
    target, key = node.args[0], _key(node)
    if _global(target, local) == "steps":
        if not isinstance(key, str):
            raise ExpressionError("the name of the step must be literal: steps.NAME or steps['NAME']")
        yield "steps", key
        return
    if target.args and _global(target.args[0], local) == "steps":
        _check_field(f"steps.{_key(target)}", key, _STEP_FIELDS)
    elif (name := _global(target, local)) in _FIELDS:
        _check_field(name, key, _FIELDS[name])
    yield from references(target, variables, local)
    for child in node.args[1:]:
        yield from references(child, variables, local)


def _global(node: Node, local: frozenset[str]) -> str:
    """The variable that ``node`` names, unless a macro's own variable hides it."""
    return node.name.removeprefix(".") if node.kind == "ident" and node.name not in local else ""


def keys_of(variable: str, node: Node) -> frozenset[str] | None:
    """The keys of ``variable`` that ``node`` reads; None if it may read all of the variable."""
    found: set[str] = set()
    stack = [node]
    while stack:
        at = stack.pop()
        if at.kind == "ident" and at.name.removeprefix(".") == variable:
            return None
        target = at.args[0] if at.kind == "select" or (at.kind == "call" and at.name in ACCESS) else None
        if target is not None and target.kind == "ident" and target.name.removeprefix(".") == variable:
            key = _key(at)
            if not isinstance(key, str):
                return None
            found.add(key)
            stack += at.args[1:]
        else:
            stack += at.args
    return frozenset(found)


def _key(node: Node) -> object:
    return node.name if node.kind == "select" else node.args[1].value


def _check_field(owner: str, key: object, fields: frozenset[str]) -> None:
    if key not in fields:
        shown = f".{key}" if isinstance(key, str) else "[…]"
        hint = diagnostics.nearest(key, fields) if isinstance(key, str) else ""
        raise ExpressionError(f"{owner} has no {shown}, only {', '.join(sorted(fields))}{hint}")


def _check_supported(node: Node) -> None:
    if node.kind == "message":
        raise ExpressionError(f"the message {node.name} cannot be written in JSON")
    if isinstance(node.value, bytes) or (node.kind == "call" and node.name == "bytes"):
        raise ExpressionError("bytes cannot be written in JSON; use text")
    if node.kind == "call" and node.name == "matches":
        pattern = node.args[1].value
        if not isinstance(pattern, str):
            raise ExpressionError("the pattern of matches() must be a literal text")
        if pattern_size(pattern) > PATTERN_MAX:
            raise ExpressionError("the pattern of matches() is too large: use repetitions smaller than {n}")
