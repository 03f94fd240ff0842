"""A process that has everything imported and forks: a runner in milliseconds in place of seconds.

What it forks is a process like any other, killed and stopped by signals like any other; only the imports are
shared. Whoever wants one connects to the zygote's socket, sends a request with three descriptors (standard input,
output and error) and hears on the same connection: ``{"pid": …}``, ``{"stopped": …}`` for each SIGSTOP, and
``{"exit": code}``, negative for a signal; ``{"kill": pid}`` on it kills the process, if it is there.
``{"gone": true}`` is answered with all exit codes when nothing that was forked under the request's ``tag`` lives any
more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.local.processes import LINE_MAX, Child, OnLine

MESSAGE_MAX = 128 * 1024
SOCKET_VARIABLE = "CRASH_ZYGOTE"
TAG_VARIABLE = "CRASH_TAG"


class Server:
    """The zygote's own loop: one thread, so that forking is safe."""

    def __init__(self, path: str, roles: Mapping[str, Callable[[], int]]) -> None:
        self._roles = roles
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(path)
        self._listening.listen(128)
        self._children: dict[int, tuple[str, socket.socket]] = {}
        self._exits: dict[str, list[int]] = {}
        self._waiting: list[tuple[str, socket.socket]] = []
        self._selector = selectors.SelectSelector()  # without a descriptor of its own
        self._wake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._keep = wake

    def serve(self) -> None:
        """Until standard input ends: then whoever started this is gone."""
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    self._selector.register(self._listening.accept()[0], selectors.EVENT_READ)
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                elif isinstance(key.fileobj, int):
                    self._end()
                    return
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._request(key.fileobj)
            self._reap()

    def _request(self, connection: socket.socket) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(connection, MESSAGE_MAX, 3)
        except ConnectionResetError:  # it was killed with an answer unread
            data, fds = b"", []
        if not data:
            self._selector.unregister(connection)
            if all(connection is not c for _, c in self._children.values()):
                connection.close()
            return
        request = json.loads(data)
        if "kill" in request:
            if request["kill"] in self._children:  # only who is not reaped has the id still
                os.kill(request["kill"], signal.SIGKILL)
            return
        if "gone" in request:
            self._waiting.append((request["tag"], connection))
            return
        pid = os.fork()
        if pid == 0:
            self._become(request, fds)
        for fd in fds:
            os.close(fd)
        self._children[pid] = (request["tag"], connection)
        _tell(connection, {"pid": pid})

    def _become(self, request: dict[str, Any], fds: list[int]) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.environ.clear()
            os.environ.update(request["env"])
            code = self._roles[request["role"]]()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                _tell(self._children[pid][1], {"stopped": os.WSTOPSIG(status)})
                continue
            tag, connection = self._children.pop(pid)
            self._exits.setdefault(tag, []).append(os.waitstatus_to_exitcode(status))
            _tell(connection, {"exit": self._exits[tag][-1]})
        for tag, connection in list(self._waiting):
            if all(tag != other for other, _ in self._children.values()):
                self._waiting.remove((tag, connection))
                _tell(connection, {"gone": self._exits.get(tag, [])})

    def _end(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # whoever asked was killed: nobody needs to know
        connection.send(json.dumps(message).encode())


@dataclass
class Forked:
    """A process that the zygote forked for a test."""

    pid: int
    connection: socket.socket
    ended: bool = False

    def next(self, timeout: float = 60.0) -> dict[str, Any]:
        """What happens to it next: it was stopped, or it ended. Raises TimeoutError."""
        self.connection.settimeout(timeout)
        found: dict[str, Any] = json.loads(self.connection.recv(MESSAGE_MAX))
        return found

    def exit(self, timeout: float = 60.0) -> int:
        """Its exit code, negative for a signal. Raises TimeoutError."""
        while True:
            message = self.next(timeout)
            if "exit" in message:
                self.ended = True
                self.connection.close()
                return int(message["exit"])

    def abandon(self) -> None:
        """Leave nothing behind of a process that a failed test did not wait for."""
        if not self.ended:
            self.connection.send(json.dumps({"kill": self.pid}).encode())  # it may be gone, and its id another's
            self.exit()


class Zygote:
    """A zygote for tests, as a context manager; ``module`` is what it runs, which calls ``serve`` with its roles."""

    def __init__(self, folder: Path, environment: Mapping[str, str], module: str = "tests.crash.roles") -> None:
        # A socket's path may have about a hundred bytes, which a test's folder may not leave.
        self.path = os.path.relpath(folder / "zygote")
        if len(self.path) > 100:
            self.path = str(folder / "zygote")
        self._environment = dict(environment)
        self._module = module

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"the zygote does not start: {line!r}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def fork(self, role: str, tag: str, environment: Mapping[str, str], out: BinaryIO, err: BinaryIO) -> Forked:
        """A process in ``role`` that reads nothing and writes to ``out`` and ``err``."""
        with Path(os.devnull).open("rb") as nothing:
            fds = [nothing.fileno(), out.fileno(), err.fileno()]
            connection = ask(self.path, role, tag, environment, fds)
        return Forked(json.loads(connection.recv(MESSAGE_MAX))["pid"], connection)

    def wait_gone(self, tag: str, timeout: float = 60.0) -> list[int]:
        """Wait until nothing that was forked under ``tag`` lives; how all of it ended. Raises TimeoutError."""
        with _connect(self.path) as connection:
            connection.settimeout(timeout)
            connection.send(json.dumps({"gone": True, "tag": tag}).encode())
            found: list[int] = json.loads(connection.recv(MESSAGE_MAX))["gone"]
            return found


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    return connection


def ask(path: str, role: str, tag: str, environment: Mapping[str, str], fds: list[int]) -> socket.socket:
    """Ask the zygote at ``path`` to fork; the connection on which it tells the rest."""
    connection = _connect(path)
    request = {"role": role, "tag": tag, "env": dict(environment)}
    socket.send_fds(connection, [json.dumps(request).encode()], fds)
    return connection


class ZygoteProcesses:
    """The driver's ``Processes``: attempts forked by the zygote, on the same pipes and leash as children have."""

    async def start(self, spec: AttemptSpec, on_line: OnLine) -> Child:
        path, tag = os.environ[SOCKET_VARIABLE], os.environ[TAG_VARIABLE]
        environment = os.environ | {STEP_VARIABLE: spec.to_json()}
        pipes = [os.pipe() for _ in range(3)]
        (their_in, leash), (out, their_out), (err, their_err) = pipes
        connection = ask(path, "runner", tag, environment, [their_in, their_out, their_err])
        for fd in (their_in, their_out, their_err):
            os.close(fd)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        pid = json.loads(await loop.sock_recv(connection, MESSAGE_MAX))["pid"]
        process = _Process(pid, connection, leash, await _reader(out), await _reader(err))
        return Child(process, on_line)  # type: ignore[arg-type]  # it is all of a process that a Child uses


class _Process:
    """What ``Child`` uses of ``asyncio.subprocess.Process``."""

    def __init__(
        self, pid: int, connection: socket.socket, leash: int, out: asyncio.StreamReader, err: asyncio.StreamReader
    ) -> None:
        self.pid, self.stdout, self.stderr = pid, out, err
        self.returncode: int | None = None
        self._connection, self._leash = connection, leash

    async def wait(self) -> int:
        loop = asyncio.get_running_loop()
        while self.returncode is None:
            message = json.loads(await loop.sock_recv(self._connection, MESSAGE_MAX))
            self.returncode = message.get("exit")
        self._connection.close()
        os.close(self._leash)
        return self.returncode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_MAX)
    pipe = os.fdopen(fd, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


def serve(path: str, roles: Mapping[str, Callable[[], int]]) -> None:
    """Be the zygote. The caller has imported what the roles need."""
    gc.collect()
    gc.freeze()  # what is imported is never looked at again, so its pages stay shared
    server = Server(path, roles)
    print("ready", flush=True)
    server.serve()
