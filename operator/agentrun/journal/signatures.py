"""Signs the end of a run, and checks such a signature: Ed25519 (RFC 8032), over the record that ends the run.

That record names the last record of every step, and every record has the hash of the one before it. The signature
covers the record and the manifest, so it covers all that the run was and did. Whoever can write to the store can write
a whole journal anew, with hashes that fit; without the key they cannot sign its end.

A key is named by the SHA-256 of its public half (the DER form of RFC 8410).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agentrun.api.canonical import canonical, digest_of, sha256, timestamp
from agentrun.api.errors import AgentrunError
from agentrun.journal.records import Record
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_VARIABLE = "AGENTRUN_SIGNING_KEY"
"""The file of the private key."""

_FILE_MAX = 64 * 1024
_GENERATE = "openssl genpkey -algorithm ed25519 -out key.pem"
_PUBLIC = "openssl pkey -in key.pem -pubout -out key.pub"


class BadKey(AgentrunError):
    """A file is not a key. The message says which, and how to make one."""


Sign = Callable[[Record], Signature]
"""Signs an event before it is sealed. Its body has no signature yet, and its ``hash`` is empty."""


@dataclass(slots=True)
class SigningKey:
    """An Ed25519 private key in a file, in PEM (PKCS 8, without a password).

    The file is read again where it has changed, so that a rotated key is taken up. A changed file that is no key is
    passed over, and ``warn`` told: the run's end must not wait for it.

    Raises:
        BadKey: the file is no key, as the object is made.
    """

    path: Path
    warn: Callable[[str], None]
    _key: Ed25519PrivateKey = field(init=False)
    _read: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._read = _bytes(self.path)
        self._key = _private(self._read, self.path)

    def signed(self, event: Record, manifest: str) -> Signature:
        """The signature of ``event`` and of the manifest with the digest ``manifest``."""
        key = self._current()
        value = key.sign(statement(event, manifest))
        return {"key": key_name(key.public_key()), "manifest": manifest, "value": base64.b64encode(value).decode()}

    def of(self, manifest: RunManifest) -> Sign:
        """Signs the end of the run of ``manifest``."""
        return lambda event: self.signed(event, digest_of(manifest))

    def _current(self) -> Ed25519PrivateKey:
        try:
            if (read := _bytes(self.path)) != self._read:
                self._key, self._read = _private(read, self.path), read
        except BadKey as error:
            self.warn(f"{error}; the key that was read before signs on")
        return self._key


def signing_key(environment: Mapping[str, str], warn: Callable[[str], None]) -> SigningKey | None:
    """The key that the variable AGENTRUN_SIGNING_KEY names; None if it names none. Raises BadKey."""
    path = environment.get(KEY_VARIABLE, "").strip()
    return SigningKey(Path(path), warn) if path else None


def statement(event: Record, manifest: str) -> bytes:
    """What is signed: the manifest's digest and the event, without the hash, which depends on the signature."""
    body = {name: value for name, value in event.body.items() if name != "signature"}
    return canonical(
        {
            "signs": "agentrun.dev/end-of-run",
            "run": event.run,
            "seq": event.seq,
            "at": timestamp(event.at),
            "kind": str(event.kind),
            "body": body,
            "prev": event.prev,
            "manifest": manifest,
        }
    )


def public_keys(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """The public keys in the files, by their names. A file may hold several. Raises BadKey."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    found: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        end = b"-----END PUBLIC KEY-----"
        blocks = [block + end for block in _bytes(path).split(end)[:-1]]
        if not blocks:
            raise BadKey(f"{path} holds no public key in PEM: write it with {_PUBLIC}")
        for block in blocks:
            try:
                key = load_pem_public_key(block)
            except ValueError as error:
                raise BadKey(f"{path} holds a public key that cannot be read: write it with {_PUBLIC}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise BadKey(f"{path} holds a key of another algorithm than Ed25519: make one with {_GENERATE}")
            found[key_name(key)] = key
    return found


def fault(event: Record, manifest: str, keys: Mapping[str, Ed25519PublicKey]) -> str | None:
    """What is wrong with the signature of ``event``, which has its whole body, by ``keys``; None: nothing."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    signature: Signature | None = event.body.get("signature")
    if signature is None:
        return "the run's end is not signed: it was written without the key, or its signature was removed"
    key = keys.get(signature["key"])
    if key is None:
        return f"the run's end is signed by the key {signature['key']}, which is none of those given"
    if signature["manifest"] != manifest:
        return "the run's end was signed for another run.json; one of the two was replaced"
    try:
        value = base64.b64decode(signature["value"], validate=True)
        key.verify(value, statement(event, manifest))
    except (InvalidSignature, ValueError):
        return "the signature of the run's end does not fit: the journal was written anew without the key"
    return None


def key_name(key: Ed25519PublicKey) -> str:
    """``sha256:…`` of the public key's DER form."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_MAX)
    except OSError as error:
        raise BadKey(f"the key {path} cannot be read: {error.strerror or error}") from error


def _private(data: bytes, path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (lazy: few processes sign)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(data, None)
    except TypeError as error:  # it has a password
        raise BadKey(f"the key {path} has a password: write one without, with {_GENERATE}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} holds no private key in PEM: make one with {_GENERATE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key of another algorithm than Ed25519: make one with {_GENERATE}")
    return key
