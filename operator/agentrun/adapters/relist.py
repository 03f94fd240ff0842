"""A list of everything some seconds after the watches began, against deletions that no watch told of."""

from __future__ import annotations

import asyncio

from agentrun.control.controller import Controller

RELIST = 5.0
"""Seconds after a watch began, until everything is listed once more."""


class Relisting:
    """Lists everything some seconds after it was asked to: nobody tells what was deleted while a watch began."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """However often this is called until then, it lists once."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._list())

    def stop(self) -> None:
        """What was asked for is not done."""
        if self._task is not None:
            self._task.cancel()

    async def _list(self) -> None:
        await asyncio.sleep(RELIST)
        await self._controller.warm()
