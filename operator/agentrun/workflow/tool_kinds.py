"""The kinds of tools, one row each: what the compiler, the lints and the starter of a step need to know of a tool.

A higher package calls a tool: ``runner.open_tool`` makes its client, in one ``match`` over the same bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentrun.api.errors import Path, Problem
from agentrun.api.tools import Http, SecretKey, Tool
from agentrun.api.values import Spec
from agentrun.expressions.templates import Expression
from agentrun.workflow.http import check_http, http_expressions

ToolBody = Http
"""The body of a tool: the value of the field that its kind is named after. With a second kind, this is a union."""

Body = TypeVar("Body", bound=Spec)


@dataclass(frozen=True)
class ToolKind(Generic[Body]):
    """One kind of tool. Every function gets the tool's body; a path given to it is the body's path."""

    name: str
    """The field of a tool that holds the body."""
    check: Callable[[Body, Path], Iterable[Problem]]
    """Finds what is invalid in the body."""
    expressions: Callable[[Body, Path], Iterator[tuple[Path, Expression]]]
    """All expressions of a checked body, each with its path."""
    secret_refs: Callable[[Body], Iterable[SecretKey]]
    """The Secrets that a call reads."""
    address: Callable[[Body], str]
    """The URL of a call, as far as it is known before the call. Empty if the kind has none: nobody looks before a run
    whether it can be reached.
    """


KINDS: Mapping[type[Spec], ToolKind[Any]] = {
    Http: ToolKind[Http](
        name="http",
        check=check_http,
        expressions=http_expressions,
        secret_refs=lambda http: () if http.auth is None else (http.auth.bearer.secret_ref,),
        address=lambda http: http.url.partition("${")[0],  # values come only after the host
    ),
}
"""One row for each type of ``ToolBody``."""


def body_of(tool: Tool) -> ToolBody:
    """The body of ``tool``."""
    return tool.http


def kind_of(tool: Tool) -> ToolKind[Any]:
    """The row of the kind of ``tool``."""
    return KINDS[type(body_of(tool))]


def check_body(tool: Tool, path: Path) -> Iterable[Problem]:
    """The problems of the body of ``tool``, which is at ``path``."""
    kind = kind_of(tool)
    return kind.check(body_of(tool), (*path, kind.name))


def expressions_of(tool: Tool, path: Path) -> Iterator[tuple[Path, Expression]]:
    """All expressions of ``tool``, which is at ``path`` and was checked, each with its path."""
    kind = kind_of(tool)
    return kind.expressions(body_of(tool), (*path, kind.name))


def secret_refs_of(tool: Tool) -> Iterable[SecretKey]:
    """The Secrets that a call of ``tool`` reads."""
    return kind_of(tool).secret_refs(body_of(tool))


def address_of(tool: Tool) -> str:
    """The URL of a call of ``tool``, as far as it is known before the call."""
    return kind_of(tool).address(body_of(tool))
