"""Complete lists taken into the cache: for a leader that begins, and against deletions that no watch told of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol, TypeVar

from agentrun.control.cache import Cache, Shelf
from agentrun.control.views import KEPT, Kind, RunRef, View
from agentrun.kube.errors import ClusterError, Unavailable

log = logging.getLogger("agentrun.control")

V = TypeVar("V", bound=View)


class Lists(Protocol):
    """Complete lists from the API server, page by page: each page with the resourceVersion of the list."""

    def pages(self, kind: Kind[V]) -> AsyncIterator[tuple[list[V], int]]:
        """Every object of ``kind`` that is watched."""

    def passed_over(self, namespace: str) -> bool:
        """Whether the lists have nothing of a namespace, because it refuses them."""


async def take_lists(cache: Cache, lists: Lists) -> set[RunRef]:
    """Take a list of every kind into the cache, asking until each is there; the runs of which something changed.

    Cancellation leaves in the cache what was taken in until then.
    """
    changed: set[RunRef] = set()
    for kind in KEPT:
        changed |= await _patiently(cache[kind], partial(lists.pages, kind), lists.passed_over)
    return changed


async def _patiently(
    shelf: Shelf[V], pages: Callable[[], AsyncIterator[tuple[list[V], int]]], skipped: Callable[[str], bool]
) -> set[RunRef]:
    """As ``_listed``, again until it is done: what one kind's list took is not asked for again for another's sake."""
    pause = 1.0
    while True:
        try:
            return await _listed(shelf, pages(), skipped)
        except ClusterError as error:
            log.warning("the API server does not list: %s; again in %.0f s", error, pause)
            asked = error.retry_after if isinstance(error, Unavailable) else None
            await asyncio.sleep(max(asked or 0.0, pause))
            pause = min(2 * pause, 30.0)


async def _listed(
    shelf: Shelf[V], pages: AsyncIterator[tuple[list[V], int]], skipped: Callable[[str], bool]
) -> set[RunRef]:
    """Take a list into the cache, a page at a time so that nothing else waits long."""
    changed: set[RunRef] = set()
    seen: set[str] = set()
    listed_at = 0
    with shelf.expecting():
        async for views, version in pages:
            changed |= {view.run for view in views if shelf.put(view)}
            seen |= {view.uid for view in views}
            listed_at = version
    return changed | shelf.keep(seen, listed_at, skipped)
