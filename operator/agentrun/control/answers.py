"""Answers commands in their status, and removes the answered ones.

A command stays for ``KEPT_FOR`` after its answer, so that its author, ``kubectl wait`` or a controller can read it. The
time counts from the condition in the object, so any leader removes it. At most ``KEPT`` of them stay in a namespace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.views import CommandView
from agentrun.kube.errors import ClusterError, Conflict

KEPT_FOR = 600.0
"""Seconds that a command stays after its answer."""

KEPT = 100
"""Answered commands that stay in one namespace. Of any more, the oldest are removed at once. So they take a bounded
part of the API server, of the operator's memory and of a quota, however many commands somebody creates.
"""

log = logging.getLogger("agentrun.control")


@dataclass(slots=True)
class Answers:
    """See the module. Visits of several runs use it side by side."""

    cluster: Cluster
    cache: Cache
    clock: Callable[[], float]
    """Seconds since the epoch."""
    _answered: dict[str, dict[str, CommandView]] = field(default_factory=dict)
    """The answered commands of the cache, by namespace and uid. Those that a finalizer keeps are not among them."""

    def __post_init__(self) -> None:
        self.cache.commands.moved = self._moved

    def _moved(self, command: CommandView, gone: bool) -> None:
        there = self._answered.setdefault(command.namespace, {})
        if gone or command.answered is None or command.deleting:
            there.pop(command.uid, None)
        else:
            there[command.uid] = command
        if not there:
            del self._answered[command.namespace]

    async def give(self, command: CommandView, refusal: str = "") -> None:
        """Answer a command. ``refusal`` says why it is rejected; "": it is recorded.

        If this fails after the record was written, the next visit finds the command in the journal and answers it.
        After a cancellation the answer may have been written.

        Raises:
            Unavailable: the API server does not answer.
            Conflict: somebody keeps changing the command.
        """
        if command.large:
            await self.remove(command)
            return
        try:
            after = await self.cluster.answer_command(command, refusal, self.clock())
        except Conflict:
            # Somebody changed its labels, which must not hold up the visit; or a former leader has answered it.
            after = await self.cluster.get_command(command)
            if after is not None and after.open:
                after = await self.cluster.answer_command(after, refusal, self.clock())
        if after is None:
            self.cache.commands.drop(command.run, command.name, command.uid)
        else:
            # If the watch has reported meanwhile that the command is deleted, its view stays in the cache until
            # ``remove_old``: an answered command causes no visit, so nothing depends on it.
            self.cache.commands.put(after)
        await self._trim(command.namespace)

    async def remove(self, command: CommandView) -> None:
        """Delete a command. Raises Unavailable."""
        await self.cluster.delete_command(command)
        self.cache.commands.drop(command.run, command.name, command.uid)

    async def remove_old(self) -> None:
        """Remove the commands that were answered ``KEPT_FOR`` ago. Failures are logged, and tried again next time."""
        before = self.clock() - KEPT_FOR
        answered = [command for there in self._answered.values() for command in there.values()]
        for command in answered:
            if command.answered is not None and command.answered <= before:
                try:
                    await self.remove(command)
                except ClusterError as error:
                    log.info("%s/%s: AgentCommand %s is not removed now: %s", *command.run, command.name, error)

    async def _trim(self, namespace: str) -> None:
        """Remove the oldest answered commands of the namespace beyond ``KEPT``."""
        while len(there := self._answered.get(namespace, {})) > KEPT:
            oldest = min(there.values(), key=lambda command: (command.answered or 0.0, command.version))
            # It leaves the cache first, so that visits side by side do not all delete the same one. If the deletion
            # fails, the next list brings the command back.
            self.cache.commands.drop(oldest.run, oldest.name, oldest.uid)
            await self.cluster.delete_command(oldest)
