"""Fixtures of more than one module."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentrun.cli.main import main
from tests.harness.cli_store import Said, Scene, Type
from tests.harness.cluster_world import ClusterWorld
from tests.harness.model_bench import ModelBench, model_bench
from tests.harness.signed_run import Signed
from tests.harness.tool_bench import ToolBench, tool_bench
from tests.harness.virtual_time import VirtualLoop


@pytest.fixture
async def model() -> AsyncIterator[ModelBench]:
    async with model_bench("responses") as found:
        yield found


@pytest.fixture
async def chatty() -> AsyncIterator[ModelBench]:
    async with model_bench("chat") as found:
        yield found


@pytest.fixture
async def shop() -> AsyncIterator[ToolBench]:
    async with tool_bench() as found:
        yield found


@pytest.fixture
def world() -> Iterator[ClusterWorld]:
    """All of it, without an operator yet."""
    found = ClusterWorld(VirtualLoop())
    try:
        yield found
    finally:
        found.close()
        found.loop.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


@pytest.fixture
def signed(scene: Scene) -> Signed:
    return Signed(scene)


@pytest.fixture
def agentrun(scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command line, whose store is the scene's."""
    monkeypatch.setenv("AGENTRUN_STORE", str(scene.folder))
    monkeypatch.setenv("LOGNAME", "ben")
    monkeypatch.delenv("AGENTRUN_SECRETS", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

    def type_(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["agentrun", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, found.out, found.err)

    return type_
