"""Writes the smallest image, a static busybox that sleeps, as an OCI archive. It is the pause image of every pod."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_IMAGE = "application/vnd.oci.image"


def busybox(path: Path, name: str) -> Path:
    """Write the archive of an image called ``name``, in the layout of the OCI image specification 1.0."""
    layer = _tar({"bin/busybox": Path("/bin/busybox").read_bytes()}, 0o755)
    machine = platform.machine()
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_IMAGE}.manifest.v1+json",
            "config": _described("config.v1+json", config),
            "layers": [_described("layer.v1.tar", layer)],
        }
    )
    described = _described("manifest.v1+json", manifest) | {"annotations": {"io.containerd.image.name": name}}
    blobs = {f"blobs/{_digest(blob).replace(':', '/')}": blob for blob in (layer, config, manifest)}
    index = _json({"schemaVersion": 2, "manifests": [described]})
    path.write_bytes(_tar({"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index, **blobs}, 0o644))
    return path


def _described(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": f"{_IMAGE}.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
