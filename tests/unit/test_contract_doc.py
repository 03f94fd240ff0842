"""docs/contract.md: every promise names tests, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = (ROOT / "docs" / "contract.md").read_text()
PROMISES = re.split(
    r"^### (.+)$", CONTRACT.partition("## What is promised")[2].partition("\n## ")[0], flags=re.MULTILINE
)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def defined_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("promise", "text"), list(zip(PROMISES[1::2], PROMISES[2::2], strict=True)))
def test_a_promise_names_tests_that_exist(promise: str, text: str) -> None:
    found = NAMED.findall(text)
    assert found, f"{promise}: name the tests that prove it"
    for file, name in found:
        assert (ROOT / file).is_file(), f"{promise}: there is no {file}"
        assert name in defined_in(file), f"{promise}: {file} has no {name}"


def test_nothing_else_looks_like_the_name_of_a_test() -> None:
    assert len(re.findall(r"test_\w+\.py::|::test_", CONTRACT)) == len(NAMED.findall(CONTRACT))
