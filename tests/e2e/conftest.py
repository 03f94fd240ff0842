"""The stages of the end-to-end tests: one for each test, or one for each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.shop import Shop, open_shop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A stage of the test's own; in-process runs find its environment in their own."""
    with open_shop(tmp_path) as opened:
        for name, value in opened.environment.items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A stage that the tests of a file share; in-process runs find its environment in their own."""
    folder = tmp_path_factory.mktemp("stage")
    with open_shop(folder) as opened, pytest.MonkeyPatch.context() as patch:
        for name, value in opened.environment.items():
            patch.setenv(name, value)
        yield opened
