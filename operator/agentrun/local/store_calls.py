"""Calls of the store that wait for a store that is out of reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from agentrun.store.protocol import StoreUnavailable

T = TypeVar("T")

STORE_PATIENCE = 60.0
"""Seconds for which a call is made again while the store does not answer."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two calls. Each pause is twice the one before, up to the longest."""


async def patiently(tell: Callable[[str], None], call: Callable[..., T], *args: Any) -> T:
    """Make a store call in a thread. Retry it for ``STORE_PATIENCE`` seconds while the store is out of reach.

    ``tell`` is called with a line before each pause. After a cancellation, the call may still be carried out.

    Raises:
        StoreUnavailable: the store stayed out of reach.
    """
    now = asyncio.get_running_loop().time
    until, pause = now() + STORE_PATIENCE, FIRST_PAUSE
    while True:
        try:
            return await asyncio.to_thread(call, *args)
        except StoreUnavailable as error:
            if now() >= until:
                raise
            tell(f"store out of reach, trying again: {error}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
