"""Each value that a label of a metric is declared to have is one that some code counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

import agentrun
from agentrun.api.run import Outcome, Reason
from agentrun.observe import metrics


@cache
def modules() -> dict[Path, ast.Module]:
    root = Path(agentrun.__file__).parent
    return {path: ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}


def importers(name: str) -> Iterator[ast.Module]:
    """The modules that import ``name`` from the metrics."""
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == metrics.__name__ and name in names(node):
                yield tree


def names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def constants(tree: ast.Module) -> set[Any]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def members(kind: type[StrEnum]) -> set[str]:
    """The members of ``kind`` that code names outside the class."""
    found = set()
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == kind.__name__:
                found.add(node.attr)
    return found


@pytest.mark.parametrize("name", ["ReconcileResult", "StoreResult", "Verb"])
def test_every_word_is_written_where_it_is_counted(name: str) -> None:
    """``exists``, ``missing`` and ``watch`` stood in the type and in no code that counts."""
    written = set[Any]().union(*map(constants, importers(name)))
    assert set(get_args(getattr(metrics, name))) <= written


def test_every_member_is_named_by_code() -> None:
    """``Lost.PREEMPTED`` and ``Lost.NOT_STARTED`` were named by nothing."""
    assert {member.name for member in metrics.Lost} <= members(metrics.Lost)
    assert {member.name for member in Outcome} <= members(Outcome)
    assert {reason.name for reason in metrics.LIVE} <= members(Reason)  # the label ``state`` has no end


def test_every_type_of_words_is_tried() -> None:
    declared = {name for name, value in vars(metrics).items() if name[0].isupper() and get_args(value)}
    assert declared == {"ReconcileResult", "StoreResult", "Verb"}
