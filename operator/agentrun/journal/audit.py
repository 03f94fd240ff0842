"""Verifies that a run's journal is what was written, and exports it in a form that can be verified elsewhere.

Every record holds its own hash and that of the record before, every blob is named by its digest, ``run.json`` holds its
digest, and the event that ends the run names the last record of every step. So anyone who has the objects finds an
object that was changed, dropped, reordered or inserted. Hashes alone cannot tell whether the tail of a log was cut off
before the run ended, or whether the whole journal was written again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentrun.api.canonical import canonical, digest_of, sha256
from agentrun.api.errors import AgentrunError
from agentrun.api.keys import StepKey
from agentrun.api.texts import quoted
from agentrun.journal.log import parse_manifest
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import Damaged, Record, parse
from agentrun.records.event_forms import misfit
from agentrun.records.run_events import EventKind
from agentrun.store.protocol import KeyMissing, Store

FORMAT = "agentrun-journal"
VERSION = 1


class NotAnExport(AgentrunError):
    """The file is not what ``audit export`` writes; the message says where."""


class Objects(Protocol):
    """The source of the objects: a store, or an export of one run."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing."""

    def list(self, prefix: str, after: str = "") -> list[str]:
        """Every key that starts with ``prefix``, sorted."""


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
    findings: list[Finding] = field(default_factory=list)

    def blame(self, key: str, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(key, message))


def verify(objects: Objects, run: RunPath) -> Verdict:
    """Check every object of ``run``: hashes, chains, numbers, digests, and the last records that the run's end names.

    A damaged object raises nothing: it is among the findings.

    Raises:
        StoreError: an object cannot be read.
    """
    verdict = Verdict()
    keys = objects.list(f"{run}/")
    _manifest(objects, run, keys, verdict)
    blobs = [key for key in keys if key.startswith(f"{run}/blobs/")]
    for key in blobs:
        verdict.blobs += 1
        if sha256(objects.get(key)).removeprefix("sha256:") != key.rpartition("/")[2]:
            verdict.blame(key, "the content does not match its name; the object was changed after it was written")
    chains: dict[str, list[str]] = {run.events: []}
    for key in keys:
        _sort(run, key, chains, verdict)
    tails: dict[str, Record] = {}
    ended: dict[str, Any] | None = None
    for prefix, found in chains.items():
        step = "" if prefix == run.events else prefix.rstrip("/").rpartition("/")[2]
        records = list(_chain(objects, run, prefix, step, found, verdict))
        for record in records:
            body = _body(objects, run, entry(prefix, record.seq), record, blobs, verdict)
            if not step and record.kind == EventKind.ENDED:
                verdict.ended, ended = True, body
        if records and step:
            tails[step] = records[-1]
    if ended is not None:
        _heads(run, ended["heads"], tails, chains, verdict)
    return verdict


def export(store: Store, run: RunPath) -> Iterator[dict[str, Any]]:
    """The lines of an export: a header, then every object of the run with its key.

    Canonical JSON is exported as JSON, everything else as base64. Both give the exact bytes back.
    """
    yield {"format": FORMAT, "version": VERSION, "run": str(run)}
    for key in store.list(f"{run}/"):
        data = store.get(key)
        yield {"key": key} | _content(data)


def read_export(lines: Iterable[bytes]) -> tuple[RunPath, Exported]:
    """The run and its objects in the lines of an export.

    Raises:
        NotAnExport: the lines are no export, or one of another version.
        Damaged: a line is not JSON.
    """
    numbered = enumerate(lines, 1)
    header = _line(*next(numbered, (1, b"")))
    if header.get("format") != FORMAT or not isinstance(header.get("run"), str):
        raise NotAnExport("line 1 is not the header of an export: write one with agentrun audit export RUN")
    if header.get("version") != VERSION:
        raise NotAnExport(
            f"the export has version {quoted(header.get('version'))}; this agentrun reads {VERSION}: upgrade it"
        )
    found: dict[str, bytes] = {}
    for number, line in numbered:
        value = _line(number, line)
        key = value.get("key")
        if not isinstance(key, str) or not key.startswith(f"{header['run']}/"):
            raise NotAnExport(f"line {number} has no key of run {header['run']}")
        if key in found:
            raise NotAnExport(f"line {number} holds {key} a second time")
        try:
            found[key] = (
                canonical(value["content"]) if "content" in value else base64.b64decode(value["base64"], validate=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise NotAnExport(f"line {number} has no content that can be read") from error
    return RunPath.parse(header["run"]), Exported(found)


@dataclass(frozen=True, slots=True)
class Exported:
    """The objects of an export."""

    found: dict[str, bytes]

    def get(self, key: str) -> bytes:
        """See ``Objects``."""
        try:
            return self.found[key]
        except KeyError:
            raise KeyMissing(f"{key} is not in the export") from None

    def list(self, prefix: str, after: str = "") -> list[str]:
        """See ``Objects``."""
        return sorted(key for key in self.found if key.startswith(prefix) and key > after)


def _content(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
        if canonical(value) == data:
            return {"content": value}
    except (ValueError, RecursionError):
        pass  # not JSON: a blob of another kind, a log, or a damaged object
    return {"base64": base64.b64encode(data).decode()}


def _line(number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"line {number} is not JSON: the file was cut off or damaged") from error
    if not isinstance(value, dict):
        raise NotAnExport(f"line {number} is not a JSON object")
    return value


def _manifest(objects: Objects, run: RunPath, keys: list[str], verdict: Verdict) -> None:
    if run.manifest not in keys:
        verdict.blame(run.manifest, "the object is missing")
        return
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


def _chain(
    objects: Objects, run: RunPath, prefix: str, step: str, keys: list[str], verdict: Verdict
) -> Iterator[Record]:
    """The readable records of one log. Everything that is wrong with the log becomes a finding in ``verdict``."""
    before: Record | None = None
    unbroken = True
    expected = 1
    for key in sorted(keys):
        number = int(key.rpartition("/")[2].removesuffix(".json"))
        for missing in range(expected, min(number, expected + 20)):
            verdict.blame(entry(prefix, missing), "the record is missing although later ones exist")
            unbroken = False
        expected = number + 1
        verdict.records += 1
        try:
            record = parse(objects.get(key), key)
        except Damaged as error:
            verdict.blame(key, _short(error, key))
            unbroken = False
            continue
        if (record.run, record.step, record.seq) != (str(run), step, number) or key != entry(prefix, number):
            verdict.blame(key, f"it is record {record.seq} of {record.run} {record.step}; the object was moved")
        if unbroken and record.prev != (before.hash if before else ""):
            verdict.blame(key, "it does not follow the record before it; one of the two was replaced")
        before, unbroken = record, True
        yield record


def _body(
    objects: Objects, run: RunPath, key: str, record: Record, blobs: Iterable[str], verdict: Verdict
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
