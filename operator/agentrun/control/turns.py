"""Turns for work that is done one piece at a time: the namespaces take turns, however much each of them wants."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """For one event loop."""

    def __init__(self) -> None:
        self._busy = False
        """Whether somebody has the turn now."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The waiting takers of each namespace. The namespace whose turn is next comes first."""

    async def take(self, namespace: str) -> None:
        """Wait for a turn of ``namespace``; ``give`` ends the turn. A cancelled call takes no turn."""
        if self._busy:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(namespace, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self.give()  # the turn was given to this call at the moment of its cancellation
                raise
        self._busy = True

    def give(self) -> None:
        """End the turn, and give the next one to the namespace whose last turn is longest ago."""
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
