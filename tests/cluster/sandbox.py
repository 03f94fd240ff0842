"""A small machine inside this one: namespaces for processes, mounts and network, which always end completely.

Everything that a cluster starts lives in namespaces whose process 1 only waits. When process 1 ends, the kernel kills
all processes in them, however deep they were forked. With the last process the mounts, bridges, addresses and iptables
chains disappear; other software on this machine never sees them. Process 1 of a test's sandbox reads a pipe that the
test process holds, so the cluster of a killed test run ends too. Process 1 of `make cluster` waits for ever, and is
found again by its command line, which has the folder's name.

One pair of network devices connects the sandbox to the machine, with a network of two addresses: ``outside`` is this
machine's, ``inside`` the sandbox's. No other machine reaches either.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.component import Component, children, until
from tests.cluster.places import FailedError, locked, run

_WAITING = {True: "cat", False: "sleep infinity"}
"""The command of process 1. ``cat`` ends with the pipe, and so with the process that holds the pipe."""
_HOLDER = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
_PREFIX = "agentrun"
_NUMBER = "sandbox.number"
_MOUNTED = ("/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
"""Folders that are built into kubelet and containerd. In the sandbox they are the cluster's own.

On the machine they are mount points; empty folders are created if there were none. These stay, because removing a mount
point would unmount it in another sandbox.
"""
_CGROUPS = Path("/sys/fs/cgroup")


class Sandbox:
    """The namespaces. ``folder`` has everything that outlives a process in them; each sandbox has its own folder.

    Raises:
        FailedError: the kernel refuses namespaces or network devices; the message says which.

    """

    def __init__(self, folder: Path, *, bound: bool) -> None:
        """``bound``: the sandbox ends with this process."""
        self.folder = folder
        self._components: list[Component] = []
        waiting = f"trap '' CHLD; exec {_WAITING[bound]}"  # an ignored SIGCHLD survives exec: orphans leave no zombies
        with (folder / "sandbox.log").open("wb") as log:
            self._holder = subprocess.Popen(
                [*_HOLDER, waiting, str(folder)],
                stdin=subprocess.PIPE if bound else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.pid = until("process 1 of the sandbox", self._init)
            self._enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--"]
            self._mount()
            with locked("sandbox"):  # remove_cgroups would remove a group whose device does not exist yet
                self.number = self._connect()
                (folder / _NUMBER).write_text(str(self.number))
                self.cgroup = f"{_PREFIX}{self.number}"
                self._make_cgroup()
            network = list(_network(self.number).hosts())
            self.outside, self.inside = str(network[0]), str(network[1])
            self._address()
        except BaseException:
            self.close()
            raise

    def component(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Component:
        """A process in the sandbox, not started yet. Its output goes to ``folder/NAME.log``."""
        made = Component(name, command, self.folder / f"{name}.log", enter=self._enter, env=env)
        self._components.append(made)
        return made

    def run(self, *command: str | Path, stdin: str | None = None) -> str:
        """Run a command in the sandbox to its end, and return its standard output. Raises FailedError."""
        return run([*self._enter, *command], stdin=stdin)

    def close(self) -> None:
        """End everything in the sandbox. The caller removes ``folder``."""
        _end(self._holder.pid)
        if self._holder.stdin is not None:
            self._holder.stdin.close()
        self._holder.wait()
        for component in self._components:
            component.reap()
        _disconnect(self.folder)
        remove_cgroups()

    def _init(self) -> int | None:
        if self._holder.poll() is not None:
            said = (self.folder / "sandbox.log").read_text(errors="replace").strip()
            raise FailedError(
                f"this machine gives no namespaces for a sandbox (in a container it takes --privileged): {said}"
            )
        found = children(self._holder.pid)
        # unshare's child is process 1 from its start, but its mounts are ready only when it runs the waiting command.
        return found[0] if found and _command(found[0])[:1] in (["cat"], ["sleep"]) else None

    def _mount(self) -> None:
        script = ["set -e", "mount --make-rshared /", "mount -t tmpfs tmpfs /run"]
        for path in _MOUNTED:
            own = self.folder / path.strip("/").replace("/", "-")
            own.mkdir()
            Path(path).mkdir(parents=True, exist_ok=True)
            script.append(f"mount --rbind '{own}' {path}")
        self.run("sh", "-c", "\n".join(script))

    def _connect(self) -> int:
        """Take the first free network, by creating its device: the kernel accepts each name only once."""
        taken = [ipaddress.ip_network(line) for line in _routes()]
        for number in range(256):
            if any(_network(number).overlaps(other) for other in taken):
                continue
            try:
                run(
                    [
                        "ip",
                        "link",
                        "add",
                        f"{_PREFIX}{number}",
                        "type",
                        "veth",
                        "peer",
                        "name",
                        "eth0",
                        "netns",
                        str(self.pid),
                    ]
                )
            except FailedError as error:
                if "File exists" not in str(error):
                    raise
            else:
                return number
        raise FailedError(f"none of the networks {_network(0)} to {_network(255)} is free on this machine")

    def _address(self) -> None:
        device = f"{_PREFIX}{self.number}"
        run(["ip", "address", "add", f"{self.outside}/30", "dev", device])
        run(["ip", "link", "set", device, "up"])
        self.run(
            "sh",
            "-ec",
            f"""ip link set lo up
            ip address add {self.inside}/30 dev eth0
            ip link set eth0 up
            ip route add default via {self.outside}
            echo 1 >/proc/sys/net/ipv4/ip_forward
            # without it a pod does not reach a Service whose pod is on the same bridge
            test -e /proc/sys/net/bridge/bridge-nf-call-iptables || modprobe br_netfilter""",
        )

    def _make_cgroup(self) -> None:
        """Make a separate control group for the pods: a kubelet kills processes in its group that it does not know."""
        for hierarchy in _hierarchies():
            group = hierarchy / self.cgroup
            _remove_tree(group)  # left by a killed sandbox with this number
            group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists():
                    (group / name).write_text((hierarchy / name).read_text())


def find(folder: Path) -> int | None:
    """The process that holds the sandbox of ``folder``, whichever process made it; None if there is none."""
    for path in Path("/proc").glob("[0-9]*"):
        command = _command(int(path.name))
        if command[:1] == ["unshare"] and command[-1:] == [str(folder)]:
            return int(path.name)
    return None


def destroy(folder: Path) -> bool:
    """End the sandbox of ``folder``, whichever process made it. Returns whether there was one."""
    holder = find(folder)
    if holder is not None:
        _end(holder)
    _disconnect(folder)
    remove_cgroups()
    return holder is not None


def _end(holder: int) -> None:
    """Kill process 1 of the sandbox of ``holder``, and wait until it is gone: the kernel ends it last."""
    inits = children(holder)
    for pid in inits or [holder]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until("the end of the sandbox's processes", lambda: not any(_running(pid) for pid in inits))


def remove_cgroups() -> None:
    """Remove the control groups of sandboxes that are gone."""
    with locked("sandbox"):
        for hierarchy in [*_hierarchies(), _CGROUPS / "unified"]:  # if both versions exist, runc uses both
            for group in hierarchy.glob(f"{_PREFIX}[0-9]*"):
                if not Path("/sys/class/net", group.name).exists():
                    _remove_tree(group)


def _remove_tree(group: Path) -> None:
    """Remove a group and all groups in it, if it exists."""
    for inner in sorted(group.rglob("*/"), reverse=True):
        _remove(inner)
    _remove(group)


def _remove(group: Path) -> None:
    """Remove an empty group. Retries, because the kernel may take a moment to see that a killed process has left it."""

    def gone() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    until(f"an empty {group}", gone)


def _hierarchies() -> list[Path]:
    """The roots of control groups: one in version 2, one for each controller in version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink() and path.name != "unified"]


def _network(number: int) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"10.213.{number}.0/30")


def _routes() -> list[str]:
    found = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]))
    return [route["dst"] for route in found if route["dst"] != "default"]


def _disconnect(folder: Path) -> None:
    """Remove the pair of devices. The kernel would too, but only some time after the last process."""
    number = folder / _NUMBER
    if not number.exists():  # never connected, or removed already
        return
    device = f"{_PREFIX}{number.read_text()}"
    number.unlink()
    if Path("/sys/class/net", device).exists():
        try:
            run(["ip", "link", "delete", device])
        except FailedError as error:
            if "Cannot find device" not in str(error):  # the kernel has removed it already
                raise


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _running(pid: int) -> bool:
    """Whether ``pid`` runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
