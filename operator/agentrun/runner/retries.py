"""The short retries inside one call. Longer failures are left to the step's ``retry``, which may wait for minutes."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

from agentrun.runner.failures import Failure

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]

TRIES = 3
LONGEST_PAUSE = 60.0
"""The longest pause, in seconds, that a call makes because the other side asked for it. A longer one is left to the
step's retry."""

_DAY = 86_400.0

T = TypeVar("T")


async def with_retries(call: Callable[[], Awaitable[T]], sleep: Sleep) -> T:
    """The result of ``call``, after up to two more tries if a :class:`Failure` is retryable.

    Pauses grow from about 0.5 s; the pause that the other side asked for is added. Cancellation ends a pause or the
    call in hand at once.

    Raises:
        Failure: of the last try; or at once, if it is not retryable or asks for more than a minute.
    """
    for tried in range(1, TRIES + 1):
        try:
            return await call()
        except Failure as failure:
            asked = failure.retry_after or 0.0
            if tried == TRIES or not failure.retryable or asked > LONGEST_PAUSE:
                raise
        # Longer than asked for, with jitter: a thousand steps told to return in 10 s should not all do so together.
        await sleep(asked + 2.0 ** (tried - 2) + random.uniform(0, 0.5))  # noqa: S311  (jitter, not a secret)
    raise AssertionError("the last try returns or raises")


def retry_after(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """The pause in seconds that a response asks for, between 0 and a day; None if it has no valid header.

    ``Retry-After`` holds seconds or a date (RFC 9110, 10.2.3); model APIs add ``retry-after-ms``.
    """
    text, unit = headers.get("retry-after-ms"), 0.001
    if text is None:
        text, unit = headers.get("retry-after"), 1.0
    if text is None:
        return None
    try:
        seconds = float(text) * unit
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _DAY) if seconds == seconds else None  # noqa: PLR0124  (not NaN)
