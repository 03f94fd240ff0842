"""What the journal asks of a store: create-only writes, reads after writes, and one compare-and-swap.

Everything durable is an object under a key such as ``support/refund-4711-<uid>/run.json``. The whole design rests
on one promise, ``create``: of any number of writers of one key exactly one succeeds, and what it wrote is there
after a crash. ``probe`` refuses a store that does not keep it.

Methods block; async callers run them in a thread.
"""

from __future__ import annotations

from typing import Protocol

from agentrun.api.errors import AgentrunError

Keys = list[str]  # inside the protocol, ``list`` is a method


class StoreError(AgentrunError):
    """Base of what can go wrong with a store."""


class KeyExists(StoreError):
    """``create`` or ``swap`` met another object; it may be our own, written by a PUT whose answer was lost."""


class KeyMissing(StoreError):
    """No object of that key."""


class StoreUnavailable(StoreError):
    """The store did not answer, refused, or is full, after the store's own bounded retries; it may answer later."""


class StoreUnfit(StoreError):
    """The store ignores conditions, or its address or credentials are wrong: waiting will not help."""


class Store(Protocol):
    """Where runs are kept. Keys are ``/``-separated, relative, ASCII, and never contain ``..``."""

    url: str
    """The address that a person gave: a folder, or ``s3://bucket/prefix``."""

    remote: bool
    """Whether an operation is a round trip over a network: worth a thread. Else it takes about a disk's flush."""

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, durably. Raises KeyExists where there is one (the caller compares: a lost answer)."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing."""

    def list(self, prefix: str, after: str = "") -> Keys:
        """Every key that starts with ``prefix``, sorted, only those greater than ``after``."""

    def children(self, prefix: str) -> Keys:
        """The distinct next path segments below ``prefix`` (which ends with ``/`` or is empty), sorted."""

    def read_version(self, key: str) -> tuple[bytes, str]:
        """The object and an opaque version for ``swap``. Raises KeyMissing."""

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        """Replace the object if it still has ``version`` (None: if there is none); the new version.

        Raises KeyExists when it has another version by now, or is gone.
        """

    def probe(self) -> None:
        """Check that conditions are honoured. Raises StoreUnfit or StoreUnavailable with what to do."""
