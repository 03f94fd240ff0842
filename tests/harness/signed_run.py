"""A run whose end is signed, and its keys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agentrun.api.keys import StepKey
from agentrun.journal.audit import Verdict, verify
from agentrun.journal.log import EventLog, parse_manifest
from agentrun.journal.paths import RunPath
from agentrun.journal.signatures import SigningKey, key_name
from agentrun.store.protocol import KeyMissing
from tests.harness.cli_store import REFUND, Scene, closed, result, turn

Objects = dict[str, bytes]


def pem(key: Any, password: bytes | None = None) -> bytes:
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    return cast("bytes", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))


def public_pem(key: Any) -> bytes:
    return cast("bytes", key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def never(text: str) -> None:
    raise AssertionError(text)


@dataclass(frozen=True)
class Held:
    """Objects in memory, as an auditor has them."""

    found: Objects
    remote: bool = False

    def get(self, key: str) -> bytes:
        if key not in self.found:
            raise KeyMissing(key)
        return self.found[key]

    def list(self, prefix: str, after: str = "") -> list[str]:
        return sorted(key for key in self.found if key.startswith(prefix) and key > after)


@dataclass
class Signed:
    """A run whose end is signed, with a tool's answer in a blob, and the keys."""

    scene: Scene
    name: str = "r1"
    output: Any = None
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    run: RunPath = field(init=False)

    def __post_init__(self) -> None:
        self.run = self.scene.run(self.name)
        calls = turn(None, ("look_up", {"q": "x"}))
        self.scene.step(self.run, "triage", calls, result("1-0", "look_up", "x" * 100_000), closed("yes"))
        self.scene.event(self.run, "signalled", name="noted", payload=None, by="ana", verified=False)
        self.scene.event(self.run, "settled", step="note", state="Succeeded", output=None)
        self.scene.step(self.run, "refund", closed({"paid": 5}))
        self.end()

    @property
    def file(self) -> Path:
        path = self.scene.folder.parent / f"{self.name}.pem"
        path.write_bytes(pem(self.key))
        return path

    @property
    def keys(self) -> dict[str, Ed25519PublicKey]:
        return {key_name(self.key.public_key()): self.key.public_key()}

    def end(self) -> None:
        store = self.scene.store
        manifest = parse_manifest(store.get(self.run.manifest), self.run.manifest)
        heads = {}
        for name in ("triage", "refund"):
            last = json.loads(store.get(store.list(self.run.step(StepKey.parse(name)))[-1]))
            heads[name] = [last["seq"], last["hash"]]
        states = {step["name"]: "Succeeded" for step in REFUND["steps"]}
        body = {"outcome": "Succeeded", "output": self.output, "steps": states, "compensations": {}, "heads": heads}
        log = EventLog(store, self.run, self.scene.clock, SigningKey(self.file, never).of(manifest))
        log.refresh()
        log.append("ended", body)

    def objects(self) -> Objects:
        return {key: self.scene.store.get(key) for key in self.scene.store.list(f"{self.run}/")}

    def audit(self, objects: Objects, *, signed: bool = True) -> Verdict:
        return verify(Held(objects), self.run, self.keys if signed else None)
