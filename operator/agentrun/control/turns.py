"""Turns at something that is done one at a time: the namespaces take them, whatever each of them wants."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """For one event loop."""

    def __init__(self) -> None:
        self._busy = False
        """Whether somebody has the turn."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By namespace, the one whose turn is next first."""

    async def take(self, namespace: str) -> None:
        """Wait for a turn of ``namespace``; ``give`` ends it. Cancellation takes none."""
        if self._busy:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(namespace, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self.give()  # it was given the turn in the same moment
                raise
        self._busy = True

    def give(self) -> None:
        """Give the turn to the namespace that has waited the longest since its last one."""
        while self._waiting:
            namespace, turns = next(iter(self._waiting.items()))
            del self._waiting[namespace]
            turn = turns.popleft()
            if turns:
                self._waiting[namespace] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
