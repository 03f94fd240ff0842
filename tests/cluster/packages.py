"""The programs that come from the system's packages: installed where this is root on Debian, said otherwise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cluster.places import MissingError, Say, locked, run, say

_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NODE = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "/bin/busybox": "busybox-static",
    "openssl": "openssl",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""What a node needs: a program, and the package that has it."""
IMAGE = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
"""What building the image needs."""


def need_root() -> None:
    """Raise MissingError where this is not root: namespaces, mounts and network devices are root's."""
    if os.geteuid() != 0:
        raise MissingError(
            "a cluster with a node needs root: run it as root, or use a cluster of yours, see tests/cluster/README.md"
        )


def ensure(needs: dict[str, str], tell: Say = say) -> None:
    """Install what is missing of ``needs``, and nothing else.

    Raises:
        MissingError: something is missing and cannot be installed here.
        FailedError: apt-get failed.

    """
    packages = _missing(needs)
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise MissingError(
            f"packages (by Debian's names) are missing, which root on a system with apt-get could install: {names}"
        )
    with locked("packages"):
        if not (packages := _missing(needs)):
            return
        tell(f"installing packages: {names}")
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], env=environment)
        # Nothing may be removed: another vendor's containerd, say, conflicts with Debian's and belongs to the person.
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--no-remove", *packages], env=environment)
    if left := _missing(needs):
        raise MissingError(f"installed, and yet these lack a program that the cluster needs: {' '.join(left)}")


def _missing(needs: dict[str, str]) -> list[str]:
    """The packages whose programs are not there, each once."""
    return list(dict.fromkeys(package for name, package in needs.items() if not _there(name)))


def _there(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=_PLACES) is not None
