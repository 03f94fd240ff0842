"""What is left of runs that are gone: Approvals that the cluster did not collect, commands that nobody will take.

Kubernetes removes with a run what belongs to it, unless the run was deleted with ``--cascade=orphan``; and a command
belongs to nobody. Neither is of any use: a run that is made under the same name is another one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from agentrun.api.values import NAME_PATTERN
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.views import ApprovalView, CommandView, RunRef
from agentrun.kube.errors import ClusterError

GRACE = 30.0
"""Seconds in which the run may still show up, whose watch is another one, and the cluster collects what was its own."""

COMMANDS_KEPT = 100
"""Commands without a run in one namespace; of more, the oldest go at once."""

AT_A_TIME = 200
"""Objects that one look removes."""

SIDE_BY_SIDE = 8

log = logging.getLogger("agentrun.control")

Leftover = ApprovalView | CommandView


@dataclass(slots=True)
class Leftovers:
    """See the module. What was seen is lost with the leader: the next one waits its own ``GRACE``."""

    cluster: Cluster
    cache: Cache
    clock: Callable[[], float]
    _since: dict[str, float] = field(default_factory=dict)
    """By uid: when it was first seen without its run."""

    async def remove(self) -> None:
        """Remove what has been without its run for ``GRACE``, as far as the API server lets us."""
        now = self.clock()
        by_namespace: dict[str, list[Leftover]] = defaultdict(list)
        for view in self._without_run():
            by_namespace[view.namespace].append(view)
        found = {view.uid for views in by_namespace.values() for view in views}
        self._since = {uid: self._since.get(uid, now) for uid in found}
        # one of each namespace in turn: no namespace's many hold up another's few
        turns = zip_longest(*(self._due(views, now) for views in by_namespace.values()))
        due = [view for view in chain.from_iterable(turns) if view is not None][:AT_A_TIME]
        by_run: dict[RunRef, list[Leftover]] = defaultdict(list)
        for view in due:
            by_run[view.run].append(view)
        room = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(ref: RunRef, views: list[Leftover]) -> None:
            async with room:
                try:
                    await self._remove(ref, views)
                except ClusterError as error:
                    log.info("%s/%s: what is left of that run is not removed now: %s", *ref, error)
                except Exception:
                    # A defect of ours, or an object that nobody thought of, must not keep the others.
                    log.exception("%s/%s: what is left of that run is not removed now", *ref)

        async with asyncio.TaskGroup() as tasks:
            for ref, views in by_run.items():
                tasks.create_task(one(ref, views))

    def forget(self) -> None:
        """Another replica leads."""
        self._since.clear()

    def _without_run(self) -> Iterator[Leftover]:
        views: Iterator[Leftover] = chain(self.cache.approvals, self.cache.commands)
        for view in views:
            run = self.cache.run(view.run)
            if run is None or view.run_uid not in (None, run.uid):
                yield view

    def _due(self, views: list[Leftover], now: float) -> Iterator[Leftover]:
        commands = sorted((v for v in views if isinstance(v, CommandView)), key=lambda view: view.version)
        excess = {view.uid for view in commands[:-COMMANDS_KEPT]}
        return (view for view in views if view.uid in excess or now >= self._since[view.uid] + GRACE)

    async def _remove(self, ref: RunRef, views: list[Leftover]) -> None:
        """Remove them, but for what belongs to the run that the API server has: then the watch is late."""
        # no run has a name that is none: only a schema of another version lets that through
        run = await self.cluster.get_run(ref) if re.fullmatch(NAME_PATTERN, ref.name) else None
        there = None if run is None else run.uid
        for view in views:
            if there is not None and view.run_uid in (None, there):
                continue
            if isinstance(view, ApprovalView):
                await self.cluster.delete_approval(view)
                self.cache.approvals.drop(ref, view.name, view.uid)
            else:
                await self.cluster.refuse_command(view, _why(view, there))
                self.cache.commands.drop(ref, view.name, view.uid)
            log.info("%s/%s: removed %s, which was left of a run that is gone", *ref, view.name)


def _why(command: CommandView, there: str | None) -> str:
    if there is None:
        return f"there is no AgentRun {command.run.name}"
    return f"it is for the AgentRun {command.run.name} with the uid {command.run_uid}, and the one there is another"
