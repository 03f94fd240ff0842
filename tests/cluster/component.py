"""A process of the cluster that tests can stop, pause and start again."""

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
"""The default limit for waiting, in seconds."""


def until(what: str, test: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Call ``test`` until its result is true, and return the result.

    Raises:
        FailedError: ``test`` was not true within ``patience`` seconds.

    """
    end = time.monotonic() + patience
    while not (found := test()):
        if time.monotonic() > end:
            raise FailedError(f"{what} did not come within {patience:g} s")
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    """The children of ``pid`` that it has not waited for; empty if ``pid`` is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Component:
    """A process that can be stopped, paused and started again. ``log`` has the output of every start.

    ``enter`` is a command that runs another command elsewhere, like nsenter. The process is then a child of ``enter``.
    Without ``enter`` it is a child of this process, and the kernel kills it when the thread that started it ends.
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
        """Start the process. The caller checks whether it works (``ready``)."""
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
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id on this machine. Raises FailedError if the process does not run."""

        def found() -> int | None:
            self.check()
            assert self._process is not None
            if not self._entered:
                return self._process.pid
            return next(iter(children(self._process.pid)), None)

        return until(f"a process of {self.name}", found)

    def check(self) -> None:
        """Raise FailedError, with the end of the log, if the process has ended."""
        if not self.running:
            raise FailedError(f"{self.name} has ended; it said in {self.log}:\n{self.said()}")

    def said(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def ready(self, what: str, test: Callable[[], T | None], patience: float = PATIENCE) -> T:
        """Call ``test`` until its result is true, and return the result.

        Raises:
            FailedError: the process ended, or ``test`` was not true within ``patience`` seconds.
        """

        def asked() -> T | None:
            self.check()
            return test()

        try:
            return until(f"{self.name}: {what}", asked, patience)
        except FailedError as error:
            raise FailedError(f"{error}\nThe end of {self.log}:\n{self.said()}") from None

    def send(self, number: signal.Signals) -> None:
        """Send a signal. SIGSTOP pauses the process, SIGCONT continues it. Raises FailedError if it does not run."""
        os.kill(self.pid, number)
        if number == signal.SIGCONT and self._entered:
            assert self._process is not None
            os.kill(self._process.pid, number)  # nsenter stops itself when its child is stopped

    def stop(self, number: signal.Signals = signal.SIGTERM, patience: float = 15.0) -> None:
        """Send a signal, then SIGKILL after ``patience`` seconds, and wait for the end of the process."""
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
        """Wait for the end of the process, which others have killed."""
        if self._process is not None:
            self._process.wait()

    def restart(self) -> None:
        """Stop the process and start it again."""
        self.stop()
        self.start()
