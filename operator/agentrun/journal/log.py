"""Reads and appends records: the create-only write that fences, the blobs, the checkpoint that bounds a resume.

``StepLog`` has one writer at a time. An append creates the object of the next sequence number. An attempt that opens
the log later takes the next number, so the next append of an older attempt collides. Because an attempt acts on nothing
before it is committed, the older one can do nothing new. ``EventLog`` has many writers (the driver, people). There, a
collision only means that another writer was first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from agentrun.api.canonical import canonical, digest_of, sha256
from agentrun.api.errors import AgentrunError
from agentrun.api.keys import StepKey
from agentrun.api.texts import quoted
from agentrun.journal.paths import LogOwner, RunPath, entries, entry, seq_of
from agentrun.journal.records import INLINE_MAX, SCHEMA, Damaged, Record, parse
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import Kind
from agentrun.store.protocol import KeyExists, KeyMissing, Store
from agentrun.store.side_by_side import each

CHECKPOINT_EVERY = 128
"""A record whose number is a multiple of this holds the folded state. A resume reads it and at most 127 more."""


_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class Fenced(AgentrunError):
    """Another attempt has opened this step's log since. This one must act on nothing and stop at once."""


def load_body(store: Store, owner: LogOwner, record: Record) -> Record:
    """``record`` with its body, which is read from the blob if there is one.

    Raises:
        Damaged: the blob is missing, its content does not fit its name, or ``record`` does not name one.
    """
    digest = record.body.get("$blob")
    if digest is None:
        return record
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise Damaged(f"{record.run}/{record.step}, number {record.seq}: {quoted(digest)} is not the name of a blob")
    return replace(record, body=_parse_body(read_blob(store, owner, digest), owner.blob(digest)))


def read_blob(store: Store, owner: LogOwner, digest: str) -> bytes:
    """The bytes behind ``digest``, checked.

    Raises:
        Damaged: the blob is missing or was changed.
    """
    key = owner.blob(digest)
    try:
        data = store.get(key)
    except KeyMissing as error:
        raise Damaged(f"{key}: the object is missing although a record refers to it") from error
    if sha256(data) != digest:
        raise Damaged(f"{key}: the content does not match its name; the object was changed after it was written")
    return data


def write_blob(store: Store, owner: LogOwner, data: bytes) -> str:
    """Store ``data`` under its digest and return the digest. Writing the same bytes again has no effect."""
    digest = sha256(data)
    try:
        store.create(owner.blob(digest), data)
    except KeyExists:
        pass  # an earlier attempt, or a write whose answer was lost, wrote the same bytes: the name is their digest
    return digest


def body_of(store: Store, owner: LogOwner, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
    """``body`` itself if it is small; otherwise write it to a blob and return a reference to that. And its bytes."""
    data = canonical(body)
    if len(data) <= INLINE_MAX:
        return body, data
    reference = {"$blob": write_blob(store, owner, data), "size": len(data)}
    return reference, canonical(reference)


def read_records(store: Store, prefix: str, seqs: Iterable[int], prev: str | None = None) -> list[Record]:
    """The records ``seqs``, in order. Their hashes, chain and numbers are checked. ``prev``: the hash before the first.

    Raises:
        Damaged: a record is missing, changed or out of order; the message names the object.
    """
    keys = [entry(prefix, seq) for seq in seqs]
    found: list[Record] = []
    for key, data in zip(keys, _get_all(store, keys), strict=True):
        record = parse(data, key)
        if record.seq != seq_of(key):
            raise Damaged(f"{key}: the record says it is number {record.seq}; the object was moved")
        before = found[-1].hash if found else prev
        if before is not None and record.prev != before:
            raise Damaged(f"{key}: it does not follow the record before it; one of the two was replaced")
        found.append(record)
    return found


def _get_all(store: Store, keys: Sequence[str]) -> list[bytes]:
    def get(key: str) -> bytes:
        try:
            return store.get(key)
        except KeyMissing as error:
            raise Damaged(f"{key}: the record is missing although later ones exist") from error

    return each(get, keys, remote=store.remote)


def read_step(store: Store, run: RunPath, key: StepKey, *, whole: bool = False) -> list[Record]:
    """The records of a step from its last checkpoint on, or all of them (``whole``); empty if it never opened.

    Raises:
        Damaged: see ``read_records``.
    """
    prefix = run.step(key)
    keys = entries(store.list(prefix))
    if not keys:
        return []
    tail = seq_of(keys[-1])
    first = 0 if whole else tail // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    while True:
        found = [load_body(store, run, r) for r in read_records(store, prefix, range(max(1, first), tail + 1))]
        if first < 1 or "state" in found[0].body:
            return found
        first -= CHECKPOINT_EVERY  # another record has the checkpoint's number: go on to the checkpoint before it


class StepLog:
    """The log of one step, held by one attempt. ``open_step`` creates it."""

    def __init__(
        self, store: Store, run: RunPath, key: StepKey, attempt: int, head: Record, clock: Callable[[], float]
    ) -> None:
        self._store, self._run, self._key, self._clock = store, run, key, clock
        self._prefix = run.step(key)
        self._attempt = attempt
        self.head = head
        self._unsure: Record | None = None
        """The last record whose PUT has not been answered; None after a PUT that succeeded."""

    def append(self, kind: Kind, body: Mapping[str, Any]) -> Record:
        """Commit one record. It is durable when this returns.

        Raises:
            Fenced: another attempt opened the log since.
            StoreError: the record may be written or not; the same append may be tried again.
        """
        kept, encoded = body_of(self._store, self._run, body)
        record = Record(
            str(self._run),
            self._key.path,
            self._attempt,
            self.head.seq + 1,
            round(self._clock(), 6),
            kind,
            kept,
            self.head.hash,
        )
        if self._unsure is not None and replace(record, at=self._unsure.at).sealed() == self._unsure.sealed():
            record = self._unsure  # send the same bytes: with another instant, ours would look like another attempt's
        self._unsure = record
        self.head = _create(self._store, self._prefix, record, encoded)
        self._unsure = None
        return replace(self.head, body=body)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the next record has to be a checkpoint: a ``compacted`` record with the folded state."""
        return (self.head.seq + 1) % CHECKPOINT_EVERY == 0


def _create(store: Store, prefix: str, record: Record, body: bytes) -> Record:
    """Write ``record``, whose body is encoded in ``body``, and return it with its hash. Raises Fenced, StoreError."""
    sealed, data = record.sealed(body)
    key = entry(prefix, record.seq)
    try:
        store.create(key, data)
    except KeyExists as error:
        # Either our own PUT whose answer was lost, or a successor's record. Only the bytes tell. A successor's always
        # differ, because ``opened`` carries a random writer id and every later hash depends on it.
        if store.get(key) != data:
            raise Fenced(f"{key}: written by another attempt; this one stops without acting") from error
    return sealed


def open_step(
    store: Store,
    run: RunPath,
    key: StepKey,
    attempt: int,
    body: Callable[[list[Record]], Mapping[str, Any]],
    clock: Callable[[], float],
    *,
    checkpoint: Callable[[list[Record]], Mapping[str, Any]],
) -> tuple[StepLog, list[Record]]:
    """Take the log over for ``attempt`` by appending ``opened`` at its tail. Return the log and its records, with the
    new one.

    ``body`` makes the body of ``opened`` from the records before it. ``checkpoint`` makes the body of a ``compacted``
    record, in case the next number is a checkpoint's. A first attempt tries number 1 without a listing. Only after a
    lost answer, or with a twin of this attempt, is that number taken. A closed log is not opened: its records are
    returned as they are, and the last one is ``closed``.

    Raises:
        Fenced: an attempt with the same or a later number has already opened the log, so this start is stale.
        Damaged: a record is missing, changed or out of order.
    """
    prefix = run.step(key)
    records: list[Record] = []
    if attempt > 1:
        records = read_step(store, run, key)
    while True:
        if records and records[-1].kind == Kind.CLOSED:
            return StepLog(store, run, key, attempt, records[-1], clock), records
        newest = max((r.attempt for r in records), default=0)
        if newest >= attempt:
            raise Fenced(f"{prefix}: attempt {newest} has already opened this step; attempt {attempt} does not run")
        head = records[-1] if records else Record(str(run), key.path, 0, 0, 0.0, "", {}, "")
        log = StepLog(store, run, key, attempt, head, clock)
        try:
            if records and log.checkpoint_due:
                # The checkpoint bears the older attempt's number: only ``opened`` takes the log over for ours.
                before = StepLog(store, run, key, newest, head, clock)
                records = [before.append(Kind.COMPACTED, checkpoint(records))]
                log.head = before.head
            records.append(log.append(Kind.OPENED, body(records)))
        except Fenced:
            # Lost a race with the last append of an older attempt, or with a twin: read the log and decide again.
            records = read_step(store, run, key)
            continue
        return log, records


class EventLog:
    """A log with many writers, such as a run's own: the driver and people append to it. Every reader sees the same
    order.
    """

    def __init__(
        self, store: Store, owner: LogOwner, clock: Callable[[], float], sign: Callable[[Record], Any] | None = None
    ) -> None:
        """``sign`` makes the field ``signature`` of the event that ends a run."""
        self._store, self.owner, self._clock, self._sign = store, owner, clock, sign
        self.records: list[Record] = []

    def refresh(self) -> bool:
        """Read the events that other writers have appended since. Return whether there were any.

        Raises:
            Damaged: see ``read_records``; or the body of an event does not have the form of its kind.
        """
        tail = self.records[-1] if self.records else None
        keys = entries(self._store.list(self.owner.events, entry(self.owner.events, tail.seq) if tail else ""))
        first = tail.seq + 1 if tail else 1
        last = seq_of(keys[-1]) if keys else first - 1
        fresh = read_records(self._store, self.owner.events, range(first, last + 1), tail.hash if tail else "")
        loaded = [load_body(self._store, self.owner, record) for record in fresh]
        for record in loaded:
            _check_form(record, entry(self.owner.events, record.seq))
        self.records += loaded
        return bool(fresh)

    def overtaken(self) -> Callable[[Sequence[Record]], bool]:
        """An ``unless`` for ``append``: whether the log has events by then that it does not have now. If so, a plan
        that was made from the events of now must not be carried out.
        """
        known = len(self.records)
        return lambda records: len(records) > known

    def append(
        self, kind: str, body: Mapping[str, Any], unless: Callable[[Sequence[Record]], bool] | None = None
    ) -> bool:
        """Commit an event after all others. Return False, and write nothing, if ``unless`` holds for the log's records.

        ``unless`` is evaluated again after every lost race, so of two drivers or two people only one writes the event.
        """
        while True:
            if unless is not None and unless(self.records):
                return False
            tail = self.records[-1] if self.records else None
            number, before = (tail.seq + 1, tail.hash) if tail else (1, "")
            record = Record(str(self.owner), "", 0, number, round(self._clock(), 6), kind, body, before)
            if self._sign is not None and kind == EventKind.ENDED:
                body = {**body, "signature": self._sign(record)}
            kept, encoded = body_of(self._store, self.owner, body)
            record = replace(record, body=kept)
            try:
                sealed = _create(self._store, self.owner.events, record, encoded)
            except Fenced:
                self.refresh()
                continue
            self.records.append(replace(sealed, body=body))
            return True


def _check_form(event: Record, key: str) -> None:
    """Raise Damaged unless the body of ``event`` has the form of its kind."""
    from agentrun.records.event_forms import misfit  # noqa: PLC0415  (lazy: a step's process never needs it)

    if why := misfit(event.kind, event.body):
        raise Damaged(f"{key}: this is not what agentrun writes as {quoted(event.kind)}: {why}")


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of ``run.json``: the manifest with its own digest."""
    return canonical({**manifest, "hash": digest_of(manifest)})


def parse_manifest(data: bytes, key: str) -> RunManifest:
    """The manifest in ``data``, checked against its digest.

    Raises:
        Damaged: it does not fit, is no JSON object, or a newer agentrun wrote it.
    """
    manifest = _parse_body(data, key)
    digest = manifest.pop("hash", None)
    if type(manifest.get("v")) is int and manifest["v"] > SCHEMA:
        raise Damaged(f"{key}: written in version {manifest['v']}; this agentrun reads up to {SCHEMA}: upgrade it")
    try:
        fits = digest == digest_of(manifest)
    except (ValueError, RecursionError):  # a number or a depth that canonical JSON does not allow
        fits = False
    if not fits:
        raise Damaged(f"{key}: the content does not match its hash; the object was changed after it was written")
    return cast(RunManifest, manifest)


def _parse_body(data: bytes, key: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{key}: this is not JSON ({error}); the object was damaged") from error
    if not isinstance(value, dict):
        raise Damaged(f"{key}: this is not a JSON object; the object was damaged")
    return value
