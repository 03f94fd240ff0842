"""Identifies a process, so that another process on the same machine can tell whether it is still alive.

A process id alone is not enough: ids are reused, mean nothing after a reboot, and differ inside and outside a
container. The identity therefore also holds the boot, the pid namespace and the start time (proc(5)). If the system
does not provide all of them, or the process ran elsewhere (another host, boot or pid namespace), the process is
"unknown": neither alive nor dead. Code that must know watches for its signs of life (``local/lease.py``).
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Literal

_PROC = Path("/proc")

Life = Literal["alive", "dead", "unknown"]


def this_process() -> dict[str, Any]:
    """The identity of the calling process, as JSON."""
    return {"host": platform.node(), "place": _place(), "pid": os.getpid(), "started": _started(os.getpid())}


def surely_dead(process: dict[str, Any]) -> bool:
    """Whether ``process`` ran here and has ended. False if it is alive or if that is unknown."""
    return life_of(process) == "dead"


def surely_alive(process: dict[str, Any]) -> bool:
    """Whether ``process`` runs here now. False if it has ended or if that is unknown."""
    return life_of(process) == "alive"


def life_of(process: dict[str, Any]) -> Life:
    """Whether ``process`` is alive, as far as it can be told from here. A zombie is dead.

    The identity comes from a store, so its form is checked.
    """
    place, pid, started = process.get("place"), process.get("pid"), process.get("started")
    if not place or process.get("host") != platform.node() or place != _place():
        return "unknown"  # another host, boot or container: its process ids mean nothing here
    if not isinstance(pid, int) or pid <= 0 or started is None:
        return "unknown"
    now = _started(pid)
    if now is not None:
        return "alive" if now == started else "dead"
    return "unknown" if _is_hidden(pid) else "dead"


def _is_hidden(pid: int) -> bool:
    """Whether a process with that id exists but is not shown, because another user owns it (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False  # ours: a zombie


def _place() -> str:
    """This boot and pid namespace; empty if the system does not provide them."""
    if not (_PROC / "self").exists():
        return _answer("sysctl", "-n", "kern.bootsessionuuid")  # macOS
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return ""


def _started(pid: int) -> int | str | None:
    """When a process started: clock ticks since boot, or the output of ps(1) if there is no /proc. None if the process
    has ended, even if it is not reaped yet.
    """
    if not (_PROC / "self").exists():
        state, _, started = _answer("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
        return None if state.startswith("Z") else started.strip() or None
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _answer(*command: str) -> str:
    """The output of a system program; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
