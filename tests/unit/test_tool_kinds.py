"""The table of tool kinds: whole, and there is a client of each."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from agentrun.api.tools import Tool
from agentrun.api.values import Spec
from agentrun.runner.open_tool import open_tool
from agentrun.runner.tool_client import ToolClient
from agentrun.workflow import tool_kinds
from agentrun.workflow.tool_kinds import KINDS, ToolKind, body_of

SECRET = {"bearer": {"secretRef": {"name": "shop", "key": "token"}}}
TOOLS: dict[str, dict[str, Any]] = {
    "http": {"url": "https://shop.example/${args.id}", "auth": SECRET, "output": "response.body"},
}
"""A tool of each kind."""

KNOWN: dict[str, tuple[list[str], str, list[str]]] = {
    "http": (["shop"], "https://shop.example/", ["url", "output"]),
}
"""What its row tells of that tool: the Secrets that it reads, its address, and the fields with expressions."""


def a_tool(kind: str) -> Tool:
    return Tool.model_validate({"name": "shop", kind: TOOLS[kind]})


def test_every_kind_has_a_row() -> None:
    assert set(KINDS) == set(get_args(tool_kinds.ToolBody) or [tool_kinds.ToolBody])
    assert {row.name for row in KINDS.values()} == set(TOOLS) == set(KNOWN)


@pytest.mark.parametrize(("body", "row"), KINDS.items(), ids=[row.name for row in KINDS.values()])
def test_a_row_is_about_the_body_that_its_field_holds(body: type[Spec], row: ToolKind[Spec]) -> None:
    tool = a_tool(row.name)
    assert type(body_of(tool)) is body
    assert tool_kinds.check_body(tool, ()) == []
    secrets, address, fields = KNOWN[row.name]
    assert [ref.name for ref in tool_kinds.secret_refs_of(tool)] == secrets
    assert tool_kinds.address_of(tool) == address
    places = [place for place, _ in tool_kinds.expressions_of(tool, ("tools", 0))]
    assert places == [("tools", 0, row.name, field) for field in fields]


@pytest.mark.parametrize("kind", TOOLS)
def test_every_kind_has_a_client_that_takes_what_a_call_says(kind: str) -> None:
    client = open_tool(a_tool(kind), lambda _: "")
    assert inspect.signature(type(client).call) == inspect.signature(ToolClient.call)
