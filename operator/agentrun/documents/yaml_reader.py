"""YAML, from an untrusted file, as plain JSON values that know the lines they stand on.

The text is read as libyaml's *events*, not as its tree: nothing recurses, nesting is refused before it grows, and an
alias is a reference to a value that was built once, whose expanded size is counted before anything expands it.
(It is also three times as fast as composing a tree of nodes.)

``agentrun.documents.yaml_scalars`` says what a scalar without quotes means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Never

import yaml

from agentrun.api.bounds import MAX_DEPTH, MAX_VALUES
from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.texts import shown
from agentrun.documents.yaml_scalars import LETTERS, Disputed, scalar

MAX_TEXT = 4 * 1024 * 1024
"""Characters of text in one file; an alias counts as all that it stands for."""

_REASONS = {
    "mapping values are not allowed in this context": (
        "a colon is not allowed here: check the indentation of this line and the one before, or put the text in quotes"
    ),
    "did not find expected key": "a key is expected here: check the indentation, and that each quote is closed",
    "did not find expected '-' indicator": "an item of the list is expected here: check the indentation",
    "could not find expected ':'": 'a "key: value" is expected here: a colon is missing, or a quote is not closed',
    "did not find expected ',' or ']'": "a , or ] is expected here: the list in brackets is not closed",
    "did not find expected ',' or '}'": "a , or } is expected here: the object in braces is not closed",
    "found unexpected end of stream": "the quotes that open here are not closed: close them",
    "did not find expected node content": (
        "a value is expected here: a bracket is not closed, or there is one comma too many"
    ),
}
_TWO_BRACES = "; to write {{ … }} in a text, put the whole text in quotes (agentrun's own form is ${inputs.NAME})"
_SURROGATES = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)
_BREAKS = {0x85: "\\N", 0x2028: "\\L", 0x2029: "\\P"}
"""Line breaks to YAML, letters like any other to JSON: escaped, they are not folded."""


@dataclass(slots=True)
class Node:
    """A value and where it stands; ``children`` has the places inside a list or an object."""

    value: Any
    line: int
    children: dict[str, Node] | list[Node] | None = None
    values: int = 1
    text: int = 0
    height: int = 0
    doubts: tuple[Problem, ...] = ()
    """Of a document: what kubectl reads as something else, each such text where it stands first."""

    def line_of(self, path: Path) -> int:
        """The 1-based line of what ``path`` leads to, or of the last part of it that is there."""
        node = self
        for part in path:
            try:
                node = node.children[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return node.line

    def lines(self) -> dict[Path, int]:
        """The line of each path, this value's own under ``()``."""
        found: dict[Path, int] = {}

        def visit(node: Node, path: Path) -> None:
            found[path] = node.line
            if isinstance(node.children, dict):
                for key, child in node.children.items():
                    visit(child, (*path, key))
            else:
                for index, child in enumerate(node.children or ()):
                    visit(child, (*path, index))

        visit(self, ())
        return found


@dataclass(slots=True)
class _Open:
    """A list or an object whose end has not been read."""

    node: Node
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    merges: list[Node] | None = None
    merging: bool = False


def read(text: str, source: str) -> list[Node]:
    """The documents in ``text``, a file of YAML or JSON; empty ones are left out.

    Raises:
        InvalidDocument: with the first thing that is wrong, its line and its path.
    """
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        text = _SURROGATES.sub(_joined, text).translate(_BREAKS)
    builder = _Builder(source)
    if directive := re.search(r"^%TAG\b", text, re.MULTILINE):
        # libyaml compares each one with all before it: a file full of them takes minutes
        builder.refuse("the directive %TAG is not allowed: remove it", text.count("\n", 0, directive.start()) + 1)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        _explain(error, text, builder)
    except yaml.YAMLError as error:
        builder.refuse(f"not valid YAML: {shown(str(error), 200)}", 1)
    return builder.documents


def _joined(found: re.Match[str]) -> str:
    r"""JSON writes a character beyond U+FFFF as two escapes (``\ud83d\ude00``); YAML has one for it."""
    if found[1] is None:
        return found[0]
    return f"\\U{0x10000 + (int(found[1], 16) - 0xD800) * 0x400 + int(found[2], 16) - 0xDC00:08x}"


def _explain(error: yaml.MarkedYAMLError, text: str, builder: _Builder) -> Never:
    unended = error.problem == "found unexpected end of stream"
    mark = error.context_mark if unended and error.context_mark else error.problem_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    reason = _REASONS.get(error.problem or "", error.problem or str(error))
    if error.problem == "found character that cannot start any token":
        lines = text.split("\n", line + 1)
        at = lines[line][column : column + 1] if line < len(lines) else ""
        reason = (
            "a tab is not allowed as indentation: use spaces"
            if at == "\t"
            else f"the character {shown(at)} cannot begin a value: put the value in quotes"
        )
    if error.context_mark and error.context_mark.line < line:
        reason += f" (inside the part that begins at line {error.context_mark.line + 1})"
    builder.refuse(f"not valid YAML at line {line + 1}, column {column + 1}: {reason}", line + 1, at=())


class _Builder:
    """Values from events. It holds what is open, the anchors of the document, and what was counted in the file."""

    def __init__(self, source: str) -> None:
        self.documents: list[Node] = []
        self._source = source
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._values = 0
        self._text = 0
        self._doubts: dict[str, Problem] = {}

    def refuse(self, message: str, line: int, at: Path | None = None) -> Never:
        """Raise for ``line`` and, unless ``at`` says otherwise, the path that is open."""
        path = self._path() if at is None else at
        raise InvalidDocument([Problem(path, message)], self._source, {path: line})

    def take(self, event: yaml.Event) -> None:
        """Go on by one event."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors = {}

    def _path(self) -> Path:
        parts: list[str | int] = []
        for frame in self._stack:
            if isinstance(frame.node.children, list):
                parts.append(len(frame.node.children))
            elif frame.merging:
                parts.append("<<")
            elif frame.key is not None:
                parts.append(shown(frame.key))
        return tuple(parts)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        line = _line(event)
        plain = event.implicit[0]
        self._untagged(event, line)
        frame = self._expects_key()
        if frame is not None:
            self._key(frame, event.value, plain, line)
            return
        value = self._resolve(event.value, line) if plain else event.value
        node = Node(value, line, text=len(event.value))
        if event.anchor:
            self._anchors[event.anchor] = node
        self._count(1, node.text, line)
        self._add(node)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        line = _line(event)
        self._untagged(event, line)
        braces = isinstance(event, yaml.MappingStartEvent) and event.flow_style
        self._not_a_key("a list or an object", line, _TWO_BRACES if braces else "")
        if len(self._stack) >= MAX_DEPTH:
            self.refuse(f"nested deeper than {MAX_DEPTH} levels: make it flatter", line, self._path()[:8])
        node = Node({}, line, {}) if isinstance(event, yaml.MappingStartEvent) else Node([], line, [])
        if event.anchor:
            self._anchors[event.anchor] = None
        self._count(1, 0, line)
        self._stack.append(_Open(node, event.anchor))

    def _close(self) -> None:
        frame = self._stack.pop()
        if frame.merges is not None:
            _merge(frame.node, frame.merges)
        if frame.anchor:
            self._anchors[frame.anchor] = frame.node
        self._add(frame.node)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        anchor = event.anchor or ""
        name = shown(anchor)
        self._not_a_key("an alias", line)
        if anchor not in self._anchors:
            self.refuse(f"the alias *{name} has no anchor &{name} before it in this document", line)
        target = self._anchors[anchor]
        if target is None:
            self.refuse(f"the alias *{name} is inside the value that it refers to: a value cannot contain itself", line)
        if len(self._stack) + target.height > MAX_DEPTH:
            self.refuse(
                f"the alias *{name} nests deeper than {MAX_DEPTH} levels: make it flatter", line, self._path()[:8]
            )
        self._count(target.values, target.text, line)
        self._add(Node(target.value, line, target.children, target.values, target.text, target.height))

    def _expects_key(self) -> _Open | None:
        """The innermost object, if its next key comes now."""
        frame = self._stack[-1] if self._stack else None
        if frame is None or isinstance(frame.node.children, list) or frame.key is not None or frame.merging:
            return None
        return frame

    def _not_a_key(self, what: str, line: int, hint: str = "") -> None:
        if self._expects_key() is not None:
            self.refuse(f"{what} cannot be a key: write a text{hint}", line)

    def _key(self, frame: _Open, key: str, plain: bool, line: int) -> None:
        children = frame.node.children
        assert isinstance(children, dict)
        if plain and key == "<<":
            if frame.merges is not None:
                self.refuse("the key << occurs twice: merge a list, <<: [*a, *b]", line)
            frame.merges, frame.merging = [], True
            return
        if plain and not isinstance(self._resolve(key, line, key=True), str):
            self.refuse(f'the key {shown(key) or "(nothing)"} is not a text: write it in quotes, "{shown(key)}"', line)
        if key in children:
            lines = f"lines {children[key].line} and {line}" if children[key].line != line else f"line {line}"
            self.refuse(f"the key occurs twice ({lines}): keep one", line, (*self._path(), shown(key)))
        self._text += len(key)
        frame.node.text += len(key)
        frame.key, frame.key_line = key, line

    def _add(self, node: Node) -> None:
        """Put a finished value where it belongs."""
        if not self._stack:
            if node.value is not None:
                node.doubts, self._doubts = tuple(self._doubts.values()), {}
                self.documents.append(node)
            return
        frame = self._stack[-1]
        parent = frame.node
        if isinstance(parent.children, list):
            parent.value.append(node.value)
            parent.children.append(node)
        elif frame.merging and frame.merges is not None:
            sources = node.children if isinstance(node.children, list) else [node]
            if not all(isinstance(source.children, dict) for source in sources):
                self.refuse("<< merges objects only: give an alias of an object, or a list of them", node.line)
            frame.merges += sources
            frame.merging = False
        elif isinstance(parent.children, dict) and frame.key is not None:
            node.line = frame.key_line
            parent.value[frame.key] = node.value
            parent.children[frame.key] = node
            frame.key = None
        parent.values += node.values
        parent.text += node.text
        parent.height = max(parent.height, node.height + 1)

    def _count(self, values: int, text: int, line: int) -> None:
        self._values += values
        self._text += text
        if self._values > MAX_VALUES:
            self.refuse(f"more than {MAX_VALUES:,} values, aliases expanded: split the file or shorten it", line, ())
        if self._text > MAX_TEXT:
            self.refuse(f"more than {MAX_TEXT:,} characters, aliases expanded: split the file or shorten it", line, ())

    def _untagged(self, event: yaml.NodeEvent, line: int) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            short = shown(tag.replace("tag:yaml.org,2002:", "!!"))
            self.refuse(f"the tag {short} is not allowed: only plain values are supported; remove the tag", line)

    def _resolve(self, text: str, line: int, *, key: bool = False) -> Any:
        """The value of an unquoted scalar; ``key``: of one that is to be a key."""
        try:
            value = scalar(text)
        except Disputed as error:
            self.refuse(str(error), line)
        if text in LETTERS and text not in self._doubts:
            path = (*self._path(), text) if key else self._path()
            why = f'kubectl reads an unquoted {text} as {LETTERS[text]}: write "{text}" if kubectl will apply the file'
            self._doubts[text] = Problem(path, why)
        return value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _merge(node: Node, sources: list[Node]) -> None:
    """YAML's ``<<``: what stands in the object itself wins over the merged, and an earlier source over a later."""
    for source in sources:
        if isinstance(source.children, dict) and isinstance(node.children, dict):
            for key, child in source.children.items():
                if key not in node.children:
                    node.children[key] = child
                    node.value[key] = child.value
