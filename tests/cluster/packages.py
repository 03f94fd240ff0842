"""Installs the programs that come from system packages, if this is root on Debian; otherwise raises MissingError."""

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
"""The programs that a node needs, each with its package."""
IMAGE = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
"""The same for building the image."""


def need_root() -> None:
    """Raise MissingError if the user is not root: namespaces, mounts and network devices need root."""
    if os.geteuid() != 0:
        raise MissingError(
            "a cluster with a node needs root: run it as root, or use a cluster of yours, see tests/cluster/README.md"
        )


def ensure(needs: dict[str, str], tell: Say = say) -> None:
    """Install the missing packages of ``needs``.

    Raises:
        MissingError: a package is missing and cannot be installed here.
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
        # Nothing may be removed. For example, another vendor's containerd conflicts with Debian's and is the person's.
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--no-remove", *packages], env=environment)
    if left := _missing(needs):
        raise MissingError(f"installed, and yet these lack a program that the cluster needs: {' '.join(left)}")


def _missing(needs: dict[str, str]) -> list[str]:
    """The packages whose programs are missing, each once."""
    return list(dict.fromkeys(package for name, package in needs.items() if not _there(name)))


def _there(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=_PLACES) is not None
