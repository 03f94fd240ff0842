"""One form for a JSON value, and its digest: what records, approvals and pinned workflows are bound by."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> bytes:
    r"""JSON with sorted keys, no white space and ASCII only: the same value always gives the same bytes.

    ASCII because a lone surrogate, which a model's ``\ud800`` escape can bring, has no UTF-8 form.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    return _ENCODER.encode(value).encode()


def sha256(data: bytes) -> str:
    """``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """The digest of a JSON value in canonical form."""
    return sha256(canonical(value))


@lru_cache(4096)  # a status shows the same instants again and again
def timestamp(at: float) -> str:
    """RFC 3339 in UTC with microseconds; ``at`` is in seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    """The inverse of ``timestamp``. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
