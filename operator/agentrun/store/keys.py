"""Which keys a store accepts: the same ones in a folder and in a bucket."""

from __future__ import annotations

import re

from agentrun.api.texts import quoted
from agentrun.store.protocol import StoreError

_SEGMENT = re.compile(r"[A-Za-z0-9_@=+,:~!()-][A-Za-z0-9._@=+,:~!()-]{0,254}")
_LONGEST = 900
"""S3 allows 1024 bytes, including the store's own prefix."""


class InvalidKey(StoreError, ValueError):
    """A key that no store accepts. Nothing was read or written."""


def is_segment(name: str) -> bool:
    """Whether ``name`` can be a segment of a key. Names that start with a dot are reserved for the stores."""
    return _SEGMENT.fullmatch(name) is not None and ".." not in name


def is_key(key: str) -> bool:
    """Whether ``key`` is relative, short enough, has no empty segment and no ``..``, and only portable characters."""
    return len(key) <= _LONGEST and all(map(is_segment, key.split("/")))


def check_key(key: str) -> None:
    """Raise InvalidKey unless ``key`` names an object."""
    if not is_key(key):
        raise InvalidKey(
            f"{quoted(key[:200])} is not a key: write segments of A-Z a-z 0-9 . _ @ = + , : ~ ! ( ) - with / between "
            f"them, none empty, none starting with a dot, no '..', and {_LONGEST} characters at most"
        )


def check_prefix(prefix: str) -> None:
    """Raise InvalidKey unless some key can start with ``prefix``."""
    if not is_key(prefix):
        check_key(prefix + "x")


def check_folder(prefix: str) -> None:
    """Raise InvalidKey unless ``prefix`` is empty, or ends with ``/`` and some key can start with it."""
    check_prefix(prefix)
    if prefix and not prefix.endswith("/"):
        raise InvalidKey(f"{quoted(prefix[:200])} does not end with '/': only what ends a segment has children")
