"""Builds the programs of the cluster from their released Go modules, and caches them by their sources."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.places import MissingError, Say, cache, locked, run, say

SOURCE = Path(__file__).with_name("kubernetes")
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_FILES = ("go.mod", "go.sum", "main.go", "tools.go")


@functools.cache
def build(tell: Say = say) -> Path:
    """The folder with a program for each of COMPONENTS, and helm. Builds them if not cached (about seven minutes).

    Raises:
        MissingError: this is not Linux, or Go is not installed.
        FailedError: the build failed.

    """
    if sys.platform != "linux":
        raise MissingError(
            f"a test cluster needs Linux, this is {sys.platform}: use a cluster of yours, see tests/cluster/README.md"
        )
    if shutil.which("go") is None:
        raise MissingError("there is no `go` on PATH: install Go, the cluster's programs are built from source")
    go = run(["go", "env", "GOVERSION"], cwd=SOURCE).strip()
    flags = _link_flags()
    digest = hashlib.sha256(f"{go} {flags}".encode())
    for name in _FILES:
        digest.update((SOURCE / name).read_bytes())
    folder = cache() / f"kubernetes-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    with locked("kubernetes"):
        if not folder.exists():
            _build(folder, go, flags, tell)
    return folder


def _build(folder: Path, go: str, flags: str, tell: Say) -> None:
    """Build into ``folder``, which exists only when it is complete."""
    tell(f"building Kubernetes {_version()}, etcd and helm with {go}: about seven minutes the first time, then cached")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        scratch = Path(name) / "bin"
        scratch.mkdir()
        environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
        for target, package in (("kubernetes", "."), ("helm", "helm.sh/helm/v3/cmd/helm")):
            run(
                ["go", "build", "-trimpath", "-ldflags", flags, "-o", scratch / target, package],
                env=environment,
                cwd=SOURCE,
            )
        for component in COMPONENTS:
            (scratch / component).symlink_to("kubernetes")
        scratch.rename(folder)
    tell(f"built in {time.monotonic() - begun:.0f} s into {folder}")


def _version() -> str:
    """The version of Kubernetes in go.mod."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod names no k8s.io/kubernetes"
    return found[1]


def _link_flags() -> str:
    """The linker's flags: no symbols, and the version that the components report."""
    version = _version()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    where = "k8s.io/component-base/version"
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {where}.{name}={value}" for name, value in values.items())])


def program(name: str) -> Path:
    """The person's own program, for the person's own cluster.

    Raises:
        MissingError: the program is not on PATH.

    """
    found = shutil.which(name, path=os.environ.get("PATH"))
    if found is None:
        raise MissingError(f"there is no `{name}` on PATH: the tests on a cluster of yours use your own")
    return Path(found)
