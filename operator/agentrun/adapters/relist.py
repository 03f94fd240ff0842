"""Lists everything some seconds after the watches began, to find deletions that no watch reported."""

from __future__ import annotations

import asyncio

from agentrun.control.controller import Controller

RELIST = 5.0
"""Seconds between the start of a watch and the list of everything."""


class Relisting:
    """Lists everything some seconds after ``ask``: no watch reports what was deleted while it started."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Schedule a list. Calls before it has ended do not schedule another one."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._list())

    def stop(self) -> None:
        """Cancel the scheduled list."""
        if self._task is not None:
            self._task.cancel()

    async def _list(self) -> None:
        await asyncio.sleep(RELIST)
        await self._controller.warm()
