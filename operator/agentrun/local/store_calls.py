"""Calls of the store that wait for a store that is out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

from agentrun.store.protocol import StoreUnavailable

T = TypeVar("T")

STORE_PATIENCE = 60.0
"""Seconds for which a call is made again while the store does not answer."""


async def patiently(tell: Callable[[str], None], call: Callable[..., T], *args: Any) -> T:
    """Make a store call in a thread. Retry it for ``STORE_PATIENCE`` seconds while the store is out of reach.

    ``tell`` is called with a line before each pause. After a cancellation, the call may still be carried out.

    Raises:
        StoreUnavailable: the store stayed out of reach.
    """

    def again(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        tell(f"store out of reach, trying again: {error}")

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=tenacity.wait_exponential(0.5, max=5.0),
        stop=tenacity.stop_after_delay(STORE_PATIENCE),
        before_sleep=again,
        reraise=True,
    )
    return await retrying(asyncio.to_thread, call, *args)
