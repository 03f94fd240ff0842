"""What the journal asks of a store, asked of each of them: the same suite for a folder and for a bucket."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from agentrun.store.folder import FolderStore
from agentrun.store.keys import InvalidKey
from agentrun.store.open import open_store
from agentrun.store.protocol import KeyExists, KeyMissing, Store
from agentrun.store.s3 import S3Store
from agentrun.store.s3_direct import DirectS3Store
from tests.servers.versitygw import S3Server

NewStore = Callable[[], Store]


@pytest.fixture(params=["folder", "s3", "s3-direct"])
def new_store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_server: S3Server,
    first_s3_stores: dict[str, S3Store],
) -> NewStore:
    """Makes empty stores; each is named by its ``url``, so a second object of that URL is the same store."""
    number = count()
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / f"store-{next(number)}")
    for name, value in s3_server.environment(tmp_path / "none").items():
        monkeypatch.setenv(name, value)
    home = uuid.uuid4().hex
    first = first_s3_stores[request.param]

    def make() -> S3Store:
        made = type(first)(f"{first.url}/{home}/{next(number)}")
        made._client = first._client  # making one takes 60 ms
        return made

    return make


@pytest.fixture(scope="session")
def first_s3_stores(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, S3Store]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment(tmp_path_factory.mktemp("aws") / "none").items():
            environment.setenv(name, value)
        stores = {"s3": S3Store(f"s3://{s3_server.new_bucket()}")}
        stores["s3-direct"] = DirectS3Store(stores["s3"].url)
        for store in stores.values():
            store.preload()
        return stores


@pytest.fixture
def store(new_store: NewStore) -> Store:
    return new_store()


def again(store: Store) -> Store:
    """The same store as another process would open it."""
    return open_store(store.url)


def together(work: Callable[[int], Any], workers: int) -> list[Any]:
    """``work(0)`` to ``work(workers - 1)`` in threads that start at the same moment."""
    gate = threading.Barrier(workers)

    def run(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, range(workers)))


def test_what_was_created_is_there_for_everybody(store: Store) -> None:
    store.create("ns/run-1/run.json", b"{}")
    assert store.get("ns/run-1/run.json") == b"{}"
    assert again(store).get("ns/run-1/run.json") == b"{}"


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", bytes(range(256)), "é€😀".encode(), b"\r\n\n", b"\xff\xfe", b"<Error/>", b"x" * 300_000],
    ids=["empty", "nul", "every byte", "utf-8", "line ends", "no text", "xml", "300 kB"],
)
def test_bytes_of_any_kind_come_back(store: Store, data: bytes) -> None:
    store.create("a/b", data)
    assert store.get("a/b") == data
    assert store.swap("a/b", data + b"!", store.read_version("a/b")[1]) == store.read_version("a/b")[1]
    assert store.get("a/b") == data + b"!"


@pytest.mark.parametrize(
    "key", ["a", "a/b/c/d/e/f", "A-Z_0.9@x=+,:~!()", "s" * 255, "ns/run-1/steps/triage.17/00000001.json"]
)
def test_keys_that_are_taken(store: Store, key: str) -> None:
    store.create(key, b"1")
    assert store.get(key) == b"1"
    assert store.list("") == [key]
    assert store.list(key) == [key]
    assert store.children("") == [key.partition("/")[0]]


REFUSED = [
    "", "/a", "a/", "a//b", ".", "..", "a/../b", "a/..", "a..b", "./a", "a/.hidden", ".lock", ".new-1", ".probe/x",
    "a\0b", "a\nb", "a\n", "a b", "a\\b", "é", "a%2fb", "a?b", "a#b", "s" * 256, "/".join(["abc"] * 226),
]  # fmt: skip


def test_keys_that_are_refused(store: Store) -> None:
    for key in REFUSED:
        for attempt in (
            lambda key=key: store.create(key, b""),
            lambda key=key: store.get(key),
            lambda key=key: store.read_version(key),
            lambda key=key: store.swap(key, b"", None),
            lambda key=key: store.swap(key, b"", "version"),
        ):
            with pytest.raises(InvalidKey, match="is not a key"):
                attempt()
    for prefix in ("/", "a//", "..", "a/../", "a/.", "é", "a\n"):
        with pytest.raises(InvalidKey):
            store.list(prefix)
        with pytest.raises(InvalidKey):
            store.children(prefix)
    assert store.list("") == []


def test_children_are_asked_of_whole_segments(store: Store) -> None:
    with pytest.raises(InvalidKey, match="end with '/'"):
        store.children("ns")


def test_the_first_object_stays(store: Store) -> None:
    store.create("a", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(KeyExists):
            store.create("a", data)
        with pytest.raises(KeyExists):
            store.swap("a", data, None)
    assert store.get("a") == b"first"


def test_what_is_not_there_is_missing(store: Store) -> None:
    def look() -> None:
        for key in ("a", "b/c", "b/c/d/e"):
            with pytest.raises(KeyMissing):
                store.get(key)
            with pytest.raises(KeyMissing):
                store.read_version(key)
        assert store.list("x/") == []
        assert store.children("x/") == []

    look()
    store.create("b/c/d/other", b"")
    look()


def test_lists_are_sorted_and_exact(store: Store) -> None:
    keys = ["ns/a", "ns/a.b", "ns/a-1/z", "ns/a0/x", "ns/B/c", "ns2/a", "other"]
    for key in keys:
        store.create(key, b"")
    for prefix in ("", "n", "ns", "ns/", "ns/a", "ns/a.", "ns/a-1/", "ns/a-1/z", "ns/a-1/zz", "ns2", "x"):
        expected = sorted(key for key in keys if key.startswith(prefix))
        assert store.list(prefix) == expected
        for after in ("", "ns", "ns/a", "ns/a-1/z", "ns/a.b", "ns/zzz", "other", "zzz"):
            assert store.list(prefix, after) == [key for key in expected if key > after]
    assert store.children("") == ["ns", "ns2", "other"]
    assert store.children("ns/") == ["B", "a", "a-1", "a.b", "a0"]
    assert store.children("ns/a-1/") == ["z"]


def test_long_lists_come_whole(store: Store) -> None:
    """S3 answers with 1,000 keys at most: more of them, as objects and as folders."""
    objects = [f"many/{number:08d}" for number in range(1030)]
    folders = [f"many/run-{number:04d}/x" for number in range(20)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.create(key, b""), objects + folders))
    assert store.list("many/") == sorted(objects + folders)
    assert store.list("many/", "many/00000009") == sorted(objects[10:] + folders)
    assert store.list("many/000010", "many/00001019") == objects[1020:]
    assert store.children("many/") == [key.split("/")[1] for key in sorted(objects + folders)]


def test_a_swap_needs_the_version_it_saw(store: Store) -> None:
    first = store.swap("lease", b"one", None)
    assert store.read_version("lease") == (b"one", first)
    second = store.swap("lease", b"two", first)
    assert second != first
    with pytest.raises(KeyExists):
        store.swap("lease", b"three", first)
    assert store.read_version("lease") == (b"two", second)
    assert store.list("") == ["lease"]


def test_a_swap_of_nothing_makes_nothing(store: Store) -> None:
    version = store.swap("there", b"", None)
    with pytest.raises(KeyExists):
        store.swap("gone/away", b"", version)
    assert store.list("") == ["there"]


@pytest.mark.parametrize("write", ["create", "swap"])
def test_of_sixteen_writers_exactly_one_wins(store: Store, write: str) -> None:
    def attempt(key: str, writer: int) -> bool:
        data = b"%d" % writer
        try:
            if write == "create":
                store.create(key, data)
            else:
                store.swap(key, data, None)
        except KeyExists:
            return False
        return True

    for number in range(8):
        key = f"race/{number}"
        won = together(partial(attempt, key), 16)
        assert won.count(True) == 1
        assert store.get(key) == b"%d" % won.index(True)


def test_concurrent_swaps_lose_no_update(store: Store) -> None:
    def add(_: int) -> None:
        for _ in range(6):
            while True:
                data, version = store.read_version("counter")
                try:
                    store.swap("counter", b"%d" % (int(data) + 1), version)
                except KeyExists:
                    continue
                break

    store.create("counter", b"0")
    together(add, 4)
    assert store.get("counter") == b"24"


def test_a_list_beside_writers_holds_what_was_there_before(store: Store) -> None:
    written: list[str] = []

    def write(_: int) -> None:
        for number in range(60):
            key = f"log/{number:08d}.json"
            store.create(key, b"record")
            written.append(key)

    def read(_: int) -> None:
        while len(written) < 60:
            before = list(written)
            seen = store.list("log/")
            assert seen[: len(before)] == before
            assert all(store.get(key) == b"record" for key in seen[-2:])

    together(lambda number: (write, read)[number](number), 2)


def test_a_fit_store_passes_its_probe_and_stays_empty(store: Store) -> None:
    store.probe()
    assert store.list("") == []
    assert store.children("") == []
    store.create("a", b"")
    store.probe()
    assert store.list("") == ["a"]


KEYS = st.sampled_from(["a", "b/c", "b/d/e", "b/d/f", "b.c", "b-d/x", "z/00000001", "z/00000002"])
PREFIXES = st.sampled_from(["", "a", "b", "b/", "b/d/", "b/d/e", "b.", "z/0", "y/"])
FOLDERS = st.sampled_from(["", "b/", "b/d/", "z/", "y/"])
BODIES = st.binary(max_size=40)


def machine(new_store: NewStore) -> type[RuleBasedStateMachine]:
    """A store beside the dictionary that it should behave like."""

    class StoreMachine(RuleBasedStateMachine):
        versions: Bundle[tuple[str, bytes, str]] = Bundle("versions")

        def __init__(self) -> None:
            super().__init__()
            self.store = new_store()
            self.model: dict[str, bytes] = {}

        @rule(key=KEYS, data=BODIES)
        def create(self, key: str, data: bytes) -> None:
            if key in self.model:
                with pytest.raises(KeyExists):
                    self.store.create(key, data)
            else:
                self.store.create(key, data)
                self.model[key] = data

        @rule(key=KEYS)
        def get(self, key: str) -> None:
            if key in self.model:
                assert self.store.get(key) == self.model[key]
            else:
                with pytest.raises(KeyMissing):
                    self.store.get(key)

        @rule(target=versions, key=KEYS)
        def look(self, key: str) -> tuple[str, bytes, str]:
            if key not in self.model:
                with pytest.raises(KeyMissing):
                    self.store.read_version(key)
                self.store.create(key, b"looked for")
                self.model[key] = b"looked for"
            data, version = self.store.read_version(key)
            assert data == self.model[key]
            return key, data, version

        @rule(seen=versions, data=BODIES)
        def swap(self, seen: tuple[str, bytes, str], data: bytes) -> None:
            key, old, version = seen
            if self.model[key] == old:  # equal bytes may have equal versions: nothing was lost
                assert self.store.swap(key, data, version) == self.store.read_version(key)[1]
                self.model[key] = data
            else:
                with pytest.raises(KeyExists):
                    self.store.swap(key, data, version)

        @rule(prefix=PREFIXES, after=st.one_of(st.just(""), KEYS))
        def listed(self, prefix: str, after: str) -> None:
            expected = sorted(key for key in self.model if key.startswith(prefix) and key > after)
            assert self.store.list(prefix, after) == expected

        @rule(prefix=FOLDERS)
        def children(self, prefix: str) -> None:
            below = {key[len(prefix) :].split("/")[0] for key in self.model if key.startswith(prefix)}
            assert self.store.children(prefix) == sorted(below)

        def teardown(self) -> None:
            assert {key: self.store.get(key) for key in self.store.list("")} == self.model

    return StoreMachine


def test_a_store_behaves_like_a_dictionary(new_store: NewStore, request: pytest.FixtureRequest) -> None:
    on_disk = "folder" in request.node.callspec.id
    run_state_machine_as_test(
        machine(new_store),
        settings=settings(
            max_examples=40 if on_disk else 8,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
