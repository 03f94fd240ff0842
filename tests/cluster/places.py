"""Shared by all parts of the test cluster: the cache folder, messages to the person, locks, commands and errors."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Say = Callable[[str], None]
"""Tells the person what takes time."""


class MissingError(RuntimeError):
    """This machine lacks something for a test cluster. The text tells the person what to do."""


class FailedError(RuntimeError):
    """A part of the cluster did not do what it should. The text has its last output."""


def cache() -> Path:
    """The folder for everything that outlives a test run. Created if it does not exist."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrun"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(text: str) -> None:
    """Print a line for the person, on standard error."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock ``name``. A second process waits, and then finds the first one's work done."""
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run ``command`` to its end, and return its standard output. ``env`` is added to this process's environment.

    Raises:
        FailedError: its exit code is not 0.

    """
    done = subprocess.run(
        command,
        env=os.environ | (env or {}),
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command)
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise FailedError(f"`{words}` ended with exit code {done.returncode}:\n{said}")
    return done.stdout
