"""The kinds of tools, a row each: what the compiler, the lints and whoever starts a step ask about a tool.

How a tool is called stands above this room: ``runner.open_tool`` makes a client, in one ``match`` over the same bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentrun.api.errors import Path, Problem
from agentrun.api.values import Spec
from agentrun.api.workflow import Http, SecretKey, Tool
from agentrun.expressions.templates import Expression
from agentrun.workflow.http import check_http, http_expressions

ToolBody = Http
"""What a tool is: the value of the one field that its kind is named after. A union, when there are two kinds."""

Body = TypeVar("Body", bound=Spec)


@dataclass(frozen=True)
class ToolKind(Generic[Body]):
    """One kind of tool. Every function gets the tool's body; paths lead to it."""

    name: str
    """The field of a tool that holds the body."""
    check: Callable[[Body, Path], Iterable[Problem]]
    """What has no meaning."""
    expressions: Callable[[Body, Path], Iterator[tuple[Path, Expression]]]
    """Every expression of a body that was checked, with its place."""
    secret_refs: Callable[[Body], Iterable[SecretKey]]
    """The Secrets that a call reads."""
    address: Callable[[Body], str]
    """The URL that a call asks, as far as it is known before the call."""


KINDS: Mapping[type[Spec], ToolKind[Any]] = {
    Http: ToolKind[Http](
        name="http",
        check=check_http,
        expressions=http_expressions,
        secret_refs=lambda http: () if http.auth is None else (http.auth.bearer.secret_ref,),
        address=lambda http: http.url.partition("${")[0],  # what is put in stands behind the host
    ),
}
"""A row for each type of ``ToolBody``."""


def body_of(tool: Tool) -> ToolBody:
    """What ``tool`` is."""
    return tool.http


def kind_of(tool: Tool) -> ToolKind[Any]:
    """The row of the kind that ``tool`` is of."""
    return KINDS[type(body_of(tool))]


def check_body(tool: Tool, path: Path) -> Iterable[Problem]:
    """What is wrong with the part of ``tool``, which stands at ``path``, that its kind says."""
    kind = kind_of(tool)
    return kind.check(body_of(tool), (*path, kind.name))


def expressions_of(tool: Tool, path: Path) -> Iterator[tuple[Path, Expression]]:
    """Every expression of a call of ``tool``, which stands at ``path`` and was checked, with its place."""
    kind = kind_of(tool)
    return kind.expressions(body_of(tool), (*path, kind.name))


def secret_refs_of(tool: Tool) -> Iterable[SecretKey]:
    """The Secrets that a call of ``tool`` reads."""
    return kind_of(tool).secret_refs(body_of(tool))


def address_of(tool: Tool) -> str:
    """The URL that a call of ``tool`` asks, as far as it is known before the call."""
    return kind_of(tool).address(body_of(tool))
