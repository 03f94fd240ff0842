"""A process of the cluster that tests stop, pause and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.cluster.places import FailedError

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds after which what should have come is missed."""


def until(what: str, test: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Ask ``test`` until it gives something; what it gave.

    Raises:
        FailedError: nothing came within ``patience`` seconds.

    """
    end = time.monotonic() + patience
    while not (found := test()):
        if time.monotonic() > end:
            raise FailedError(f"{what} did not come within {patience:g} s")
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that have not been waited for; none where it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Component:
    """A process that can be ended, paused and started again. ``log`` takes its output, of every start.

    ``enter`` is a command that runs another one elsewhere, as nsenter does: then the process is its child. Without it,
    the process is this one's child and is killed by the kernel when the thread that started it ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        enter: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._entered = bool(enter)
        self._command = [*(enter or ("setpriv", "--pdeathsig", "KILL")), *command]
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Component:
        """Start it. Whether it does its work is for the caller to find out."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id on this machine. Raises FailedError where it does not run."""

        def found() -> int | None:
            self.check()
            assert self._process is not None
            if not self._entered:
                return self._process.pid
            return next(iter(children(self._process.pid)), None)

        return until(f"a process of {self.name}", found)

    def check(self) -> None:
        """Raise FailedError with its last words if it has ended."""
        if not self.running:
            raise FailedError(f"{self.name} has ended; it said in {self.log}:\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def ready(self, what: str, test: Callable[[], T | None], patience: float = PATIENCE) -> T:
        """Ask ``test`` until it gives something, as long as the process runs. Raises FailedError."""

        def asked() -> T | None:
            self.check()
            return test()

        try:
            return until(f"{self.name}: {what}", asked, patience)
        except FailedError as error:
            raise FailedError(f"{error}\nThe end of {self.log}:\n{self.said()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP pauses it, SIGCONT lets it go on. Raises FailedError where it does not run."""
        os.kill(self.pid, number)
        if number == signal.SIGCONT and self._entered:
            assert self._process is not None
            os.kill(self._process.pid, number)  # nsenter stops itself when its child is stopped

    def stop(self, number: signal.Signals = signal.SIGTERM, patience: float = 15.0) -> None:
        """End it by a signal, by SIGKILL if it does not heed, and wait for its end."""
        if self._process is None:
            return
        if self.running:
            self.send(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
        self._process.wait()

    def reap(self) -> None:
        """Wait for the end of a process that others have killed."""
        if self._process is not None:
            self._process.wait()

    def restart(self) -> None:
        """End it and start it again."""
        self.stop()
        self.start()
