"""Expressions and templates in workflows: the meaning of ``when: …`` and ``"${…}"``.

In a field that accepts any JSON, a text that is exactly one ``${…}`` has the value of its expression, of any type. In
any other text, and in a field that is a text, values are inserted: strings unchanged, everything else as JSON. ``$${``
is a literal ``${``. Inserted values are never read as templates, so a ``${`` from a model, a tool or an input stays
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from agentrun.api.errors import Path, Problem
from agentrun.api.texts import as_text
from agentrun.api.values import EXPRESSION_MAX, JSON
from agentrun.expressions import diagnostics
from agentrun.expressions.cel import Expression, compile_expression
from agentrun.expressions.cost import COST_MAX
from agentrun.expressions.evaluation import DEPTH_MAX, RESULT_MAX, Values
from agentrun.expressions.scope import LITERAL, ExpressionError, Scope

__all__ = [
    "Expression",
    "ExpressionError",
    "Scope",
    "Template",
    "TextTemplate",
    "ValueTemplate",
    "Values",
    "compile_expression",
    "compile_template",
    "compile_text",
    "compile_value",
]

EXPRESSIONS_MAX = 100
"""The most expressions in one text."""

RENDER_MAX = 4 * COST_MAX
"""The most units of all expressions of one value together."""

_OPEN = re.compile(r"\$?\$\{")
_INSIDE = re.compile(LITERAL + r"""|[{}'"]""", re.DOTALL)
_TOO_LARGE = f"the text with its inserted values is larger than {RESULT_MAX // 1024} KiB"

Escape = Callable[[str], str]


class Template:
    """A text with expressions in it. Immutable, and safe to share between threads."""

    __slots__ = ("expressions", "input_keys", "literal", "parts", "references", "step_references", "weight")

    def __init__(self, parts: tuple[str | Expression, ...]) -> None:
        self.parts = parts
        self.expressions: tuple[Expression, ...] = tuple(part for part in parts if isinstance(part, Expression))
        self.literal = not self.expressions
        """Whether the text has no expressions."""
        self.references = _union([e.references for e in self.expressions])
        self.step_references = _union([e.step_references for e in self.expressions])
        self.input_keys = _all_keys([e.input_keys for e in self.expressions])
        """The inputs that the template reads; None if it may read any."""
        self.weight = sum(e.weight for e in self.expressions)
        """The sum of the expressions' weights: see ``Expression.weight``."""

    @property
    def is_path(self) -> bool:
        """Whether the value is a part of the variables, and not computed."""
        match self.parts:
            case (Expression() as whole,):
                return whole.is_path
            case _:
                pass
        return False

    @property
    def whole(self) -> Expression | None:
        """The expression, if the template is exactly one; else None."""
        match self.parts:
            case (Expression() as whole,):
                return whole
            case _:
                pass
        return None

    def render(self, values: Values) -> JSON:
        """The value of the template: that of the expression if the template is exactly one, else a text.

        Raises:
            ExpressionError: as ``Expression.evaluate``; or the text is larger than RESULT_MAX, or its expressions take
                more than RENDER_MAX together.
        """
        return self.render_text(values) if self.whole is None else self.whole.evaluate(values)

    def render_text(self, values: Values, escape: Escape | None = None) -> str:
        """The template as a text. ``escape`` is applied to each inserted value, and not to the literal text.

        Raises:
            ExpressionError: as ``render``.
        """
        texts: list[str] = []
        total, before = 0, values.spent
        for part in self.parts:
            text = part if isinstance(part, str) else as_text(part.evaluate(values))
            if escape is not None and not isinstance(part, str):
                text = escape(text)
            total += len(text)
            if values.spent - before > RENDER_MAX:
                raise ExpressionError("its expressions take too much work together: make their lists shorter")
            if total > RESULT_MAX:
                raise ExpressionError(_TOO_LARGE)
            texts.append(text)
        return "".join(texts)


class ValueTemplate:
    """A JSON value whose texts, at any depth, are templates; keys are literal. Immutable, safe between threads."""

    __slots__ = ("_shape", "input_keys", "literal", "references", "step_references", "weight")

    def __init__(self, shape: JSON, templates: list[Template]) -> None:
        self._shape = shape
        self.literal = not templates
        """Whether the value has no expressions."""
        self.references = _union([t.references for t in templates])
        self.step_references = _union([t.step_references for t in templates])
        self.input_keys = _all_keys([t.input_keys for t in templates])
        """The inputs that the templates read; None if they may read any."""
        self.weight = sum(t.weight for t in templates)
        """The sum of the expressions' weights: see ``Expression.weight``."""

    @property
    def is_path(self) -> bool:
        """Whether the value is literal or a part of the variables, and not computed."""
        return self.literal or (isinstance(self._shape, Template) and self._shape.is_path)

    def render(self, values: Values) -> JSON:
        """The value with its templates rendered. Parts of ``values`` that are inserted whole are not copied.

        Raises:
            ExpressionError: as ``Template.render``; or the inserted values are larger than RESULT_MAX together.
        """
        return _Rendering(values).render(self._shape)

    def texts(self, path: Path = ()) -> Iterator[tuple[Path, Template]]:
        """Each template in the value, with its place below ``path``."""
        ahead: list[tuple[Path, JSON]] = [(path, self._shape)]
        while ahead:
            place, shape = ahead.pop()
            if isinstance(shape, Template):
                yield place, shape
            elif isinstance(shape, dict):
                ahead += [((*place, key), part) for key, part in reversed(shape.items())]
            elif isinstance(shape, list):
                ahead += [((*place, at), part) for at, part in reversed(list(enumerate(shape)))]

    @property
    def outline(self) -> JSON:
        """The literal parts of the value, with "" for each template that gives a text and null for any other one."""
        return _outline(self._shape)


class TextTemplate(ValueTemplate):
    """The template of a text field, such as a prompt. Its value becomes text even if it is exactly one ``${…}``."""

    def render(self, values: Values) -> str:
        """The text.

        Raises:
            ExpressionError: as ``ValueTemplate.render``.
        """
        return as_text(super().render(values))


def _outline(shape: JSON) -> JSON:
    if isinstance(shape, dict):
        return {key: _outline(part) for key, part in shape.items()}
    if isinstance(shape, list):
        return [_outline(part) for part in shape]
    if isinstance(shape, Template):
        return "" if shape.whole is None else None
    return shape


class _Rendering:
    """One rendering of a value. It adds up the sizes of all inserted values."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._size = 0
        self._before = values.spent

    def render(self, shape: JSON) -> JSON:
        if isinstance(shape, dict):
            return {key: self.render(part) for key, part in shape.items()}
        if isinstance(shape, list):
            return [self.render(part) for part in shape]
        if not isinstance(shape, Template):
            return shape
        if shape.whole is not None:
            value, size = shape.whole.measured(self._values)
        else:
            value = shape.render_text(self._values)
            size = len(value)
        self._size += size
        if self._values.spent - self._before > RENDER_MAX:
            raise ExpressionError("its expressions take too much work together: make their lists shorter")
        if self._size > RESULT_MAX:
            raise ExpressionError(f"the inserted values are larger than {RESULT_MAX // 1024} KiB altogether")
        return value


def _union(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    return sets[0] if len(sets) == 1 else frozenset[str]().union(*sets)  # most texts hold one expression


def _all_keys(found: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    keys = [some for some in found if some is not None]
    return _union(keys) if len(keys) == len(found) else None


def compile_template(text: str, scope: Scope) -> Template:
    """Compile the template ``text``. All its expressions are checked in ``scope``.

    Raises:
        ExpressionError: a ``${`` is not closed, an expression is invalid, or there are more than EXPRESSIONS_MAX.
    """
    parts: list[str | Expression] = []
    expressions = 0
    for literal, expression in _split(text):
        if expression is None:
            parts.append(literal)
            continue
        expressions += 1
        if expressions > EXPRESSIONS_MAX:
            raise ExpressionError(f"there are more than {EXPRESSIONS_MAX} expressions in one text")
        parts += [literal] * bool(literal)
        try:
            parts.append(compile_expression(expression, scope))
        except ExpressionError as error:
            raise ExpressionError(error.reason + diagnostics.meant(expression, scope.variables), expression) from None
    return Template(tuple(part for part in parts if part != ""))


def compile_value(value: JSON, scope: Scope, path: Path, problems: list[Problem]) -> ValueTemplate:
    """Compile each text in ``value``. Problems are added to ``problems``, with their paths below ``path``.

    The result can be rendered only if there were no problems.
    """
    return ValueTemplate(*_compiled(value, scope, path, problems))


def compile_text(text: str, scope: Scope, path: Path, problems: list[Problem]) -> TextTemplate:
    """Like ``compile_value``, for a field that is a text."""
    return TextTemplate(*_compiled(text, scope, path, problems))


def _compiled(value: JSON, scope: Scope, path: Path, problems: list[Problem]) -> tuple[JSON, list[Template]]:
    templates: list[Template] = []

    def compiled(part: JSON, place: Path) -> JSON:
        if isinstance(part, (dict, list)) and len(place) - len(path) >= DEPTH_MAX:
            problems.append(Problem(place, f"this is nested deeper than {DEPTH_MAX} levels"))
        elif isinstance(part, dict):
            return {key: compiled(inner, (*place, key)) for key, inner in part.items()}
        elif isinstance(part, list):
            return [compiled(inner, (*place, at)) for at, inner in enumerate(part)]
        elif not isinstance(part, str):
            return part
        else:
            try:
                template = compile_template(part, scope)
            except ExpressionError as error:
                problems.append(Problem(place, str(error)))
                return None
            if template.literal:
                return "".join(str(text) for text in template.parts)
            templates.append(template)
            return template
        return None

    return compiled(value, path), templates


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """Each expression in ``text`` with the literal text before it; at the end the remaining text with None."""
    literal, at = "", 0
    while found := _OPEN.search(text, at):
        literal += text[at : found.start()]
        if len(found[0]) == 3:
            literal, at = literal + "${", found.end()
            continue
        end = _end(text, found.end())
        if not text[found.end() : end].strip():
            raise ExpressionError(f"the ${{}} at {_place(text, found.start())} is empty; write $${{ for a literal ${{")
        yield literal, text[found.end() : end]
        literal, at = "", end + 1
    yield literal + text[at:], None


def _end(text: str, start: int) -> int:
    """The position of the brace that closes the expression at ``start``."""
    depth = 0
    limit = start + EXPRESSION_MAX + 1
    for token in _INSIDE.finditer(text, start, limit):
        match token[0]:
            case "{":
                depth += 1
            case "}" if depth == 0:
                return token.start()
            case "}":
                depth -= 1
            case "'" | '"' if len(text) < limit or "\n" in text[token.start() : limit]:
                place = _place(text, token.start())
                raise ExpressionError(f"the quote at {place} is not closed, in the ${{ at {_place(text, start - 2)}")
    within = f" within {EXPRESSION_MAX:,} characters" if len(text) >= limit else ""
    raise ExpressionError(
        f"the ${{ at {_place(text, start - 2)} is not closed{within}: add a }}, or write $${{ for a literal ${{"
    )


def _place(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return f"line {line} column {column}" if "\n" in text.strip() else f"column {column}"
