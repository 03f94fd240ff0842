"""The keys by which runs are signed, and the command line that checks a signature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from agentrun.journal.records import Record
from agentrun.journal.signatures import KEY_VARIABLE, BadKey, SigningKey, key_name, public_keys, signing_key
from tests.harness.cli_store import Type
from tests.harness.signed_run import Signed, never, pem, public_pem

EVENT = Record("default/r1-0", "", 0, 1, 0.0, "ended", {}, "")


def test_a_key_that_is_rotated_is_taken_up_and_one_that_is_broken_is_not(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    first, second = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file.write_bytes(pem(first))
    warnings: list[str] = []
    key = SigningKey(file, warnings.append)

    def signs() -> str:
        return key.signed(EVENT, "sha256:0")["key"]

    assert signs() == key_name(first.public_key())
    file.write_bytes(pem(second))
    assert signs() == key_name(second.public_key()) and warnings == []
    for broken in (b"", b"no key", public_pem(first), pem(generate_private_key(65537, 2048)), pem(first, b"secret-0")):
        file.write_bytes(broken)
        assert signs() == key_name(second.public_key())
        assert str(file) in warnings.pop() and not warnings
    file.unlink()
    assert signs() == key_name(second.public_key())
    assert "cannot be read: No such file" in warnings.pop()


UNFIT: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "holds no private key in PEM: make one with openssl genpkey -algorithm ed25519"),
    "a public key": (public_pem(Ed25519PrivateKey.generate()), "holds no private key in PEM"),
    "RSA": (pem(generate_private_key(65537, 2048)), "another algorithm than Ed25519"),
    "a password": (pem(Ed25519PrivateKey.generate(), b"secret-0"), "has a password"),
}


@pytest.mark.parametrize(("data", "words"), UNFIT.values(), ids=UNFIT)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(data)
    with pytest.raises(BadKey) as caught:
        signing_key({KEY_VARIABLE: str(file)}, never)
    assert words in str(caught.value) and str(file) in str(caught.value)
    with pytest.raises(BadKey, match="cannot be read"):
        signing_key({KEY_VARIABLE: str(tmp_path / "gone.pem")}, never)
    assert signing_key({}, never) is None and signing_key({KEY_VARIABLE: " "}, never) is None


def test_a_file_holds_the_public_keys_of_years(tmp_path: Path) -> None:
    made = [Ed25519PrivateKey.generate() for _ in range(3)]
    file = tmp_path / "keys.pub"
    file.write_bytes(b"".join(public_pem(key) for key in made))
    assert set(public_keys([file])) == {key_name(key.public_key()) for key in made}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no public key in PEM: write it with openssl pkey"),
        (pem(Ed25519PrivateKey.generate()), "holds no public key in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (public_pem(generate_private_key(65537, 2048)), "another algorithm than Ed25519"),
    ],
)
def test_a_file_without_a_public_key_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "key.pub"
    file.write_bytes(data)
    with pytest.raises(BadKey, match=words):
        public_keys([file])


# -- the command line ------------------------------------------------------------------------------------------------


def test_audit_verify_checks_a_run_and_its_export_by_the_public_key(
    signed: Signed, agentrun: Type, tmp_path: Path
) -> None:
    name = key_name(signed.key.public_key())
    public, others, export = tmp_path / "key.pub", tmp_path / "others.pub", tmp_path / "r1.jsonl"
    public.write_bytes(public_pem(signed.key))
    others.write_bytes(public_pem(Ed25519PrivateKey.generate()))
    assert agentrun("audit", "verify", "r1").out.endswith("verified; signed (give --public-key to have that checked)\n")
    export.write_text(agentrun("audit", "export", "r1").out)
    for words in (["r1"], [str(export), "--store", "/nowhere"], ["r1", "--public-key", str(others)]):
        found = agentrun("audit", "verify", *words, "--public-key", str(public))
        assert (found.code, found.out) == (0, f"r1: 9 records, 1 blobs verified; signed by {name}\n")
    found = agentrun("audit", "verify", "r1", "--public-key", str(others), "-o", "json")
    assert found.code == 1
    told = json.loads(found.out)
    assert told["signedBy"] == name and "none of those given" in told["findings"][0]["message"]
    export.write_text(export.read_text().replace('"by":"ana"', '"by":"eve"', 1))
    assert agentrun("audit", "verify", str(export), "--public-key", str(public)).code == 1
    found = agentrun("audit", "verify", "r1", "--public-key", str(export))
    assert found.code == 2 and "holds no public key in PEM" in found.err
