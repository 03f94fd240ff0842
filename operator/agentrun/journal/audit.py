"""Verifies that a run's journal is what was written.

Every record holds its own hash and that of the record before, every blob is named by its digest, ``run.json`` holds its
digest, and the event that ends the run names the last record of every step. So anyone who has the objects finds an
object that was changed, dropped, reordered or inserted. Hashes alone cannot tell whether the tail of a log was cut off
before the run ended, or whether the whole journal was written again. The signature of a run's end tells the second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agentrun.api.canonical import canonical, digest_of, sha256
from agentrun.api.keys import StepKey
from agentrun.api.texts import quoted
from agentrun.journal.log import manifest_bytes, parse_manifest
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import Damaged, Record, parse
from agentrun.journal.signatures import fault
from agentrun.records.event_forms import misfit
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.store.side_by_side import each

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

T = TypeVar("T")

BATCH = 256
"""Objects that are read at the same time. A record has at most 64 KiB; of a blob only the digest is kept."""


class Objects(Protocol):
    """The source of the objects: a store, or an export of one run."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing."""

    def list(self, prefix: str, after: str = "") -> list[str]:
        """Every key that starts with ``prefix``, sorted."""

    @property
    def remote(self) -> bool:
        """Whether many reads at the same time are faster than one after the other."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not what was written."""

    key: str
    message: str


@dataclass(slots=True)
class Verdict:
    """The result of a verification. ``ended``: the run has ended, so a missing tail is found too."""

    records: int = 0
    blobs: int = 0
    ended: bool = False
    signed_by: str | None = None
    """The name of the key that signed the run's end: checked, where keys were given."""
    after_end: int = 0
    """Events behind the run's end, which no signature covers. An ended run's retention may still be changed."""
    findings: list[Finding] = field(default_factory=list)

    def blame(self, key: str, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(key, message))


def verify(objects: Objects, run: RunPath, keys: Mapping[str, Ed25519PublicKey] | None = None) -> Verdict:
    """Check every object of ``run``: hashes, chains, numbers, digests, and the last records that the run's end names.

    ``keys``: the public keys by one of which the run's end has to be signed; None: its signature is not checked.
    A damaged object raises nothing: it is among the findings.

    Raises:
        StoreError: an object cannot be read.
    """
    verdict = Verdict()
    names = objects.list(f"{run}/")
    manifest = _manifest(objects, run, names, verdict)
    blobs = [key for key in names if key.startswith(f"{run}/blobs/")]
    for key, digest in _each(blobs, lambda key: sha256(objects.get(key)), objects):
        verdict.blobs += 1
        if digest.removeprefix("sha256:") != key.rpartition("/")[2]:
            verdict.blame(key, "the content does not match its name; the object was changed after it was written")
    kept = frozenset(blobs)
    chains: dict[str, list[str]] = {run.events: []}
    for key in names:
        _sort(run, key, chains, verdict)
    tails: dict[str, Record] = {}
    ends: list[Record] = []
    for prefix, found in chains.items():
        step = "" if prefix == run.events else prefix.rstrip("/").rpartition("/")[2]
        for record in _chain(objects, run, prefix, step, found, verdict):
            body = _body(objects, run, entry(prefix, record.seq), record, kept, verdict)
            if not step and record.kind == EventKind.ENDED:
                verdict.ended = True
                ends += [replace(record, body=body)] if body is not None else []
            elif not step:
                verdict.after_end += verdict.ended
            if step:
                tails[step] = replace(record, body=None)
    for again in ends[1:]:
        verdict.blame(entry(run.events, again.seq), "the run had ended before: a run ends once")
    if keys is not None and not verdict.ended:
        said = "the run has no end, so nothing of it is signed: it goes on, or its end was cut off"
        verdict.blame(run.events, said)
    for end in ends[:1]:
        _heads(run, end.body["heads"], tails, chains, verdict)
        if keys is not None and manifest is not None:
            _signature(objects, run, end, manifest, keys, verdict)
        verdict.signed_by = end.body.get("signature", {}).get("key")
    return verdict


def _signature(
    objects: Objects,
    run: RunPath,
    end: Record,
    manifest: RunManifest,
    keys: Mapping[str, Ed25519PublicKey],
    verdict: Verdict,
) -> None:
    """Check the signature, and that the bytes are those that were written. What is signed is what they mean: the same
    meaning has other forms, and more could stand beside it.
    """
    key = entry(run.events, end.seq)
    if (why := fault(end, digest_of(manifest), keys)) is not None:
        verdict.blame(key, why)
        return
    data = objects.get(key)
    kept = json.loads(data)["body"]
    written = kept if kept.keys() != {"$blob"} else {"$blob": sha256(canonical(end.body))}
    if replace(end, attempt=0, body=written).sealed()[1] != data:
        verdict.blame(key, "it holds more than what was signed, or in another form; it was written anew")
    if manifest_bytes(manifest) != objects.get(run.manifest):
        verdict.blame(run.manifest, "it holds more than what was signed, or in another form; it was written anew")


def _manifest(objects: Objects, run: RunPath, names: list[str], verdict: Verdict) -> RunManifest | None:
    """The run's manifest; None if a finding says why it cannot be read."""
    if run.manifest not in names:
        verdict.blame(run.manifest, "the object is missing")
        return None
    try:
        manifest = parse_manifest(objects.get(run.manifest), run.manifest)
        claimed = RunPath(manifest["namespace"], manifest["name"], manifest["uid"])
        if claimed != run:
            verdict.blame(run.manifest, f"it belongs to {claimed}; the object was moved")
        if manifest["workflowDigest"] != digest_of(manifest["workflow"]):
            verdict.blame(run.manifest, "the workflow does not match its digest")
    except Damaged as error:
        verdict.blame(run.manifest, _short(error, run.manifest))
    except KeyError as error:
        verdict.blame(run.manifest, f"it has no {error.args[0]}")
    else:
        return manifest
    return None


def _sort(run: RunPath, key: str, chains: dict[str, list[str]], verdict: Verdict) -> None:
    """Add ``key`` to the chain that it belongs to. An object that no run has becomes a finding."""
    rest = key.removeprefix(f"{run}/")
    folder, _, name = rest.rpartition("/")
    number = name.removesuffix(".json")
    is_record = name.endswith(".json") and number.isascii() and number.isdigit()
    place = folder.split("/")
    if place[0] == "events" and len(place) == 1 and is_record:
        chains[run.events].append(key)
    elif place[0] == "steps" and len(place) == 2 and is_record and _is_step(place[1]):
        chains.setdefault(f"{run}/{folder}/", []).append(key)
    elif rest not in ("run.json", "driver.json") and place[0] not in ("blobs", "logs"):
        verdict.blame(key, "agentrun writes no such object; it was put there by hand")


def _is_step(name: str) -> bool:
    try:
        return StepKey.parse(name).path == name
    except ValueError:
        return False


def _each(keys: Sequence[str], read: Callable[[str], T], objects: Objects) -> Iterator[tuple[str, T]]:
    """``read`` of each key, in order. A batch is read at the same time, and no more than a batch is held."""
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        yield from zip(batch, each(read, batch, remote=objects.remote), strict=True)


def _parsed(objects: Objects, key: str) -> Record | Damaged:
    try:
        return parse(objects.get(key), key)
    except Damaged as error:
        return error


def _chain(
    objects: Objects, run: RunPath, prefix: str, step: str, keys: list[str], verdict: Verdict
) -> Iterator[Record]:
    """The readable records of one log. Everything that is wrong with the log becomes a finding in ``verdict``."""
    before: Record | None = None
    unbroken = True
    expected = 1
    for key, record in _each(sorted(keys), lambda key: _parsed(objects, key), objects):
        number = int(key.rpartition("/")[2].removesuffix(".json"))
        for missing in range(expected, min(number, expected + 20)):
            verdict.blame(entry(prefix, missing), "the record is missing although later ones exist")
            unbroken = False
        expected = number + 1
        verdict.records += 1
        if isinstance(record, Damaged):
            verdict.blame(key, _short(record, key))
            unbroken = False
            continue
        if (record.run, record.step, record.seq) != (str(run), step, number) or key != entry(prefix, number):
            verdict.blame(key, f"it is record {record.seq} of {record.run} {record.step}; the object was moved")
        if unbroken and record.prev != (before.hash if before else ""):
            verdict.blame(key, "it does not follow the record before it; one of the two was replaced")
        before, unbroken = record, True
        yield record


def _body(
    objects: Objects, run: RunPath, key: str, record: Record, blobs: frozenset[str], verdict: Verdict
) -> dict[str, Any] | None:
    """The body of an event; None for a step's record, or if a finding says what is wrong with the body."""
    body, digest = record.body, record.body.get("$blob")
    if digest is not None and run.blob(str(digest)) not in blobs:
        verdict.blame(run.blob(str(digest)), f"the object is missing although {key} refers to it")
        return None
    if record.step:
        return None
    if digest is not None:
        try:
            body = json.loads(objects.get(run.blob(digest)))
        except (ValueError, RecursionError):
            body = None
    if why := misfit(record.kind, body):
        verdict.blame(key, f"this is not what agentrun writes as {quoted(record.kind)}: {why}")
        return None
    found: dict[str, Any] = body
    return found


def _heads(
    run: RunPath, heads: dict[str, Any], tails: dict[str, Record], chains: dict[str, list[str]], verdict: Verdict
) -> None:
    """Compare the last records with those that the run's end names: a log that lost its tail is still a valid chain."""
    for step, (seq, head) in heads.items():
        tail = tails.get(step)
        key = entry(run.step(StepKey.parse(step)), seq)
        if tail is None or tail.seq < seq:
            if not any(finding.key == key for finding in verdict.findings):
                verdict.blame(key, "the run's end names this record, and it is missing; the log was cut off")
        elif tail.seq > seq:
            verdict.blame(entry(run.step(StepKey.parse(step)), seq + 1), "it was written after the run had ended")
        elif tail.hash != head:
            verdict.blame(key, "it is not the record that the run's end names; it was replaced")
    for prefix in chains:
        step = prefix.rstrip("/").rpartition("/")[2]
        if prefix != run.events and step not in heads:
            verdict.blame(prefix, "the run's end does not name this step's log; it was added later")


def _short(error: Damaged, key: str) -> str:
    return str(error).removeprefix(f"{key}: ")
