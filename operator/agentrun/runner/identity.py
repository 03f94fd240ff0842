"""Which process this is, so that another one on the same machine can tell whether it still lives.

A process id alone is not enough: ids are reused, mean nothing after a reboot, and differ inside and outside a
container. So the boot, the pid namespace and the start time stand beside it (proc(5)). Where the system does not give
all of them, or the process ran at another place (another host, boot or pid namespace), nothing is told of it from
here: it counts neither as alive nor as dead, and whoever must know watches for its signs of life (``local/lease.py``).
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
    """Whether ``process`` ran here and is gone. False where it lives, or where that cannot be told from here."""
    return life_of(process) == "dead"


def surely_alive(process: dict[str, Any]) -> bool:
    """Whether ``process`` runs on this machine now."""
    return life_of(process) == "alive"


def life_of(process: dict[str, Any]) -> Life:
    """Whether the process of that identity lives, as far as this place can tell. A zombie does not live.

    The identity comes from a store, so nothing about its form is taken for granted.
    """
    place, pid, started = process.get("place"), process.get("pid"), process.get("started")
    if not place or process.get("host") != platform.node() or place != _place():
        return "unknown"  # a reboot, another container: its process ids mean nothing here
    if not isinstance(pid, int) or pid <= 0 or started is None:
        return "unknown"
    now = _started(pid)
    if now is not None:
        return "alive" if now == started else "dead"
    return "unknown" if _is_hidden(pid) else "dead"


def _is_hidden(pid: int) -> bool:
    """Whether a process of that id exists and belongs to somebody whose processes are not shown (``hidepid``)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False  # ours: a zombie


def _place() -> str:
    """This boot and this pid namespace; empty where the system does not say."""
    if not (_PROC / "self").exists():
        return _answer("sysctl", "-n", "kern.bootsessionuuid")  # macOS
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return ""


def _started(pid: int) -> int | str | None:
    """When a process started: clock ticks from boot, or what ps(1) says where there is no /proc. None for one that is
    gone or only waits to be reaped.
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
    """What a program of the system prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
