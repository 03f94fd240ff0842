"""A store in a folder of this machine: every object is a file, and its key is the file's path.

A new object is written to a temporary file, flushed, and hard-linked to its name. ``link`` fails if the name exists, so
of any number of processes one wins, and nobody ever sees half an object. The flush of the directory makes the name as
durable as the bytes. Files that a crash leaves behind (``.new-*``) are never listed and may be deleted.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentrun.store.keys import check_folder, check_key, check_prefix, is_segment
from agentrun.store.protocol import KeyExists, KeyMissing, StoreError, StoreUnavailable, StoreUnfit

OBJECT_MAX = 1024 * 1024 * 1024
"""The largest file that is read, in bytes. agentrun writes none beyond a model's history of some hundred megabytes."""

_TEMPORARY = ".new-"
_LOCK = ".lock"
_LOCK_POLL = 0.005
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISPLACED = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EFBIG})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class FolderStore:
    """Objects as files below ``root``, which is created at the first write: folders 0700, files 0600.

    Safe for threads and for processes of one machine. ``lock_timeout``: seconds that ``swap`` waits for another
    process's ``swap`` before it raises StoreUnavailable.
    """

    def __init__(self, root: str | Path, *, lock_timeout: float = 10.0) -> None:
        self.url = str(root)
        self.remote = False
        self._root = Path(root).absolute()
        self._lock_timeout = lock_timeout
        # Directories whose own names are known to be on the disk. Losing this set costs one flush each.
        self._settled: set[Path] = set()

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, durably. Raises KeyExists, StoreUnavailable (a full disk) or StoreUnfit.

        After StoreUnavailable the object may exist: its name may be written, and only the last flush have failed.
        """
        check_key(key)
        with self._directory(self._root / key) as (directory, name):
            try:
                _publish(directory, name, data)
            except FileExistsError:
                raise KeyExists(f"{self._root / key} exists already") from None

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing, StoreUnavailable or StoreUnfit."""
        check_key(key)
        path = self._root / key
        with _explaining(path):
            try:
                return _read(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise KeyMissing(f"{path} does not exist") from None

    def list(self, prefix: str, after: str = "") -> list[str]:
        """Every key that starts with ``prefix`` and is greater than ``after``, sorted.

        Objects that are written meanwhile may be missing; objects that existed before are not.
        """
        check_prefix(prefix)
        with _explaining(self._root / prefix):
            self._check_root()
            return sorted(key for key in self._walk(prefix.rpartition("/")[0], prefix) if key > after)

    def children(self, prefix: str) -> builtins.list[str]:
        """The distinct next segments of the keys below ``prefix``, sorted. Folders without an object are left out."""
        check_folder(prefix)
        with _explaining(self._root / prefix):
            self._check_root()
            return sorted(
                name
                for name, is_folder in _entries(self._root / prefix)
                if not is_folder or self._holds_something(prefix + name)
            )

    def _holds_something(self, folder: str) -> bool:
        try:
            return any(True for _ in self._walk(folder, ""))
        except PermissionError:
            return True  # list it: reading it raises the error, and the folders beside it stay readable

    def _check_root(self) -> None:
        if self._root.is_file():
            raise StoreUnfit(f"{self._root} is a file, not a folder: name the folder where runs are kept")

    def read_version(self, key: str) -> tuple[bytes, str]:
        """The object and the hash of its bytes. Raises KeyMissing, StoreUnavailable or StoreUnfit."""
        data = self.get(key)
        return data, _version(data)

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        """Replace the object if it still has ``version`` (None: if there is no object). Return the new version.

        Raises KeyExists if the object has another version by now, or is gone.
        """
        check_key(key)
        if version is None:
            self.create(key, data)
            return _version(data)
        path = self._root / key
        # No other process may rename between our read of the version and our rename: its update would be lost.
        with self._lock():
            try:
                _, current = self.read_version(key)
            except KeyMissing:
                raise KeyExists(f"{path} is gone") from None
            if current != version:
                raise KeyExists(f"{path} was changed meanwhile")
            with self._directory(path) as (directory, name):
                _replace(directory, name, data)
        return _version(data)

    def probe(self) -> None:
        """Check that the folder takes files and links, that a second link to one name fails, and that the lock is free.

        Raises StoreUnfit (no permission, no hard links) or StoreUnavailable (a full disk, a lock that stays held).
        """
        with self._directory(self._root / f".probe-{secrets.token_hex(8)}") as (directory, name):
            _publish(directory, name, b"probe")
            try:
                _publish(directory, name, b"again")
            except FileExistsError:
                pass
            else:
                raise StoreUnfit(
                    f"{self._root}: this file system lets two writers create one file, so two processes could both "
                    "believe that they own a run; choose a folder on a local disk with --store"
                )
            finally:
                os.unlink(name, dir_fd=directory)
        with self._lock():
            return

    @contextmanager
    def _directory(self, path: Path) -> Iterator[tuple[int, str]]:
        """Open the directory of ``path``, creating it if it is missing. Yields it and the last part of ``path``."""
        with _explaining(path):
            folder = path.parent
            try:
                self._settle(folder)
                directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                # Somebody removed the directory meanwhile, for example to delete a run.
                self._settled.clear()
                self._settle(folder)
                directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield directory, path.name
            finally:
                os.close(directory)

    def _settle(self, folder: Path) -> None:
        """Make sure that ``folder`` exists and that its name survives a crash.

        The name of an existing folder is flushed as well, at its first use: another process may have just created it
        and not have flushed it yet. Folders above the root that exist are left alone: we may not be allowed to open
        them.
        """
        if folder in self._settled:
            return
        if len(folder.parts) > len(self._root.parts) or not folder.is_dir():
            self._settle(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _flush(parent)
            finally:
                os.close(parent)
        self._settled.add(folder)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the store's one lock. The kernel frees it when the process dies, so nobody has to clean up.

        A stopped process keeps the lock, hence the deadline. Raises StoreUnavailable after it.
        """
        with self._directory(self._root / _LOCK) as (directory, name):
            lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=directory)
            try:
                deadline = time.monotonic() + self._lock_timeout
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > deadline:
                            raise StoreUnavailable(
                                f"{self._root / _LOCK}: another process has held this lock for "
                                f"{self._lock_timeout:g} s; find it (lslocks), let it go on or end it, then try again"
                            ) from None
                        time.sleep(_LOCK_POLL)
                yield
            finally:
                os.close(lock)

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        """The keys below ``folder`` that start with ``prefix``, in no order."""
        start = f"{folder}/" if folder else ""
        for name, is_folder in _entries(self._root / folder):
            key = start + name
            if not key.startswith(prefix):
                continue
            if is_folder:
                yield from self._walk(key, prefix)
            else:
                yield key


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Name of each entry that can be part of a key, and whether it is a folder; empty if ``folder`` is none."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries if is_segment(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a loop of symbolic links


def _read(path: Path) -> bytes:
    """The bytes of a regular file. Raises StoreUnfit for anything else: a pipe could block its reader for ever."""
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise StoreUnfit(f"{path} is not a file, so agentrun did not make it: remove it")
        if found.st_size > OBJECT_MAX:
            raise StoreUnfit(f"{path} has {found.st_size:,} bytes; agentrun writes no object that large: remove it")
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _write(directory: int, data: bytes) -> str:
    """Write ``data`` to a new temporary file and flush it. Return the file's name."""
    name = _TEMPORARY + secrets.token_hex(8)
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        _flush(file)
    except BaseException:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(file)
    return name


def _publish(directory: int, name: str, data: bytes) -> None:
    """Write ``data`` under ``name``, durably. Raises FileExistsError."""
    temporary = _write(directory, data)
    try:
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreUnfit(
                f"the file system cannot make hard links ({error.strerror}), which is how one writer wins; "
                "choose a folder on a local disk with --store"
            ) from error
        raise
    finally:
        # Flush also if the name exists: its writer may have died between the link and the flush, and a caller that
        # finds its own bytes there takes them for committed.
        os.unlink(temporary, dir_fd=directory)
        _flush(directory)


def _replace(directory: int, name: str, data: bytes) -> None:
    """Replace the file ``name`` by one with ``data``, atomically and durably."""
    temporary = _write(directory, data)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(temporary, dir_fd=directory)
        raise
    _flush(directory)


def _flush(descriptor: int) -> None:
    """Wait until the file or directory is on the disk itself."""
    if sys.platform == "darwin":
        # On macOS, fsync stops at the drive's cache (fcntl(2), F_FULLFSYNC). Network file systems know only fsync.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn an OSError about ``path`` into a StoreError that tells a person what to do."""
    try:
        yield
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path) -> StoreError:
    """``error`` as StoreUnfit if a person has to act, as StoreUnavailable if waiting may help."""
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return StoreUnavailable(f"{path}: {reason}; free some space there, then resume the run")
    if error.errno in _FORBIDDEN:
        return StoreUnfit(
            f"{path}: {reason}; make the folder writable for this user, or choose another one with --store"
        )
    if error.errno in _MISPLACED:
        return StoreUnfit(f"{path}: {reason}; a file can't be kept there: choose another folder with --store")
    return StoreUnavailable(f"{path}: {reason}; check the disk or the mount, then resume the run")
