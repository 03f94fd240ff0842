"""Event loops with virtual time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while a callback is ready, and then jumps to the next timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.each: Callable[[], None] = lambda: None
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and no timer is set"
        self._loop.each()
        self._loop.now += max(timeout, 0)
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    skipped = 0.0
    """Seconds that were skipped."""

    def time(self) -> float:
        return super().time() + self.skipped
