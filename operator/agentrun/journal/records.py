"""A record of the journal: canonical JSON in a hash chain. Each step has one append-only log, and so has the run.

The hash of a record covers all its fields, including ``prev`` (the hash of the record before). So anyone who has the
objects finds offline a record that was changed, dropped, reordered or inserted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agentrun.api.canonical import canonical, moment, sha256, timestamp
from agentrun.api.errors import AgentrunError
from agentrun.api.texts import quoted

SCHEMA = 1
"""The schema version that this code writes. It reads every version up to this one."""

INLINE_MAX = 64 * 1024
"""The largest body, in bytes, that is kept in its record. A larger one becomes a blob."""


class Damaged(AgentrunError):
    """An object of the journal is not what was written. The message names the object; nothing is guessed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry. ``step`` is the key's path, empty for an event; ``at`` is in seconds since the epoch."""

    run: str
    step: str
    attempt: int
    seq: int
    at: float
    kind: str
    """A ``Kind`` or an ``EventKind``, or a kind that a later version of agentrun added."""
    body: Any
    """An object in the form of its kind (``STEP_BODIES``, ``EVENT_BODIES``). The code that reads it declares that type.
    """
    prev: str
    hash: str = ""

    def sealed(self, body: bytes | None = None) -> tuple[Record, bytes]:
        """The record with its hash, and its bytes as ``canonical`` would give them.

        The body is encoded at most once. ``body``: the bytes of the body, if it is encoded already.
        """
        body = canonical(self.body) if body is None else body
        # The names in the order of canonical JSON. The hash is the only field that it does not cover.
        before = b'{"at":%b,"attempt":%d,"body":%b,' % (canonical(timestamp(self.at)), self.attempt, body)
        named = tuple(map(canonical, (str(self.kind), self.prev, self.run)))
        after = b'"kind":%b,"prev":%b,"run":%b,' % named
        after += b'"seq":%d,"step":%b,"v":%d}' % (self.seq, canonical(self.step), SCHEMA)
        digest = sha256(before + after)
        record = Record(self.run, self.step, self.attempt, self.seq, self.at, self.kind, self.body, self.prev, digest)
        return record, before + b'"hash":%b,' % canonical(digest) + after


def parse(data: bytes, key: str) -> Record:
    """The record in ``data``, checked against its own hash.

    Raises:
        Damaged: ``data`` is no record, its hash does not fit, or a newer agentrun wrote it. The message names ``key``.
    """
    try:
        value = json.loads(data)
        version = value["v"]
        if type(version) is int and version > SCHEMA:  # checked first: the other fields may be new too
            raise Damaged(f"{key}: written in schema version {version}; this agentrun reads up to {SCHEMA}: upgrade it")
        digest = value.pop("hash")
        if type(version) is not int or version < 1:
            raise ValueError(f"its schema version is {quoted(version)}")
        if sha256(canonical(value)) != digest:
            raise Damaged(f"{key}: the content does not match its hash; the object was changed after it was written")
        if type(value["body"]) is not dict or type(value["attempt"]) is not int:
            raise ValueError("its body is not an object, or its attempt is not a number")
        return Record(
            value["run"],
            value["step"],
            value["attempt"],
            value["seq"],
            moment(value["at"]),
            str(value["kind"]),  # a tenant's pod may write anything: a kind that is no string is an unknown kind
            value["body"],
            value["prev"],
            digest,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(
            f"{key}: this is not a record ({type(error).__name__}: {error}); the object was damaged"
        ) from error
