"""The canonical form of a JSON value and its digest, which records, approvals and pinned workflows are bound by.

Also the canonical form of an instant: ``timestamp`` writes it and ``moment`` parses it.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from agentrun.api.texts import quoted

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


FIRST, LAST = -62135596800.0, 253402300799.0
"""The first and the last second that the four digits of a year can name in UTC, in seconds since the epoch."""

NEVER = LAST - 2 * 86400
"""An instant from here on means "never": databases write 9999-12-31 for it, in any time zone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP_SECOND = re.compile(r"(.*:\d\d):60(?!\d)(?:[.,]\d+)?(.*)", re.DOTALL)


@lru_cache(4096)  # a status shows the same instants again and again
def timestamp(at: float) -> str:
    """RFC 3339 in UTC with microseconds; ``at`` is in seconds since the epoch.

    An instant before the year 1 or after the year 9999 in UTC becomes the first or the last instant of that range.
    """
    if not at <= LAST:
        return "9999-12-31T23:59:59.999999Z"
    return datetime.fromtimestamp(max(at, FIRST), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    """The instant that ``text`` names in RFC 3339, in seconds since the epoch: the inverse of ``timestamp``.

    A leap second counts as the first second of the next minute. With an offset, the instant can lie outside the years
    1 to 9999 in UTC.

    Raises:
        ValueError: ``text`` is not an instant, or has no time zone.
    """
    leap = None
    try:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            # Small letters and leap seconds are RFC 3339 too, and rare.
            leap = _LEAP_SECOND.fullmatch(text.upper())
            at = datetime.fromisoformat(f"{leap[1]}:59{leap[2]}" if leap else text.upper())
    except ValueError:
        form = "write RFC 3339, for example 2027-01-31T09:00:00Z"
        raise ValueError(f"{quoted(text)} is not an instant: {form}") from None
    if at.tzinfo is None:
        raise ValueError(f"{quoted(text)} has no time zone: end it with Z or an offset")
    return (at - _EPOCH).total_seconds() + bool(leap)
