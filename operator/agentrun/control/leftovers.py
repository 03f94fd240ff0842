"""Removes what deleted runs left behind: Approvals that the cluster did not collect, commands that no run will take.

Kubernetes deletes what a deleted run owns, unless the run was deleted with ``--cascade=orphan``. A command has no
owner. Neither is of any use any more: a new run of the same name is another run. A command is rejected first, and stays
with its answer for a while (``control.answers``).
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
from agentrun.control.answers import Answers
from agentrun.control.cache import Cache
from agentrun.control.cluster import Cluster
from agentrun.control.views import ApprovalView, CommandView, RunRef
from agentrun.kube.errors import ClusterError

GRACE = 30.0
"""Seconds before a leftover is removed or rejected. In that time the run may still show up, since it comes by another
watch, and the cluster may collect what the run owned.
"""

COMMANDS_KEPT = 100
"""Commands without a run and an answer that one namespace may have. Of any more, the oldest are removed at once."""

AT_A_TIME = 200
"""Objects that are removed at one time at most."""

SIDE_BY_SIDE = 8

log = logging.getLogger("agentrun.control")

Leftover = ApprovalView | CommandView


@dataclass(slots=True)
class Leftovers:
    """See the module. ``_since`` is lost with the leader: the next one waits its own ``GRACE``."""

    cluster: Cluster
    cache: Cache
    answers: Answers
    clock: Callable[[], float]
    _since: dict[str, float] = field(default_factory=dict)
    """When each object was first seen without its run, by uid."""

    async def remove(self) -> None:
        """Remove the objects that have had no run for ``GRACE``. Failures are logged, and tried again next time."""
        now = self.clock()
        by_namespace: dict[str, list[Leftover]] = defaultdict(list)
        for view in self._without_run():
            by_namespace[view.namespace].append(view)
        found = {view.uid for views in by_namespace.values() for view in views}
        self._since = {uid: self._since.get(uid, now) for uid in found}
        # Take one of each namespace in turn, so that the many of one do not hold up the few of another.
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
                    log.info("%s/%s: cannot remove what is left of that run: %s", *ref, error)
                except Exception:
                    # A bug of ours, or an object that nobody expected, must not hold up the others.
                    log.exception("%s/%s: cannot remove what is left of that run", *ref)

        async with asyncio.TaskGroup() as tasks:
            for ref, views in by_run.items():
                tasks.create_task(one(ref, views))

    def forget(self) -> None:
        """Forget what was seen, because another replica leads."""
        self._since.clear()

    def _without_run(self) -> Iterator[Leftover]:
        commands = (command for command in self.cache.commands if command.open)
        views: Iterator[Leftover] = chain(self.cache.approvals, commands)
        for view in views:
            run = self.cache.run(view.run)
            if run is None or view.run_uid not in (None, run.uid):
                yield view

    def _due(self, views: list[Leftover], now: float) -> Iterator[Leftover]:
        commands = sorted((v for v in views if isinstance(v, CommandView)), key=lambda view: view.version)
        excess = {view.uid for view in commands[:-COMMANDS_KEPT]}
        return (view for view in views if view.uid in excess or now >= self._since[view.uid] + GRACE)

    async def _remove(self, ref: RunRef, views: list[Leftover]) -> None:
        """Remove the objects, except those whose run the API server still has: then only the watch is late."""
        # No run can have an invalid name. Only a schema of another version lets such a reference through.
        run = await self.cluster.get_run(ref) if re.fullmatch(NAME_PATTERN, ref.name) else None
        there = None if run is None else run.uid
        for view in views:
            if there is not None and view.run_uid in (None, there):
                continue
            if isinstance(view, ApprovalView):
                await self.cluster.delete_approval(view)
                self.cache.approvals.drop(ref, view.name, view.uid)
            else:
                why = _why(view, there)
                await self.cluster.record_refusal(view, why)
                if self.clock() < self._since[view.uid] + GRACE:  # one of too many
                    await self.answers.remove(view)
                else:
                    await self.answers.give(view, why)
            log.info("%s/%s: removed or rejected %s, which a deleted run left behind", *ref, view.name)


def _why(command: CommandView, there: str | None) -> str:
    run = f"AgentRun {command.run.name}"
    if there is None:
        return f"there is no {run}"
    return f"it is for {run} with uid {command.run_uid}, but the AgentRun of that name has another uid"
