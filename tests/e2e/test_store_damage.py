"""Objects of a finished run that are changed, cut or lost: the command names the object and guesses nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrun.journal.records import Damaged
from agentrun.local.driver import End
from agentrun.local.lease import HolderWatch, Lease
from agentrun.store.open import open_store
from tests.e2e.local import LocalRun, call, tool, workflow
from tests.e2e.shop import Shop
from tests.e2e.toolhost import reply


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(b'{"uid": ["../../other"]}')


def removed(path: Path) -> None:
    path.unlink()


DAMAGES = [
    ("*/steps/big/00000002.json", flipped),
    ("*/steps/big/00000002.json", truncated),
    ("*/steps/big/00000001.json", removed),
    ("*/events/00000001.json", flipped),
    ("*/events/00000001.json", removed),
    ("*/blobs/*", truncated),
    ("*/blobs/*", removed),
    ("*/run.json", flipped),
    ("*/run.json", emptied),
    ("names/*", emptied),
    ("names/*", foreign),
]


@pytest.fixture(scope="module")
def run(stage: Shop) -> LocalRun:
    """A run that waits for a signal after a step whose output is large."""
    stage.tools.on("/big", reply({"text": "x" * 100_000}))
    steps = [
        call("big", "big"),
        {"name": "past", "wait": {"until": "2020-01-01T00:00:00Z"}},
        {"name": "wait", "wait": {"signal": "go"}, "dependsOn": ["big"]},
    ]
    document = workflow(tools=[tool("big", f"{stage.tools.url}/big")], steps=steps)
    made = LocalRun.create(stage.store, document, stage.secrets)
    assert asyncio.run(made.drive()) is End.WAITING
    return made


@pytest.mark.parametrize(("where", "damage"), DAMAGES, ids=lambda part: getattr(part, "__name__", part))
def test_damage_is_named_and_nothing_is_guessed(
    where: str, damage: Callable[[Path], None], run: LocalRun, stage: Shop, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(stage.store, store)
    [target] = (store / "default").glob(where)
    damage(target)
    before = sorted((path, path.read_bytes()) for path in store.rglob("*.json") if path.name != "driver.json")
    name = run.path.name
    for words in (("show", name), ("resume", name), ("signal", name, "go"), ("audit", "verify", name)):
        said = stage.agentrun(*words, "--store", str(store))
        assert said.code == 1, (words, said)
        assert str(target.relative_to(store)) in said.out + said.err, (words, said)
        assert "Traceback" not in said.err, (words, said)
    assert sorted((path, path.read_bytes()) for path in store.rglob("*.json") if path.name != "driver.json") == before
    listed = stage.agentrun("list", "--store", str(store))
    assert "Traceback" not in listed.err, listed


def test_a_damaged_lease_is_named(run: LocalRun, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for content in (b"{", b"[]", b'{"process": 7}', b"\xff"):
        (tmp_path / run.path.lease).unlink(missing_ok=True)
        store.create(run.path.lease, content)
        with pytest.raises(Damaged, match=r"driver\.json: this is not a lease"):
            HolderWatch(store, run.path).look()
        with pytest.raises(Damaged, match="delete it if no driver is running"):
            asyncio.run(Lease(store, run.path, "writer").acquire(print))


def test_a_damaged_lease_is_named_by_the_command_line(run: LocalRun, stage: Shop, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(stage.store, store)
    [lease] = store.glob("default/*/driver.json")
    lease.write_bytes(b"{")
    for words in (("show", run.path.name), ("resume", run.path.name)):
        said = stage.agentrun(*words, "--store", str(store))
        assert said.code == 1, said
        assert "driver.json" in said.err
        assert "Traceback" not in said.err


def test_what_is_fine_verifies(run: LocalRun, stage: Shop) -> None:
    said = stage.agentrun("audit", "verify", run.path.name)
    assert said.code == 0, said
