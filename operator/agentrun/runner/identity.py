"""Which process this is, so that another one on the same machine can tell whether it still lives.

A process id alone is not enough: ids are reused, after a restart they mean nothing, and in a container they are
others than outside. So the boot, the pid namespace and the start time stand beside it (proc(5)).
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """The identity of the calling process, as JSON."""
    return {"host": platform.node(), "place": _place(), "pid": os.getpid(), "started": _started(os.getpid())}


def surely_dead(process: dict[str, Any]) -> bool:
    """Whether ``process`` ran here and is gone. False where it lives, or where that cannot be told from here."""
    if not process or process.get("host") != platform.node() or process.get("place") != _place():
        return False
    return not alive(process)


def surely_alive(process: dict[str, Any]) -> bool:
    """Whether ``process`` runs on this machine now."""
    return (
        bool(process) and process.get("host") == platform.node() and process.get("place") == _place() and alive(process)
    )


def alive(process: dict[str, Any]) -> bool:
    """Whether a process of that id and start time exists here; a zombie that nobody has reaped does not."""
    pid = int(process["pid"])
    if _PROC.joinpath("self").exists():
        return _started(pid) == process["started"] and _started(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place() -> str:
    """This boot and this pid namespace; empty where the system does not say."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Clock ticks from boot to the process's start; None for a process that is gone or only waits to be reaped."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
