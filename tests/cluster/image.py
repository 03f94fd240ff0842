"""Builds the project's image from its real Dockerfile, without an image registry and without a container engine.

mmdebstrap makes the base from Debian's packages. This machine's pip downloads the wheels with its own settings, checked
against the hashes of the lock. The build itself needs no network. Everything is cached by the content of its sources: a
change of the operator's sources rebuilds the last layer only. buildah keeps its layers in a folder of the tests.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import packages
from tests.cluster.places import MissingError, Say, cache, locked, run, say

ROOT = Path(__file__).parents[2]
IMAGE = "AGENTRUN_TEST_IMAGE"
"""The variable with the name of the image on the person's own cluster."""
_PYTHON = "3.11"
"""The version of Python in the base."""
_SUITE = "bookworm"
_INCLUDED = "python3,python3-venv,ca-certificates"
_EXCLUDED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
_SOURCES = (".dockerignore", "Dockerfile", "LICENSE", "README.md", "pyproject.toml", "requirements.lock")
_KEPT = 3
"""The number of image archives that stay in the cache."""


@functools.cache
def build(tell: Say = say) -> tuple[str, Path]:
    """The image's name, which changes with its content, and an archive of it. Builds it if it is not cached.

    Computed once for each process, so that sources that change while tests run have no effect.

    Raises:
        MissingError: the user is not root, or a package is missing that cannot be installed.
        FailedError: the build failed.

    """
    packages.need_root()
    packages.ensure(packages.IMAGE, tell)
    name = f"localhost/agentrun:{_digest(_sources())}"
    folder = cache() / "image"
    folder.mkdir(exist_ok=True)
    archive = folder / f"{name.rpartition(':')[2]}.tar"
    with locked("image"):
        if not archive.exists():
            begun = time.monotonic()
            base = _base(folder, tell)
            wheels = _wheels(folder, tell)
            tell("building the image")
            _bud(folder, name, base, wheels)
            partial = archive.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            # docker-archive is the format without compression; the archive stays on this disk.
            _buildah(folder, "push", "--quiet", name, f"docker-archive:{partial}:{name}")
            partial.rename(archive)
            tell(f"built {name} in {time.monotonic() - begun:.0f} s")
        _forget(folder, archive)
    return name, archive


def _base(folder: Path, tell: Say) -> str:
    """The name of the base image in buildah's storage: a small Debian with Python."""
    name = f"localhost/base:{_digest([_SUITE.encode(), _INCLUDED.encode(), *(path.encode() for path in _EXCLUDED)])}"
    if name in _buildah(folder, "images", "--format", "{{.Name}}:{{.Tag}}").split():
        return name
    tell("making the base of the image from Debian's packages: about half a minute the first time")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = Path(scratch) / "base.tar"
        excluded = [f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED]
        run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_INCLUDED}", *excluded, _SUITE, archive])
        container = _buildah(folder, "from", "scratch").strip()
        _buildah(folder, "add", "--quiet", container, archive, "/")
        _buildah(folder, "commit", "--quiet", "--rm", container, name)
    return name


def _wheels(folder: Path, tell: Say) -> Path:
    """A folder with the wheels of the lock. The pip of this Python downloads them with its own settings."""
    lock = ROOT / "requirements.lock"
    wheels = folder / f"wheels-{_digest([lock.read_bytes(), _PYTHON.encode()])}"
    if wheels.exists():
        return wheels
    tell("downloading the wheels of requirements.lock")
    for old in folder.glob("wheels-*"):  # the lock has changed: layers from the old one are of no more use
        shutil.rmtree(old)
        _buildah(folder, "rmi", "--prune", "--force")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name) / "wheels"
        only = ["--only-binary=:all:", "--python-version", _PYTHON]
        run([sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", *only, "-r", lock, "-d", scratch])
        scratch.rename(wheels)
    return wheels


def _bud(folder: Path, name: str, base: str, wheels: Path) -> None:
    arguments = {"BASE": base, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
    given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    _buildah(folder, "bud", "--layers", *given, "--volume", f"{wheels}:/wheels:ro", "--tag", name, str(ROOT))


def _buildah(folder: Path, verb: str, *words: str | Path) -> str:
    """Run buildah with a separate storage, so that the person's own builds are not touched."""
    storage = ("--storage-driver", "overlay", "--root", folder / "storage", "--runroot", folder / "run")
    return run(["buildah", *storage, verb, *words], env={"BUILDAH_ISOLATION": "chroot"}, cwd=ROOT)


def _sources() -> Iterable[bytes]:
    """The names and contents of all sources of the image."""
    paths = [ROOT / name for name in _SOURCES] + sorted((ROOT / "operator" / "agentrun").rglob("*.py"))
    for path in paths:
        yield str(path.relative_to(ROOT)).encode()
        yield path.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def _forget(folder: Path, used: Path) -> None:
    """Keep the most recently used archives, and remove the others and their images in buildah."""
    used.touch()
    for old in sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink()
        name = f"localhost/agentrun:{old.stem}"
        if name in _buildah(folder, "images", "--format", "{{.Name}}:{{.Tag}}").split():
            _buildah(folder, "rmi", name)


def given() -> str:
    """The name of the image on the person's own cluster.

    Raises:
        MissingError: the variable is not set.

    """
    name = os.environ.get(IMAGE)
    if not name:
        raise MissingError(
            f"set {IMAGE} to the name of the image that your cluster has (`docker build .`, then load or push it)"
        )
    return name
