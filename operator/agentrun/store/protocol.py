"""What the journal requires of a store: create-only writes, reads after writes, and compare-and-swap.

Everything durable is an object under a key such as ``support/refund-4711-<uid>/run.json``. The whole design depends on
one promise, that of ``create``: of any number of writers of one key exactly one succeeds, and its object survives a
crash. ``probe`` refuses a store that does not keep this promise.

Methods block; async callers run them in a thread.
"""

from __future__ import annotations

from typing import Protocol

from agentrun.api.errors import AgentrunError

Keys = list[str]  # inside the protocol, ``list`` is a method


class StoreError(AgentrunError):
    """Base class of a store's errors."""


class KeyExists(StoreError):
    """``create`` or ``swap`` found another object. It may be our own, written by a PUT whose answer was lost."""


class KeyMissing(StoreError):
    """There is no object with that key."""


class StoreUnavailable(StoreError):
    """The store did not answer, refused, or is full, after its own bounded retries. It may answer later."""


class StoreUnfit(StoreError):
    """The store ignores conditions, or its address or credentials are wrong. Waiting does not help."""


class Store(Protocol):
    """A store of runs. Keys are ``/``-separated, relative, ASCII, and never contain ``..``."""

    url: str
    """The address that a person gave: a folder, or ``s3://bucket/prefix``."""

    remote: bool
    """Whether an operation is a round trip over a network, so that a thread for it pays. If not, it takes about as long
    as a disk's flush.
    """

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, durably. Raises KeyExists if there is one already. It may be our own, whose answer was
        lost: the caller compares the bytes.
        """

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing."""

    def list(self, prefix: str, after: str = "") -> Keys:
        """Every key that starts with ``prefix`` and is greater than ``after``, sorted."""

    def children(self, prefix: str) -> Keys:
        """The distinct next path segments below ``prefix`` (which ends with ``/`` or is empty), sorted."""

    def read_version(self, key: str) -> tuple[bytes, str]:
        """The object and an opaque version for ``swap``. Raises KeyMissing."""

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        """Replace the object if it still has ``version`` (None: if there is no object). Return the new version.

        Raises KeyExists if the object has another version by now, or is gone.
        """

    def probe(self) -> None:
        """Check that the store honours conditions. Raises StoreUnfit or StoreUnavailable, with what to do."""
