"""Where the test cluster keeps things, how it speaks to the person, and what it says when something is missing."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Say = Callable[[str], None]
"""Tells the person what takes time now."""


class MissingError(RuntimeError):
    """What this machine lacks for a test cluster; the text is for the person and says what to do."""


class FailedError(RuntimeError):
    """A part of the cluster did not do what it should; the text has what it said last."""


def cache() -> Path:
    """The folder for everything that outlives a test run; made if it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrun"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def say(text: str) -> None:
    """Print a line for the person, on standard error."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock ``name``: a second process waits for the first one's work and then finds it done."""
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
    """Run ``command`` to its end; its standard output. ``env`` is added to this process's environment.

    Raises:
        FailedError: it ended with another code than 0.

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
