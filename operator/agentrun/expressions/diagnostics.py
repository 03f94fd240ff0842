"""Turns the CEL runtime's messages about an expression into messages that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeGuard

from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.expressions.ast import Node

Keys = tuple[str | int, ...]
"""A path: a variable's name, followed by keys."""

_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")
_TOO_DEEP = re.compile(
    r"CANCELLED: Expression recursion limit|INVALID_ARGUMENT: ERROR: <input>:-1:-1: Exceeded max rec"
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        "in null true false as break const continue else for function if import let loop package namespace return "
        "var void while",
    )
)
_TYPES = {"int64": "int", "uint64": "uint", "null_type": "null", "map": "object"}


def written(keys: Keys) -> str:
    """``keys`` as an expression: ``steps['sign-off'].output.items[0]``."""
    text = ""
    for key in keys[:12]:
        if not text:
            text = str(key)
        elif isinstance(key, str) and is_field(key):
            text += f".{key}"
        else:
            text += f"[{key}]" if isinstance(key, int) else "['" + key.replace("\\", "\\\\").replace("'", "\\'") + "']"
    return text + "…" * (len(keys) > 12)


def is_field(name: str) -> bool:
    """Whether ``name`` can be written after a dot."""
    return bool(_PLAIN.match(name)) and name not in _RESERVED


def nearest(name: str, names: Collection[str]) -> str:
    """A hint with the most similar name; empty if there is none."""
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def path_of(node: Node, through: Collection[str] = ("_[_]",)) -> Keys | None:
    """The path of ``node``, if it is only a path: ``steps.triage.output``, ``inputs.items[0]``; else None.

    ``through`` names the functions whose second argument is a key.
    """
    keys: list[str | int] = []
    while node.kind != "ident":
        if node.kind == "select":
            keys.append(node.name)
        elif node.kind == "call" and node.name in through and _is_key(key := node.args[1].value):
            keys.append(key)
        else:
            return None
        node = node.args[0]
    return (node.name.removeprefix("."), *reversed(keys))


def paths(node: Node, through: Collection[str] = ("_[_]",)) -> Iterator[Keys]:
    """The longest paths in ``node``, in the form of ``path_of``."""
    if (keys := path_of(node, through)) is not None:
        yield keys
    else:
        for child in node.args:
            yield from paths(child, through)


_OPTIONAL = frozenset({"has", "@in"})
_CONDITIONAL = frozenset({"_?_:_", "_&&_", "_||_", "@not_strictly_false"})


def named(node: Node) -> tuple[Keys, ...]:
    """The paths that an evaluation of ``node`` may read, without those whose existence it tests: ``has(inputs.x)``,
    ``inputs.?x``, ``'x' in inputs``.
    """
    found: dict[Keys, None] = {}
    asked: set[Keys] = set()
    _read(node, frozenset(), found, asked)
    return tuple(keys for keys in found if not any(keys[: len(first)] == first for first in asked))


def _read(node: Node, local: frozenset[str], found: dict[Keys, None], asked: set[Keys]) -> None:
    keys = path_of(node)
    if keys is not None:
        if keys[0] not in local:
            found[keys] = None
        return
    if node.kind == "call" and node.name in _OPTIONAL:
        owner, key = (node.args[0], node.args[1]) if node.name == "has" else (node.args[1], node.args[0])
        if (owned := path_of(owner)) is not None and _is_key(key.value):
            asked.add((*owned, key.value))
    inner = local | frozenset(node.names) if node.kind == "fold" else local
    for child in node.args:
        _read(child, inner, found, asked)


def is_plain(node: Node) -> bool:
    """Whether an evaluation of ``node`` evaluates every part of it: it has no conditions and no macros that iterate."""
    if node.kind == "fold" or (node.kind == "call" and node.name in _CONDITIONAL):
        return False
    return all(is_plain(child) for child in node.args)


def constants(node: Node) -> Iterator[str]:
    """The constant parts of ``node`` as expressions without variables: one that fails would fail for all values."""
    text = node.args[-1].value if node.kind == "call" and node.args else None
    if isinstance(text, str) and "\0" not in text:
        if node.name in ("timestamp", "duration"):
            yield f"{node.name}({_literal(text)})"
        elif node.name == "matches":
            yield f"''.matches({_literal(text)})"
    for child in node.args:
        yield from constants(child)


def _literal(text: str) -> str:
    return "'" + re.sub(r"[\\'\n\r]", lambda found: f"\\x{ord(found[0]):02x}", text) + "'"


def _is_key(value: object) -> TypeGuard[str | int]:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def follow(keys: Keys, values: Mapping[str, JSON]) -> JSON:
    """The value at ``keys``.

    Raises:
        LookupError: there is no such value. The argument says what is missing.
    """
    if keys[0] not in values:
        raise LookupError(f"{keys[0]} has no value here")
    value: JSON = values[str(keys[0])]
    for at, key in enumerate(keys[1:], 1):
        if isinstance(value, dict) and isinstance(key, str):
            if key not in value:
                raise LookupError(f"{written(keys[: at + 1])} is missing" + nearest(key, value.keys()))
        elif isinstance(value, list) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise LookupError(f"{written(keys[: at + 1])} is missing: the list has {len(value)} elements")
        else:
            raise LookupError(f"{written(keys[: at + 1])} is missing: {written(keys[:at])} is {kind(value)}")
        value = value[key]
    return value


def invalid(message: str, text: str, variables: Collection[str]) -> str:
    """What is wrong with ``text``, whose compilation failed with ``message``."""
    if _TOO_DEEP.match(message):
        return "it is nested too deeply: at most 32 levels, and each operator of a chain such as a + b + c is one"
    if found := re.search(r"Unsupported map key type: (?!DYN)(\w+)|Invalid map key type: '(\w+)'", message):
        return _no_key((found[1] or found[2]).lower())
    found = _ERROR.search(message)
    if found is None:
        return _bare(message)
    line, column, what = int(found[1]), int(found[2]), found[3]
    reason, hint = _compiler(what, text, line, column, variables)
    return reason + _place(line, column, text) + (hint or _other_language(reason, text))


def failed(message: str, node: Node, values: Mapping[str, JSON]) -> str:
    """Why the evaluation of ``node`` over ``values`` failed with ``message``."""
    text = re.sub(r"^[A-Z_]+: ", "", message)
    if found := re.match(r'Key not found in map : (?:"(.*)"|(.*))$', text, re.DOTALL):
        key = found[1] if found[1] is not None else found[2]
        return _missing(key, node, values) or f"there is no {quoted(key)} in the object"
    if found := re.match(r"No matching overloads found : (.*)$", text, re.DOTALL):
        return _no_overload(found[1])
    if found := re.match(r'No value with name "(.*)" found', text):
        return f"{found[1]} has no value here"
    if found := re.match(r"Index error: index=(-?\d+) size=(\d+)", text):
        return f"there is no [{found[1]}]: the list has {found[2]} elements"
    if text.startswith("String to Timestamp"):
        return "the argument of timestamp() is not an instant: write RFC 3339, for example '2027-01-31T09:00:00Z'"
    if text.startswith("String to Duration"):
        return "the argument of duration() is not a duration: write for example '90s' or '1h30m'"
    if text.startswith("Applying SELECT"):
        return _missing(None, node, values) or "a field is read from a value that is not an object"
    if found := re.match(r"Invalid map key type: '(\w+)'", text):
        return _no_key(found[1])
    if text.startswith("Iteration budget exceeded"):
        return "it takes more than 10,000 iterations"
    return _bare(message)


def _no_key(kind: str) -> str:
    return f"the key of an object must be a text, but this one is of type {_TYPES.get(kind, kind)}"


def _compiler(what: str, text: str, line: int, column: int, variables: Collection[str]) -> tuple[str, str]:
    """The compiler's message in plain words, and a hint or ""."""
    if found := re.match(r"undeclared reference to '(.*)' \(in container", what):
        name = found[1].partition(".")[0]
        if "".join(text.split("\n")[line - 1 : line])[column - 1 : column] == "(":
            return f"there is no function {name}", ""
        known = ", ".join(sorted(variables)) or "nothing"
        hint = _hyphenated(text, line, column) or nearest(name, variables)
        return f"{name} is not known here, only {known}", hint
    if found := re.match(r"found no matching overload for '(.*)' applied to '\((.*)\)'", what):
        return _no_overload(f"{found[1]}({found[2]})"), ""
    if found := re.match(r"Syntax error: (?:mismatched|extraneous) input '(.*?)' expecting", what):
        return "the expression ends too early" if found[1] == "<EOF>" else f"{quoted(found[1])} is unexpected", ""
    if found := re.match(r"Syntax error: no viable alternative at input '(.*)'", what):
        return f"{quoted(found[1])} is unexpected", ""
    if found := re.match(r"Syntax error: token recognition error at: '(.*)'", what):
        unclosed = found[1][:1] in ("'", '"')
        return (
            f"{quoted(found[1])} is not understood",
            "; is the quote closed, are its escapes valid?" if unclosed else "",
        )
    if found := re.match(r"Syntax error: missing (.*) at '(.*)'", what):
        return f"{found[1]} is missing before " + ("the end" if found[2] == "<EOF>" else quoted(found[2])), ""
    if found := re.match(r"reserved identifier: (.*)", what):
        return f"{quoted(found[1])} is a reserved word", ""
    return _bare(what.removeprefix("Syntax error: ")), ""


_OTHER_LANGUAGES = (
    (re.compile(r"^\s*\$\{"), '"$', "this field is an expression by itself: write it without ${ }"),
    (re.compile(r"\band\b"), '"and"', "write && for and"),
    (re.compile(r"\bor\b"), '"or"', "write || for or"),
    (re.compile(r"\bnot\b"), '"', "write ! for not"),
    (re.compile(r"[^=!<>]={1,3}(?!=)"), '"=', "write == to compare"),
    (re.compile(r"&"), '"&', "write && for and"),
    (re.compile(r"\|"), '"|', "write || for or; there are no filters"),
    (re.compile(r"\bNone\b"), "None is not", "write null"),
    (re.compile(r"\bTrue\b"), "True is not", "write true"),
    (re.compile(r"\bFalse\b"), "False is not", "write false"),
    (re.compile(r"\blen\("), "there is no function len", "write size(x)"),
)
"""A form of other languages, the beginning of the message that it causes, and what to write instead."""


def _other_language(reason: str, text: str) -> str:
    """A hint if the compiler refused a form of another language; else ""."""
    for form, beginning, remedy in _OTHER_LANGUAGES:
        if reason.startswith(beginning) and form.search(text):
            return f"; {remedy}"
    return ""


def meant(expression: str, variables: Collection[str]) -> str:
    """A hint for a ``${…}`` that is not a valid expression and perhaps was not meant as one."""
    text = expression.strip()
    if text.startswith("{"):
        return "; ${{ … }} is the syntax of another tool: agentrun's is ${inputs.NAME}; write $${{ for a literal ${{"
    root = re.match(r"\w*", text)
    if root and (root[0] in variables or nearest(root[0], variables)):
        return ""  # one of ours, with a mistake in it
    shown = text if len(text) <= 40 and text.isprintable() else "…"
    hint = f"; write $${{{shown}}} for a literal ${{{shown}}}"
    if _ENVIRONMENT.match(text):
        hint += "; environment variables are not available here: pass the value as an input"
    return hint


_ENVIRONMENT = re.compile(r"[#!]?[A-Z_][A-Z0-9_]*(?![\w.(\[])|env\.")
"""The beginning of the name of an environment variable in a shell."""


def _hyphenated(text: str, line: int, column: int) -> str:
    """A hint if a name with hyphens is written after a dot, which CEL reads as a subtraction.

    ``line`` and ``column`` are the place of the part after a hyphen that the compiler does not know.
    """
    whole = "".join(text.split("\n")[line - 1 : line])
    before = re.search(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)\.([A-Za-z_]\w*(?:-\w+)*-)$", whole[: column - 1])
    rest = re.match(r"\w+(?:-\w+)*", whole[column - 1 :])
    if before is None or rest is None:
        return ""
    name = before[2] + rest[0]
    return f"; - subtracts: for the field {name} write {before[1]}['{name}']"


def _place(line: int, column: int, text: str) -> str:
    if line < 1 or column < 1:
        return ""
    return f", at line {line} column {column}" if "\n" in text.strip() else f", at column {column}"


def _no_overload(call: str) -> str:
    # Either name(argument, …) or (target).name(argument, …).
    if method := re.match(r"\((.*?)\)\.(\w+)\((.*)\)$", call):
        call = f"{method[2]}({', '.join(filter(None, (method[1], method[3])))})"
    name, _, arguments = call.partition("(")
    plain = re.sub(r"\b(map|list)\([^()]*(?:\([^()]*\))?[^()]*\)", r"\1", arguments.removesuffix(")"))
    types = [_TYPES.get(part, part) for part in plain.split(", ")]
    if name in ("_?_:_", "<jump_condition>"):
        if types[:1] in (["bool"], ["dyn"]):
            return f"both results of ?: must have one type, not {types[1]} and {types[-1]}: wrap them in dyn()"
        return "the condition before ? must be true or false"
    if name in ("_&&_", "_||_", "!_"):
        return f"{name.strip('_')} takes only true and false"
    operator = name.strip("_@") if re.match(r"_.*_|-_|@in", name) else f"{name}()"
    hint = ": write 1.0 for 1, or double(x) for x" if {"int", "double"} <= set(types) else ""
    return f"{operator} does not take " + (" and ".join(types) if types != [""] else "these values") + hint


def _missing(key: str | None, node: Node, values: Mapping[str, JSON]) -> str:
    for keys in paths(node):
        if keys[0] in values and (key is None or key in keys):
            try:
                follow(keys, values)
            except LookupError as error:
                return str(error)
    return ""


def kind(value: JSON) -> str:
    """The type of ``value`` in words."""
    for kind, name in ((bool, "a boolean"), (str, "a string"), (dict, "an object"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "a number"


def _bare(message: str) -> str:
    text = message.split("\n", 1)[0]
    text = re.sub(r"^[A-Z_]+: |^ERROR: (?:<input>:-?\d+:-?\d+: )?| \[[A-Z_]+\]$", "", text)
    return re.sub(r"^ERROR: (?:<input>:-?\d+:-?\d+: )?", "", text) or "the expression is invalid"
