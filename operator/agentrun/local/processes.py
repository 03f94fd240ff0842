"""Step processes on one machine: the same runner that a pod runs, started as a child process.

A child has a process group of its own, so Ctrl-C reaches only the driver. It also has a leash: its standard input is a
pipe that only the driver holds open, so the child leaves by itself if the driver dies in any way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentrun.attempt.environment import GRACE, SECRETS_VARIABLE, STEP_VARIABLE, TERMINATION_VARIABLE
from agentrun.attempt.exit_codes import Exit
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.signatures import KEY_VARIABLE

LINE_MAX = 1024 * 1024
"""The longest line of a child's output that is read, in bytes. The runner's own lines are far shorter."""

PYTHON = (sys.executable, "-E", "-P")
"""The interpreter of our own processes: it imports nothing from the working directory and ignores PYTHON variables,
except those for which ``own_environment`` is needed.
"""

_USER_BASE = "PYTHONUSERBASE"

SPARE = 16
"""Descriptors that are kept free for the driver: it must be able to read its store while all its children work."""

OnLine = Callable[[dict[str, Any]], None]


def own_environment() -> dict[str, str]:
    """The variables that our own processes inherit: all except those that Python reads.

    ``-E`` leaves two of them in force: the module ``site`` imports usercustomize from PYTHONUSERBASE, and
    PYTHONEXECUTABLE takes the interpreter out of its virtual environment. PYTHONUSERBASE is passed on only where
    agentrun itself is installed there.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    base = os.environ.get(_USER_BASE)
    return found | {_USER_BASE: base} if base and _is_installed_in(base) else found


def _is_installed_in(base: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415  (takes 20 ms; rarely needed)

    try:
        ours = os.path.realpath(str(distribution("agentrun").locate_file("")))
    except PackageNotFoundError:
        return False
    return ours.startswith(os.path.join(os.path.realpath(base), ""))  # noqa: PTH118


class Process(Protocol):
    """A running attempt."""

    pid: int

    async def ended(self) -> tuple[int, dict[str, Any] | None]:
        """Wait for the end. Return the exit code (negative: the signal) and the termination message, if it is whole."""
        ...

    def stop(self) -> None:
        """Ask the process to leave (SIGTERM). A second call kills it, and so does the end of the grace period."""
        ...


class Processes(Protocol):
    """Starts attempts."""

    async def start(self, spec: AttemptSpec, on_line: OnLine) -> Process:
        """Begin an attempt. ``on_line`` gets each line of its progress. Raises OSError if no process can be started."""
        ...


@dataclass(slots=True)
class ChildProcesses:
    """Attempts as child processes."""

    secrets: str | None = None
    command: Sequence[str] = field(default_factory=lambda: (*PYTHON, "-m", "agentrun.runner"))

    async def start(self, spec: AttemptSpec, on_line: OnLine) -> Child:
        """See ``Processes``."""
        _check_descriptors()
        environment = own_environment()
        environment.pop(KEY_VARIABLE, None)  # a step does not sign
        environment.pop(TERMINATION_VARIABLE, None)
        environment[STEP_VARIABLE] = spec.to_json()
        if self.secrets is not None:
            environment[SECRETS_VARIABLE] = self.secrets
        child = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            process_group=0,
            limit=LINE_MAX,
        )
        return Child(child, on_line)


def _check_descriptors() -> None:
    """Raise OSError (EMFILE, ENFILE) if fewer than ``SPARE`` descriptors are left."""
    with contextlib.ExitStack() as opened:
        for _ in range(SPARE):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))


class Child:
    """One attempt as a child process."""

    def __init__(self, child: asyncio.subprocess.Process, on_line: OnLine) -> None:
        self._child = child
        self.pid = child.pid
        self._on_line = on_line
        self._stops = 0
        self._end = asyncio.ensure_future(self._watch())

    async def ended(self) -> tuple[int, dict[str, Any] | None]:
        """See ``Process``. Cancellation leaves the child running."""
        return await asyncio.shield(self._end)

    def stop(self) -> None:
        """See ``Process``."""
        self._stops += 1
        if self._child.returncode is not None:
            return
        if self._stops > 1:
            self._kill()
            return
        self._child.send_signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(GRACE + 10.0, self._kill)

    def _kill(self) -> None:
        if self._child.returncode is None:
            self._child.kill()

    async def _watch(self) -> tuple[int, dict[str, Any] | None]:
        assert self._child.stdout is not None
        out, _ = await asyncio.gather(self._child.stdout.read(), self._lines())
        code = await self._child.wait()
        try:
            message = json.loads(out) if out else None
        except ValueError:
            message = None  # killed while it wrote: the journal tells how the step stands
        return code, message

    async def _lines(self) -> None:
        assert self._child.stderr is not None
        while True:
            try:
                line = await self._child.stderr.readline()
            except ValueError:
                continue  # longer than LINE_MAX: not a line of the runner
            if not line:
                return
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict) and "event" in value:
                self._on_line(value)
            else:
                self._on_line({"event": "output", "text": line.decode(errors="replace").rstrip("\n")})


def how_it_ended(code: int) -> str:
    """How a process that left no last word ended, in words, by its exit code (negative: the signal)."""
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL): perhaps the machine ran out of memory"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"its process was ended by {name}"
    known = {
        Exit.FAILED: "it crashed: agentrun logs has the trace",
        Exit.STORE: "the store was out of reach, or an object of it is damaged",
        Exit.FENCED: "another attempt took over the step",
    }
    return f"its process left with exit code {code}" + (f" ({known[Exit(code)]})" if code in set(known) else "")
