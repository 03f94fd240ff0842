"""Complete lists from the API server, page by page, of every kind that is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from agentrun.adapters.kopf_reading import PAGE
from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.adapters.pod_status import pod_view
from agentrun.api.names import RUN_LABEL
from agentrun.api.workflow import GROUP, VERSION
from agentrun.control.views import ApprovalView, CommandView, PodView, RunView
from agentrun.kube.client import Kube
from agentrun.kube.errors import Refused
from agentrun.observe.health import Health

log = logging.getLogger("agentrun.source")

V = TypeVar("V")

LOOK = 5.0
"""Seconds between looks whether other namespaces answer."""

LISTED = ("agentruns", "approvals", "agentcommands", "pods")
"""What is kept of the cluster. Of AgentWorkflows only is watched that there are new ones."""


def views_for(clock: Callable[[], float]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """How an object of each kind is seen; an AgentWorkflow only is or is not."""
    views: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "AgentRun": run_view,
        "Approval": lambda obj: approval_view(obj, clock()),
        "AgentCommand": command_view,
        "Pod": pod_view,
    }
    return {kind: partial(_viewed, view) for kind, view in views.items()}


def _viewed(view: Callable[[Mapping[str, Any]], V | None], obj: Mapping[str, Any]) -> V | None:
    """What is kept of an object. One that nobody thought of must not be the end of all the others."""
    try:
        return view(obj)
    except Exception:
        about = obj.get("metadata") or {}
        log.exception("%s/%s cannot be read, and counts as not there", about.get("namespace"), about.get("name"))
        return None


class ApiLists:
    """Complete lists, page by page, of the namespaces that are watched (none: of all).

    One of several that is refused (it is gone, or its Role) is passed over: the others go on.
    """

    def __init__(self, kube: Kube, namespaces: Sequence[str], clock: Callable[[], float], health: Health) -> None:
        self._kube, self._namespaces, self._views, self._health = kube, namespaces, views_for(clock), health
        self._refused: set[tuple[str, str]] = set()
        """Namespace and kind of the lists that were refused when they were asked for last."""

    @property
    def everywhere(self) -> bool:
        """Whether all namespaces are watched."""
        return not self._namespaces

    @property
    def answering(self) -> tuple[str, ...]:
        """The namespaces that were listed when they were asked for last."""
        return tuple(name for name in self._namespaces if not self.passed_over(name))

    def passed_over(self, namespace: str) -> bool:
        """Whether the lists have nothing of a namespace, because it refuses them."""
        return any(namespace == refused for refused, _ in self._refused)

    async def others_answer(self, than: tuple[str, ...]) -> None:
        """Wait until other namespaces answer ``than`` these."""
        while self.answering == than:  # noqa: ASYNC110  (told by the next list, whoever asks for it)
            await asyncio.sleep(LOOK)

    def runs(self) -> AsyncIterator[tuple[list[RunView], int]]:
        """Every AgentRun."""
        return self._pages(f"/apis/{GROUP}/{VERSION}", "agentruns", self._views["AgentRun"])

    def pods(self) -> AsyncIterator[tuple[list[PodView], int]]:
        """Every pod of a step."""
        return self._pages("/api/v1", "pods", self._views["Pod"], RUN_LABEL)

    def approvals(self) -> AsyncIterator[tuple[list[ApprovalView], int]]:
        """Every Approval."""
        return self._pages(f"/apis/{GROUP}/{VERSION}", "approvals", self._views["Approval"])

    def commands(self) -> AsyncIterator[tuple[list[CommandView], int]]:
        """Every AgentCommand."""
        return self._pages(f"/apis/{GROUP}/{VERSION}", "agentcommands", self._views["AgentCommand"])

    async def _pages(
        self, api: str, plural: str, view: Callable[[Mapping[str, Any]], Any], labels: str = ""
    ) -> AsyncIterator[tuple[list[Any], int]]:
        paths = {space: f"{api}/namespaces/{space}/{plural}" for space in self._namespaces} or {"": f"{api}/{plural}"}
        # Of several namespaces the oldest list counts: what was deleted after it is told by the watch or the next one.
        oldest: int | None = None
        for space, path in paths.items():
            try:
                async for page in self._kube.pages(path, labels, limit=PAGE):
                    version = int(page["metadata"]["resourceVersion"])
                    oldest = version if oldest is None else min(oldest, version)
                    yield [found for item in page["items"] if (found := view(item)) is not None], oldest
                    await asyncio.sleep(0)
            except Refused as error:
                if all(other == space or (other, plural) in self._refused for other in paths):
                    raise
                if not self.passed_over(space):
                    log.error("namespace %s is passed over, and its runs stand still: %s", space, error)
                self._refused.add((space, plural))
            else:
                self._refused.discard((space, plural))
        self._health.watch(plural, True)
