"""Reading and appending records: the conditional write that fences, the blobs, the checkpoint that bounds a resume.

``StepLog`` has one writer at a time. Appending is one create of the next sequence number: whoever opens the log
later takes the next number, so an older writer's next append collides, and since nothing is acted on before it is
committed, it can do nothing new. ``EventLog`` has many writers (the driver, people), and a collision there only
means that somebody else was first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from agentrun.api.canonical import canonical, digest_of, sha256
from agentrun.api.errors import AgentrunError
from agentrun.api.facts import StepKey
from agentrun.journal.layout import RunPath, entries, entry, seq_of
from agentrun.journal.records import INLINE_MAX, SCHEMA, Damaged, Record, parse
from agentrun.records.manifest import RunManifest
from agentrun.records.step_records import Kind
from agentrun.store.protocol import KeyExists, KeyMissing, Store
from agentrun.store.side_by_side import each

CHECKPOINT_EVERY = 128
"""A record whose number is a multiple of this holds the folded state: a resume reads it and at most 127 more."""


class Fenced(AgentrunError):
    """Another attempt has opened this step's log since. Act on nothing, stop at once."""


def load_body(store: Store, run: RunPath, record: Record) -> Record:
    """``record`` with its body read from the blob where it stands in one.

    Raises:
        Damaged: the blob is missing or is not what its name says.
    """
    digest = record.body.get("$blob")
    if digest is None:
        return record
    return replace(record, body=_parse_body(read_blob(store, run, digest), run.blob(digest)))


def read_blob(store: Store, run: RunPath, digest: str) -> bytes:
    """The bytes behind ``digest``, checked.

    Raises:
        Damaged: they are missing or changed.
    """
    key = run.blob(digest)
    try:
        data = store.get(key)
    except KeyMissing as error:
        raise Damaged(f"{key}: the object is missing though a record refers to it") from error
    if sha256(data) != digest:
        raise Damaged(f"{key}: the content does not fit its name; the object was changed after it was written")
    return data


def write_blob(store: Store, run: RunPath, data: bytes) -> str:
    """Store ``data`` under its digest, which is returned. Writing the same bytes again is nothing."""
    digest = sha256(data)
    try:
        store.create(run.blob(digest), data)
    except KeyExists:
        pass  # the name is the content: an earlier attempt or a lost answer wrote the same bytes
    return digest


def body_of(store: Store, run: RunPath, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """``body`` itself where it is small, else a reference to the blob that now holds it."""
    data = canonical(body)
    if len(data) <= INLINE_MAX:
        return body
    return {"$blob": write_blob(store, run, data), "size": len(data)}


def read_records(store: Store, prefix: str, seqs: Iterable[int], prev: str | None = None) -> list[Record]:
    """The records ``seqs``, in order, with hash, chain and numbers checked. ``prev``: the hash before the first.

    Raises:
        Damaged: one is missing, changed or out of order; the message names the object.
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
            raise Damaged(f"{key}: the record is missing though later ones are there") from error

    return each(get, keys, remote=store.remote)


def read_step(store: Store, run: RunPath, key: StepKey, *, whole: bool = False) -> list[Record]:
    """The records of a step from its last checkpoint on, or all of them; empty where it never opened.

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
        first -= CHECKPOINT_EVERY  # something else took the checkpoint's number: nothing may be left out for that


class StepLog:
    """The log of one step, held by one attempt. Made by ``open_step``."""

    def __init__(
        self, store: Store, run: RunPath, key: StepKey, attempt: int, head: Record, clock: Callable[[], float]
    ) -> None:
        self._store, self._run, self._key, self._clock = store, run, key, clock
        self._prefix = run.step(key)
        self._attempt = attempt
        self.head = head
        self._unsure: Record | None = None
        """The record whose PUT had no answer, until the next one has."""

    def append(self, kind: Kind, body: Mapping[str, Any]) -> Record:
        """Commit one record; when this returns it is durable.

        Raises:
            Fenced: another attempt opened the log since.
            StoreError: nothing is known to be written; the same append may be tried again.
        """
        record = Record(
            str(self._run),
            self._key.path,
            self._attempt,
            self.head.seq + 1,
            round(self._clock(), 6),
            kind,
            body_of(self._store, self._run, body),
            self.head.hash,
        )
        if self._unsure is not None and replace(record, at=self._unsure.at).sealed() == self._unsure.sealed():
            record = self._unsure  # the same bytes again: with another instant it would be taken for a stranger's
        self._unsure = record
        self.head, _ = _create(self._store, self._prefix, record)
        self._unsure = None
        return replace(self.head, body=body)

    @property
    def checkpoint_due(self) -> bool:
        """Whether the next record has to be a ``compacted`` one that holds the folded state."""
        return (self.head.seq + 1) % CHECKPOINT_EVERY == 0


def _create(store: Store, prefix: str, record: Record) -> tuple[Record, bytes]:
    sealed, data = record.sealed()
    key = entry(prefix, record.seq)
    try:
        store.create(key, data)
    except KeyExists as error:
        # Either our own PUT whose answer was lost, or a successor's: only the bytes tell. They differ always,
        # because ``opened`` carries a random writer id and every later hash depends on it.
        if store.get(key) != data:
            raise Fenced(f"{key}: written by another attempt; this one stops without acting") from error
    return sealed, data


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
    """Take the log over for ``attempt`` by appending ``opened`` at its tail; the log and the records before it.

    ``body`` is given the records before and makes the body of ``opened``; ``checkpoint`` makes the body of the
    ``compacted`` record for when the tail's next number is a checkpoint's. A first attempt tries number 1 without
    listing, which is right but for a lost answer or a twin. A closed log is not opened: its records are returned
    and the last one is ``closed``.

    Raises:
        Fenced: an attempt of the same or a later number has already opened it: this start is a stale one.
        Damaged: a record does not fit.
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
                # Written in the older attempt's name: ours is only taken by ``opened``.
                before = StepLog(store, run, key, newest, head, clock)
                records = [before.append(Kind.COMPACTED, checkpoint(records))]
                log.head = before.head
            records.append(log.append(Kind.OPENED, body(records)))
        except Fenced:
            # The race with an older attempt's last append, or with a twin: read what is there now and decide again.
            records = read_step(store, run, key)
            continue
        return log, records


class EventLog:
    """The run's own records, written by whoever has something to say; read in order by everyone."""

    def __init__(self, store: Store, run: RunPath, clock: Callable[[], float]) -> None:
        self._store, self.run, self._clock = store, run, clock
        self.records: list[Record] = []

    def refresh(self) -> bool:
        """Read what others have appended since; whether there was anything.

        Raises:
            Damaged: see ``read_records``.
        """
        tail = self.records[-1] if self.records else None
        keys = entries(self._store.list(self.run.events, entry(self.run.events, tail.seq) if tail else ""))
        first = tail.seq + 1 if tail else 1
        last = seq_of(keys[-1]) if keys else first - 1
        fresh = read_records(self._store, self.run.events, range(first, last + 1), tail.hash if tail else "")
        self.records += [load_body(self._store, self.run, record) for record in fresh]
        return bool(fresh)

    def overtaken(self) -> Callable[[Sequence[Record]], bool]:
        """For ``append``: whether anything stands there that this log does not have now. A plan made of what it has
        now is not to be followed then.
        """
        known = len(self.records)
        return lambda records: len(records) > known

    def append(
        self, kind: str, body: Mapping[str, Any], unless: Callable[[Sequence[Record]], bool] | None = None
    ) -> bool:
        """Commit an event after all others; False where ``unless`` holds of what stands there by then.

        ``unless`` is asked again after every lost race, so that, of two drivers or two people, one event is written.
        """
        while True:
            if unless is not None and unless(self.records):
                return False
            tail = self.records[-1] if self.records else None
            record = Record(
                str(self.run),
                "",
                0,
                tail.seq + 1 if tail else 1,
                round(self._clock(), 6),
                kind,
                body_of(self._store, self.run, body),
                tail.hash if tail else "",
            )
            try:
                sealed, _ = _create(self._store, self.run.events, record)
            except Fenced:
                self.refresh()
                continue
            self.records.append(replace(sealed, body=body))
            return True


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of ``run.json``: the manifest with its own digest."""
    return canonical({**manifest, "hash": digest_of(manifest)})


def parse_manifest(data: bytes, key: str) -> RunManifest:
    """The manifest in ``data``, checked against its digest.

    Raises:
        Damaged: it does not fit.
    """
    manifest = _parse_body(data, key)
    digest = manifest.pop("hash", None)
    if type(manifest.get("v")) is int and manifest["v"] > SCHEMA:
        raise Damaged(f"{key}: written in version {manifest['v']}; this agentrun reads up to {SCHEMA}: upgrade it")
    try:
        fits = digest == digest_of(manifest)
    except (ValueError, RecursionError):  # a number or a depth that JSON does not have
        fits = False
    if not fits:
        raise Damaged(f"{key}: the content does not fit its hash; the object was changed after it was written")
    return cast(RunManifest, manifest)


def _parse_body(data: bytes, key: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{key}: this is not JSON ({error}); the object was damaged") from error
    if not isinstance(value, dict):
        raise Damaged(f"{key}: this is not a JSON object; the object was damaged")
    return value
