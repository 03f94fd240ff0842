"""Complete lists of every kept kind from the API server, page by page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from agentrun.adapters.kopf_reading import PAGE
from agentrun.adapters.watched import path_of, views_for
from agentrun.control.views import Kind, View
from agentrun.kube.client import Kube
from agentrun.kube.errors import Refused
from agentrun.observe.health import Health

log = logging.getLogger("agentrun.source")

V = TypeVar("V", bound=View)

LOOK = 5.0
"""Seconds between checks whether the set of answering namespaces has changed."""


class ApiLists:
    """Complete lists of the watched namespaces, or of all if ``namespaces`` is empty.

    If the API server refuses to list one of several namespaces (it or its Role is gone), that one is left out.
    """

    def __init__(self, kube: Kube, namespaces: Sequence[str], clock: Callable[[], float], health: Health) -> None:
        self._kube, self._namespaces, self._views, self._health = kube, namespaces, views_for(clock), health
        self._refused: set[tuple[str, str]] = set()
        """Namespace and plural of each list that was refused at its last try."""

    @property
    def everywhere(self) -> bool:
        """Whether all namespaces are watched."""
        return not self._namespaces

    @property
    def answering(self) -> tuple[str, ...]:
        """The watched namespaces of which no list was refused at its last try."""
        return tuple(name for name in self._namespaces if not self.passed_over(name))

    def passed_over(self, namespace: str) -> bool:
        """As ``Lists.passed_over``."""
        return any(namespace == refused for refused, _ in self._refused)

    async def others_answer(self, than: tuple[str, ...]) -> None:
        """Wait until the answering namespaces are others ``than`` these."""
        while self.answering == than:  # noqa: ASYNC110  (any list may change it)
            await asyncio.sleep(LOOK)

    async def pages(self, kind: Kind[V]) -> AsyncIterator[tuple[list[V], int]]:
        """As ``Lists.pages``. Raises Refused if every namespace refuses, and what ``Kube.pages`` raises."""
        view = self._views[kind.kind]
        paths = {space: path_of(kind, space) for space in self._namespaces or ("",)}
        # Of several lists the oldest version counts. Deletions after it come by the watch, or show in the next list.
        oldest: int | None = None
        for space, path in paths.items():
            try:
                async for page in self._kube.pages(path, kind.labels, limit=PAGE):
                    version = int(page["metadata"]["resourceVersion"])
                    oldest = version if oldest is None else min(oldest, version)
                    yield [found for item in page["items"] if (found := view(item)) is not None], oldest
                    await asyncio.sleep(0)
            except Refused as error:
                if all(other == space or (other, kind.plural) in self._refused for other in paths):
                    raise
                if not self.passed_over(space):
                    log.error("namespace %s is skipped, and its runs do not progress: %s", space, error)
                self._refused.add((space, kind.plural))
            else:
                self._refused.discard((space, kind.plural))
        self._health.watch(kind.plural, True)
