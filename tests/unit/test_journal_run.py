"""Making a run and finding it: names are unique, whoever dies and whatever answer is lost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import cast

import pytest

from agentrun.journal.paths import RunPath, name_key
from agentrun.journal.records import Damaged
from agentrun.journal.runs import NoSuchRun, RunExists, create_run, find_run, list_runs, read_manifest
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import Store, StoreUnavailable
from tests.harness.memory_store import Crash, LossyStore, MemoryStore, ScheduledStore, Scheduler, every_path


def manifest(uid: str, name: str = "refund", namespace: str = "support") -> RunManifest:
    found = {"v": 1, "name": name, "namespace": namespace, "uid": uid, "inputs": {"by": uid}}
    return cast("RunManifest", found)


def test_a_run_is_found_by_its_name() -> None:
    store = MemoryStore()
    run = create_run(store, manifest("a1"))
    assert run == RunPath("support", "refund", "a1") == find_run(store, "support", "refund")
    assert read_manifest(store, run) == manifest("a1")
    assert RunPath.parse(str(run)) == run


def test_a_taken_name_is_refused_and_nothing_is_left_behind() -> None:
    store = MemoryStore()
    create_run(store, manifest("a1"))
    before = dict(store.objects)
    with pytest.raises(RunExists, match="--name"):
        create_run(store, manifest("b2"))
    assert store.objects == before
    create_run(store, manifest("b2", namespace="sales"))


def creator(store: Store, uid: str, made: list[RunPath]) -> Callable[[], None]:
    return lambda: made.append(create_run(store, manifest(uid)))


def test_of_two_with_one_name_exactly_one_is_made_under_every_interleaving() -> None:
    """Both were: the second took the name over while the first, which looked dead, was writing its run.json."""
    winners = set()
    for path in every_path():
        scheduler = Scheduler(path)
        store = ScheduledStore(scheduler=scheduler)
        made: list[RunPath] = []
        scheduler.run({uid: creator(store, uid, made) for uid in ("a1", "b2")})
        [winner] = made
        [error] = scheduler.errors.values()
        assert isinstance(error, RunExists)
        assert find_run(store, "support", "refund") == winner
        assert read_manifest(store, winner)["inputs"] == {"by": winner.uid}
        winners.add(winner.uid)
    assert winners == {"a1", "b2"}


@pytest.mark.parametrize("at", [0, 1])
def test_a_death_half_way_leaves_a_whole_run_or_a_free_name(at: int) -> None:
    store = LossyStore(lost={at: "crash"})
    with pytest.raises(Crash):
        create_run(store, manifest("a1"))
    if at == 0:
        with pytest.raises(NoSuchRun):
            find_run(store, "support", "refund")
        assert list_runs(store, None) == []
        assert create_run(store, manifest("b2")).uid == "b2"
    else:
        assert find_run(store, "support", "refund").uid == "a1"


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("how", ["unavailable", "not written", "exists"])
def test_a_lost_answer_is_no_reason_for_two_runs(at: int, how: str) -> None:
    store = LossyStore(lost={at: how})
    for _ in range(2):
        try:
            run = create_run(store, manifest("a1"))
            break
        except StoreUnavailable:
            continue
    assert find_run(store, "support", "refund") == run
    assert len(store.under.objects) == 2


def test_runs_are_listed_by_name_and_namespace() -> None:
    store = MemoryStore()
    uids = count()
    for namespace, name in [("support", "b"), ("sales", "c"), ("support", "a")]:
        create_run(store, manifest(f"u{next(uids)}", name, namespace))
    assert [(run.namespace, run.name) for run in list_runs(store, None)] == [
        ("sales", "c"),
        ("support", "a"),
        ("support", "b"),
    ]
    assert [run.name for run in list_runs(store, "support")] == ["a", "b"]
    assert list_runs(store, "nobody") == []


def test_a_run_that_is_not_there() -> None:
    with pytest.raises(NoSuchRun, match="agentrun list"):
        find_run(MemoryStore(), "support", "refund")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"[" * 100_000, b'{"hash":"sha256:0"}'], ids=["empty", "list", "deep", "hash"]
)
def test_a_damaged_manifest_is_named(data: bytes) -> None:
    store = MemoryStore()
    run = create_run(store, manifest("a1"))
    store.objects[run.manifest] = data
    with pytest.raises(Damaged, match=run.manifest):
        read_manifest(store, run)


def test_a_name_is_one_object() -> None:
    store = MemoryStore()
    run = create_run(store, manifest("a1"))
    assert store.objects[name_key("support", "refund")] == b'{"uid":"a1"}'
    assert run.name_key == "support/names/refund"
