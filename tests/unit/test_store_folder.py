"""What only the folder store promises: flushes in the right order, whole objects after SIGKILL, errors of disks."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrun.store import folder
from agentrun.store.folder import FolderStore, explained
from agentrun.store.open import open_store
from agentrun.store.protocol import KeyExists, KeyMissing, StoreError, StoreUnavailable, StoreUnfit

OPERATOR = Path(folder.__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def python(script: str, *arguments: str | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Another process that runs ``script`` with the package on its path."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(OPERATOR)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def files(root: Path) -> list[str]:
    """Every file below ``root``, the store's own ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class Calls:
    """What the folder store asks of the system, in order, with the paths that were meant."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.made: list[tuple[str, str]] = []
        self._root = root
        self._real = {name: getattr(os, name) for name in ("fsync", "link", "rename")}
        self.fail: dict[str, int] = {}
        for name in self._real:
            monkeypatch.setattr(os, name, getattr(self, name))

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._note("fsync", "temporary" if path.name.startswith(".new-") else os.path.relpath(path, self._root))
        self._real["fsync"](descriptor)

    def link(self, source: str, target: str, **directories: int) -> None:
        self._note("link", target)
        self._real["link"](source, target, **directories)

    def rename(self, source: str, target: str, **directories: int) -> None:
        self._note("rename", target)
        self._real["rename"](source, target, **directories)

    def _note(self, call: str, what: str) -> None:
        self.made.append((call, what))
        if call in self.fail:
            raise OSError(self.fail[call], os.strerror(self.fail[call]))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds the paths of descriptors in /proc")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    return Calls(monkeypatch, tmp_path / "store")


@needs_proc
def test_a_name_appears_after_its_bytes_and_is_flushed_before_the_answer(store: FolderStore, calls: Calls) -> None:
    store.create("ns/run/run.json", b"1")
    new_folders = [("fsync", ".."), ("fsync", "."), ("fsync", "ns")]
    written = [("fsync", "temporary"), ("link", "run.json"), ("fsync", "ns/run")]
    assert calls.made == new_folders + written


@needs_proc
def test_the_second_write_to_a_folder_costs_two_flushes(store: FolderStore, calls: Calls) -> None:
    store.create("ns/run/1", b"1")
    calls.made.clear()
    store.create("ns/run/2", b"2")
    assert calls.made == [("fsync", "temporary"), ("link", "2"), ("fsync", "ns/run")]


@needs_proc
def test_folders_of_another_process_are_flushed_once_too(store: FolderStore, calls: Calls) -> None:
    """It may have made them and died before its flush."""
    (Path(store.url) / "ns/run").mkdir(parents=True)
    store.create("ns/run/1", b"1")
    assert calls.made[:2] == [("fsync", "."), ("fsync", "ns")]


@needs_proc
def test_an_object_that_is_found_is_flushed_before_it_is_reported(store: FolderStore, calls: Calls) -> None:
    """Its writer may be the attempt before ours, which died between the link and the flush."""
    store.create("ns/1", b"1")
    calls.made.clear()
    with pytest.raises(KeyExists):
        store.create("ns/1", b"1")
    assert calls.made[-2:] == [("link", "1"), ("fsync", "ns")]


@needs_proc
def test_a_swap_is_flushed_before_and_after_the_rename(store: FolderStore, calls: Calls) -> None:
    version = store.swap("ns/lease", b"1", None)
    calls.made.clear()
    store.swap("ns/lease", b"2", version)
    assert calls.made == [("fsync", "temporary"), ("rename", "lease"), ("fsync", "ns")]


@pytest.mark.parametrize(
    ("call", "number", "error", "says"),
    [
        ("fsync", errno.EIO, StoreUnavailable, "disk"),
        ("fsync", errno.ENOSPC, StoreUnavailable, "free some space"),
        ("fsync", errno.EDQUOT, StoreUnavailable, "free some space"),
        ("link", errno.ENOSPC, StoreUnavailable, "free some space"),
        ("link", errno.EPERM, StoreUnfit, "hard links"),
        ("link", errno.EOPNOTSUPP, StoreUnfit, "hard links"),
    ],
)
@needs_proc
def test_a_write_that_fails_leaves_nothing(
    store: FolderStore, calls: Calls, call: str, number: int, error: type[StoreError], says: str
) -> None:
    store.create("ns/0", b"")
    calls.fail[call] = number
    with pytest.raises(error, match=says):
        store.create("ns/1", b"1")
    calls.fail.clear()
    assert files(Path(store.url)) == ["ns/0"]
    store.create("ns/1", b"1")
    assert store.get("ns/1") == b"1"


@needs_proc
def test_a_swap_that_fails_leaves_the_old_object(store: FolderStore, calls: Calls) -> None:
    version = store.swap("lease", b"old", None)
    calls.fail["rename"] = errno.ENOSPC
    with pytest.raises(StoreUnavailable, match="free some space"):
        store.swap("lease", b"new", version)
    assert store.get("lease") == b"old"
    assert files(Path(store.url)) == [".lock", "lease"]


def test_what_a_crash_left_behind_is_harmless(store: FolderStore) -> None:
    store.create("ns/run/1", b"1")
    root = Path(store.url)
    (root / "ns/run/.new-0123456789abcdef").write_bytes(b"torn")
    (root / "ns/started").mkdir()
    (root / "ns/started/.new-0123456789abcdef").write_bytes(b"torn")
    (root / ".DS_Store").write_bytes(b"")
    (root / "a file with spaces").write_bytes(b"")
    assert store.list("") == ["ns/run/1"]
    assert store.children("") == ["ns"]
    assert store.children("ns/") == ["run"]
    assert store.children("ns/run/") == ["1"]
    store.create("ns/started/1", b"1")
    assert store.children("ns/") == ["run", "started"]


def test_only_the_owner_may_read(store: FolderStore) -> None:
    umask = os.umask(0)
    try:
        store.swap("ns/run/lease", b"2", store.swap("ns/run/lease", b"1", None))
        store.create("ns/run/run.json", b"{}")
    finally:
        os.umask(umask)
    root = Path(store.url)
    assert {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o600}


def test_a_deleted_run_can_be_written_again(store: FolderStore) -> None:
    store.create("ns/run/steps/1", b"1")
    shutil.rmtree(Path(store.url) / "ns")
    assert store.list("") == []
    store.create("ns/run/steps/1", b"2")
    assert store.get("ns/run/steps/1") == b"2"


def test_nothing_is_made_before_the_first_write(store: FolderStore) -> None:
    assert store.list("") == []
    assert store.children("") == []
    with pytest.raises(KeyMissing):
        store.get("a")
    assert not Path(store.url).exists()


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(".agentrun")
    store.create("a", b"1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.get("a") == b"1"
    assert store.url == ".agentrun"


def test_sixteen_processes_race_for_every_key(store: FolderStore) -> None:
    racer = """
        import sys
        from agentrun.store.folder import FolderStore
        from agentrun.store.protocol import KeyExists
        store, me = FolderStore(sys.argv[1]), sys.argv[2]
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(40):
            try:
                store.create(f"ns/race-{number % 4}/{number}", me.encode())
            except KeyExists:
                continue
            print(f"ns/race-{number % 4}/{number}")
    """
    racers = {str(number): python(racer, store.url, str(number)) for number in range(16)}
    for process in racers.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racers.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    winner: dict[str, str] = {}
    for name, process in racers.items():
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        for key in out.split():
            assert winner.setdefault(key, name) == name
    assert len(winner) == 40
    assert store.list("") == sorted(winner)
    assert {key: store.get(key).decode() for key in winner} == winner


def test_swaps_of_processes_lose_no_update(store: FolderStore) -> None:
    adder = """
        import sys
        from agentrun.store.folder import FolderStore
        from agentrun.store.protocol import KeyExists
        store = FolderStore(sys.argv[1])
        done = 0
        while done < 20:
            data, version = store.read_version("counter")
            try:
                store.swap("counter", b"%d" % (int(data) + 1), version)
            except KeyExists:
                continue
            done += 1
    """
    store.create("counter", b"0")
    adders = [python(adder, store.url) for _ in range(4)]
    for process in adders:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
    assert store.get("counter") == b"80"


def test_after_sigkill_every_object_is_whole_and_every_answered_one_is_there(store: FolderStore) -> None:
    writer = """
        import itertools, sys
        from agentrun.store.folder import FolderStore
        store = FolderStore(sys.argv[1])
        for number in itertools.count():
            store.create(f"log/{number:08d}", b"%08d" % number * 5000)
            print(number, flush=True)
    """
    process = python(writer, store.url)
    assert process.stdout is not None
    for _ in range(25):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    answered = 25 + len(process.stdout.readlines())  # not communicate(): it passes over what readline() has buffered
    process.communicate(timeout=60)
    keys = store.list("log/")
    assert keys[:answered] == [f"log/{number:08d}" for number in range(answered)]
    assert len(keys) <= answered + 1
    for key in keys:
        assert store.get(key) == key.removeprefix("log/").encode() * 5000


def test_a_lock_that_is_never_given_back_is_an_error_in_time(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, lock_timeout=0.05)
    version = store.swap("lease", b"1", None)
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match=r"\.lock: another process has held this lock for 0\.05 s"):
            store.swap("lease", b"2", version)
    store.swap("lease", b"2", version)


@pytest.mark.parametrize("operation", ["create", "swap", "probe"])
def test_a_file_in_the_way_is_named(tmp_path: Path, operation: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file" / "store")
    with pytest.raises(StoreUnfit, match=r"file.*choose another folder with --store"):
        {
            "create": lambda: store.create("a/b", b""),
            "swap": lambda: store.swap("a", b"", None),
            "probe": store.probe,
        }[operation]()
    assert store.list("") == []


def test_an_object_in_the_place_of_a_folder_is_named(store: FolderStore) -> None:
    store.create("a", b"")
    with pytest.raises(StoreUnfit, match="store/a"):
        store.create("a/b", b"")


def test_a_limit_on_file_sizes_leaves_no_half_object(store: FolderStore) -> None:
    """Python ignores SIGXFSZ, so the write stops in the middle and then fails."""
    store.create("ns/0", b"")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StoreUnfit, match="File too large"):
            store.create("ns/1", b"x" * 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(Path(store.url)) == ["ns/0"]


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder of our own without the permission to write. Root may write everywhere: for a while, be nobody."""
    with tempfile.TemporaryDirectory() as name:  # below a folder that everybody may enter, unlike pytest's
        folder = Path(name)
        folder.chmod(0o500)
        if os.geteuid() != 0:
            yield folder
            return
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)


def test_a_store_that_is_a_file_has_no_runs_to_list(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    for look in (FolderStore(tmp_path / "store").children, FolderStore(tmp_path / "store").list):
        with pytest.raises(StoreUnfit, match="is a file, not a folder"):
            look("")


def test_a_folder_without_permission_is_unfit(unwritable: Path) -> None:
    with pytest.raises(StoreUnfit, match="make the folder writable"):
        FolderStore(unwritable).create("a", b"")
    with pytest.raises(StoreUnfit, match="make the folder writable"):
        FolderStore(unwritable / "store").probe()


def _own_mounts() -> tuple[str, ...]:
    """A command that runs another one where it may mount; empty where the system forbids that."""
    command = ("unshare", "--user", "--map-root-user", "--mount")
    if shutil.which("unshare") is None:
        return ()
    allowed = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True)
    return command if allowed.returncode == 0 else ()


@pytest.fixture(scope="module")
def own_mounts() -> tuple[str, ...]:
    found = _own_mounts()
    if not found:
        if os.environ.get("CI"):
            pytest.fail("CI has to be able to make mounts of its own: unshare --user --mount")
        pytest.skip("this user may not make mounts of their own (unshare --user --mount)")
    return found


MOUNTED = """
    import subprocess, sys
    from agentrun.store.folder import FolderStore
    from agentrun.store.protocol import KeyMissing, StoreUnavailable, StoreUnfit

    def mount(options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", sys.argv[1]], check=True)
    def error(operation):
        try:
            operation()
        except (StoreUnavailable, StoreUnfit) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"
    store = FolderStore(sys.argv[1])
"""


def mounted(script: str, tmp_path: Path, own_mounts: tuple[str, ...]) -> list[str]:
    """What ``script`` prints when it runs after MOUNTED, in a mount namespace of its own."""
    out, _ = (process := python(MOUNTED + script, tmp_path, before=own_mounts)).communicate(timeout=60)
    assert process.returncode == 0, out
    return out.splitlines()


def test_a_full_disk_is_unavailable_until_there_is_space(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    script = """
    from pathlib import Path
    mount("size=64k")
    ballast = Path(sys.argv[1]) / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    version = store.swap("ns/lease", b"1", None)
    print(error(lambda: store.create("ns/1", b"x" * 30_000)))
    print(error(lambda: store.swap("ns/lease", b"x" * 30_000, version)))
    print(store.list("ns/"), store.get("ns/lease"))
    ballast.unlink()
    store.create("ns/1", b"x" * 30_000)
    print(store.list("ns/"), len(store.get("ns/1")))
    """
    create, swap, before, after = mounted(script, tmp_path, own_mounts)
    says = "No space left on device; free some space there, then resume the run"
    assert create == f"StoreUnavailable: {tmp_path}/ns/1: {says}"
    assert swap == f"StoreUnavailable: {tmp_path}/ns/lease: {says}"
    assert before == "['ns/lease'] b'1'"
    assert after == "['ns/1', 'ns/lease'] 30000"


def test_a_read_only_disk_can_be_read(tmp_path: Path, own_mounts: tuple[str, ...]) -> None:
    script = """
    mount("size=64k")
    store.create("ns/1", b"1")
    subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
    for opened in (store, FolderStore(sys.argv[1])):
        print(error(lambda: opened.create("ns/2", b"2")))
        print(error(lambda: opened.create("new/2", b"2")))
        print(error(lambda: opened.swap("ns/1", b"2", opened.read_version("ns/1")[1])))
        print(error(opened.probe))
    print(store.list(""), store.get("ns/1"))
    """
    *errors, read = mounted(script, tmp_path, own_mounts)
    assert len(errors) == 8
    for error in errors:
        assert error.startswith(f"StoreUnfit: {tmp_path}/")
        assert error.endswith(
            "Read-only file system; make the folder writable for this user, or choose another one with --store"
        )
    assert read == "['ns/1'] b'1'"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EMFILE, StoreUnavailable),
        (errno.EACCES, StoreUnfit),
        (errno.EPERM, StoreUnfit),
        (errno.EROFS, StoreUnfit),
        (errno.ENOTDIR, StoreUnfit),
        (errno.ENAMETOOLONG, StoreUnfit),
    ],
)
def test_errors_say_what_and_where_and_what_to_do(number: int, kind: type[StoreError]) -> None:
    error = explained(OSError(number, os.strerror(number)), Path("/data/ns/run"))
    assert type(error) is kind
    text = str(error)
    assert text.startswith(f"/data/ns/run: {os.strerror(number)}; ")
    assert "--store" in text or "resume the run" in text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "empty"),
        ("s3://", "is not a store: write s3://BUCKET/PREFIX"),
        ("s3:///prefix", "is not a store"),
        ("s3://bu cket/prefix", "is not a store"),
        ("s3://bucket//prefix", "the prefix after the bucket"),
        ("s3://bucket/../prefix", "the prefix after the bucket"),
        ("s3://bucket/pre?fix=1", "the prefix after the bucket"),
        ("s3://bucket/" + "p" * 101, "100 characters"),
        ("S3://bucket", "S3: is not a kind of store"),
        ("s3:bucket", "s3: is not a kind of store"),
        ("gs://bucket/prefix", "gs: is not a kind of store"),
        ("file:///data", "file: is not a kind of store"),
        ("postgres://u:hunter2@db/x", "postgres: is not a kind of store"),
        ("s3://AKIA:hunter2@bucket/prefix", "contains credentials"),
    ],
)
def test_addresses_that_are_no_store(url: str, says: str) -> None:
    with pytest.raises(StoreUnfit, match=says) as refused:
        open_store(url)
    assert "hunter2" not in str(refused.value)


def test_a_working_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreUnfit, match="the working folder is gone"):
        open_store(".agentrun")
    assert open_store(str(tmp_path)).url == str(tmp_path)
