"""CEL expressions: compiled and checked once, evaluated often, over values that are converted once.

The language is CEL with its extensions for strings, numbers and optional values
(https://github.com/google/cel-spec/blob/master/doc/langdef.md), without the types that JSON does not have: bytes and
protobuf messages. It has no clock and no randomness. ``agentrun.expressions.templates`` re-exports the public names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from agentrun.api.texts import quoted
from agentrun.api.values import EXPRESSION_MAX, JSON
from agentrun.expressions import diagnostics
from agentrun.expressions.ast import Node, goes_through, read
from agentrun.expressions.bounded_cache import Kept
from agentrun.expressions.cost import TooExpensive, estimate, needs_estimate
from agentrun.expressions.diagnostics import Keys
from agentrun.expressions.evaluation import RESULT_MAX, TOO_LARGE, Reader, Unfit, Values, environment
from agentrun.expressions.ordered import in_order
from agentrun.expressions.scope import ACCESS, ExpressionError, Scope, keys_of, misnamed_steps, references

_TREE_MAX = 64 * 1024
"""The most bytes of a checked expression. 1,024 characters give far less, unless nested macros double the size."""

TREES_KEPT = 32 * 1024 * 1024
"""The most bytes of all compiled expressions in a process. A dropped one is compiled again when needed."""

_TREE_FACTOR, _TREE_LEAST = 10, 3 * 1024
"""The memory of a compiled expression, in bytes: for each byte of its checked form, plus a fixed part."""

_BASE, _PER_BYTE, _READ = 3_000, 20, 400
"""Units of an evaluation: a fixed part; for each byte of the checked form; for each part of the result."""

TOO_MANY = "the workflow's expressions up to here are too large together: divide it, or let steps share their results"

_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")


class Expression:
    """A compiled expression. Immutable, and safe to share between threads.

    The compiled form is in a cache of limited size. If it was dropped from there, it is compiled again.
    """

    __slots__ = (
        "_costly",
        "_path",
        "_variables",
        "input_keys",
        "references",
        "returns_bool",
        "step_references",
        "text",
        "want",
        "weight",
    )

    def __init__(self, text: str, variables: tuple[str, ...], want: Literal["bool"] | None) -> None:
        self.text = text
        self.want = want
        self._variables = variables
        compiled = _compile(text, variables)
        tree = compiled.tree
        self.weight = compiled.weight
        """Bytes of the checked form: a measure of the cost to compile and keep the expression."""
        try:
            found = frozenset(references(tree, variables, frozenset()))
        except ExpressionError as error:
            raise ExpressionError(error.reason, text) from None
        self.references: frozenset[str] = frozenset(name for name, _ in found)
        """The variables that the expression names."""
        self.step_references: frozenset[str] = frozenset(step for _, step in found if step)
        """The steps that the expression names."""
        self.input_keys = keys_of("inputs", tree) if "inputs" in self.references else frozenset()
        """The inputs that the expression reads; None if it may read any."""
        returned = compiled.returns
        self.returns_bool: bool | None = None if returned == "DYN" else returned == "BOOL"
        """False: the result is surely not a boolean. None: only the evaluation can tell."""
        if want == "bool" and self.returns_bool is False:
            raise ExpressionError(f"a condition must be true or false, but this is of type {returned.lower()}", text)
        if returned.startswith("optional_type"):
            raise ExpressionError("the result is an optional value: give a default with .orValue(…)", text)
        self._path = diagnostics.path_of(tree)
        if self._path is not None and self._path[0] not in variables:
            self._path = None  # the name of a type
        self._costly = needs_estimate(tree)

    @property
    def is_path(self) -> bool:
        """Whether the value is a part of the variables, and not computed."""
        return self._path is not None

    @property
    def tree(self) -> Node:
        """The type checker's tree."""
        return _compile(self.text, self._variables).tree

    @property
    def named(self) -> tuple[Keys, ...]:
        """The paths that it may read, without those whose existence it tests first (``has``, ``.?``, ``in``)."""
        return diagnostics.named(self.tree)

    @property
    def path(self) -> Keys | None:
        """The path, if the expression is nothing else; else None."""
        return self._path

    @property
    def is_plain(self) -> bool:
        """Whether an evaluation always evaluates every part."""
        return diagnostics.is_plain(self.tree)

    def evaluate(self, values: Values) -> JSON:
        """The value of the expression. A part of ``values`` is returned without a copy.

        Raises:
            ExpressionError: something that the expression names is missing, an operation does not fit its values, the
                evaluation would cost too much, or the result is not JSON, too large, or not the wanted boolean.
        """
        return self.measured(values)[0]

    def measured(self, values: Values) -> tuple[JSON, int]:
        """The value as ``evaluate`` returns it, and about how many bytes it has as JSON. Raises as ``evaluate``."""
        if self._path is None:
            result, size = self._computed(values)
        else:
            result, size = self._found(self._path, values)
        if self.want == "bool" and not isinstance(result, bool):
            raise ExpressionError(
                f"a condition must be true or false, but this gives {diagnostics.kind(result)}", self.text
            )
        return result, size

    def _found(self, path: Keys, values: Values) -> tuple[JSON, int]:
        # A path is read without the runtime. It is exact even for values that the runtime cannot handle, such as
        # integers beyond 64 bits.
        try:
            result = diagnostics.follow(path, values.variables)
        except LookupError as error:
            raise ExpressionError(str(error.args[0]), self.text) from None
        if result is None or isinstance(result, bool):
            return result, 5
        try:
            text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise ExpressionError(f"the value is not JSON, or nested too deeply: {error}", self.text) from None
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        values.pay(_BASE + 8 * size)
        if size > RESULT_MAX:
            raise ExpressionError(TOO_LARGE, self.text)
        return result, size

    def _computed(self, values: Values) -> tuple[JSON, int]:
        compiled = _compile(self.text, self._variables)
        tree = compiled.tree
        try:
            values.pay(_BASE + _PER_BYTE * self.weight)
            variables, unusable = values.screened()
            if unusable:
                self._refuse(tree, unusable)
            cost = 0
            if self._costly:
                cost = estimate(tree, variables, values.sizes)
                values.pay(cost)
            reader = Reader()
            result = compiled.program.eval(values.activation(cost))
            try:
                return reader.read(result), reader.size
            finally:
                values.pay(_READ * reader.parts)  # known only now; a result that is too large is not read further
        except TooExpensive:
            raise ExpressionError(
                "evaluating this would take too much work: make its lists shorter (about 1,500 elements for map and "
                "filter) or build less text in it",
                self.text,
            ) from None
        except Unfit as error:
            raise ExpressionError(str(error), self.text) from None
        except RuntimeError as error:
            raise ExpressionError(diagnostics.failed(str(error), tree, values.variables), self.text) from None

    def _refuse(self, tree: Node, unusable: Mapping[Keys, str]) -> None:
        for keys in diagnostics.paths(tree, ACCESS):
            for place, reason in unusable.items():
                common = min(len(keys), len(place))
                if keys[:common] == place[:common]:
                    raise ExpressionError(f"{diagnostics.written(place)} cannot be used: {reason}", self.text)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The runtime's program for a text, and its tree."""

    program: Any
    tree: Node
    returns: str
    weight: int


_compiled: Kept[tuple[str, tuple[str, ...]], _Compiled] = Kept(TREES_KEPT)


def _compile(text: str, variables: tuple[str, ...]) -> _Compiled:
    key = text, variables
    if (found := _compiled.get(key)) is not None:
        return found
    try:
        program = environment(variables).compile(text)
        returns = program.return_type().name()
    except RuntimeError as error:
        raise ExpressionError(diagnostics.invalid(str(error), text, variables), text) from None
    serialized: bytes = program.serialize()
    if len(serialized) > _TREE_MAX:
        raise ExpressionError("the expression is too large: a chain of optMap doubles with each link", text)
    tree = read(serialized)
    if goes_through(tree) and (ordered := in_order(serialized)) is not None:
        program = environment(variables).deserialize(ordered)
    made = _Compiled(program, tree, returns, len(serialized))
    _compiled.keep(key, made, made.weight * _TREE_FACTOR + _TREE_LEAST)
    return made


@dataclass(slots=True)
class _Tally:
    limit: int
    weight: int = 0


_tally: ContextVar[_Tally | None] = ContextVar("tally", default=None)


@contextmanager
def together(limit: int) -> Iterator[None]:
    """In this context, compiled expressions may weigh about ``limit`` together. Further ones raise ``TOO_MANY``."""
    token = _tally.set(_Tally(limit))
    try:
        yield
    finally:
        _tally.reset(token)


def compile_expression(text: str, scope: Scope, want: Literal["bool"] | None = None) -> Expression:
    """Compile and check ``text``. With ``want="bool"``, its type must be boolean or not known yet.

    Raises:
        ExpressionError: ``text`` is invalid in ``scope``, or too large.
    """
    if len(text) > EXPRESSION_MAX:
        raise ExpressionError(f"the expression has {len(text):,} characters, at most {EXPRESSION_MAX:,} are allowed")
    tally = _tally.get()
    if tally is not None and tally.weight > tally.limit:
        raise ExpressionError(TOO_MANY)
    for name in misnamed_steps(text, scope):
        raise ExpressionError(f"write steps['{name}']: {name} cannot follow a dot", text)
    expression = _expression(text, scope.variables, want)
    if tally is not None:
        tally.weight += expression.weight
    if scope.steps is not None:
        for step in sorted(expression.step_references):
            if step not in scope.steps:
                near = diagnostics.nearest(step, scope.steps)
                seen = "a step can use the steps that it depends on: dependsOn"
                raise ExpressionError(f"there is no step {step} to refer to here{near} ({seen})", text)
    return expression


def forget() -> None:
    """Drop all compiled expressions of this process. They are compiled again when needed."""
    _expression.cache_clear()
    _compiled.clear()


@lru_cache(maxsize=4096)
def _expression(text: str, variables: tuple[str, ...], want: Literal["bool"] | None) -> Expression:
    # The scope's steps are not part of the cache key, because there may be a thousand of them.
    if _NOT_TEXT.search(text):
        raise ExpressionError("the expression contains characters that are not text", quoted(text))
    return Expression(text, variables, want)
