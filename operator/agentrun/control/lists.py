"""Takes complete lists into the cache: for a new leader, and to find deletions that a watch missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol, TypeVar

from agentrun.control.cache import Cache, Indexer
from agentrun.control.views import KEPT, Kind, RunRef, View
from agentrun.kube.errors import ClusterError, Unavailable

log = logging.getLogger("agentrun.control")

V = TypeVar("V", bound=View)


class Lists(Protocol):
    """Complete lists from the API server, in pages. Each page comes with the resourceVersion of the list."""

    def pages(self, kind: Kind[V]) -> AsyncIterator[tuple[list[V], int]]:
        """All watched objects of ``kind``."""

    def passed_over(self, namespace: str) -> bool:
        """Whether the lists leave out a namespace because the API server refused to list it."""


async def take_lists(cache: Cache, lists: Lists) -> set[RunRef]:
    """Take a list of every kind into the cache, and retry until each has succeeded. Return the runs that changed.

    After a cancellation, the cache keeps what was taken in so far.
    """
    changed: set[RunRef] = set()
    for kind in KEPT:
        changed |= await _patiently(cache[kind], partial(lists.pages, kind), lists.passed_over)
    return changed


async def _patiently(
    indexer: Indexer[V], pages: Callable[[], AsyncIterator[tuple[list[V], int]]], skipped: Callable[[str], bool]
) -> set[RunRef]:
    """As ``_listed``, retried until it succeeds. Each kind retries by itself: one that succeeded is not repeated."""
    pause = 1.0
    while True:
        try:
            return await _listed(indexer, pages(), skipped)
        except ClusterError as error:
            log.warning("cannot list from the API server: %s; retrying in %.0f s", error, pause)
            asked = error.retry_after if isinstance(error, Unavailable) else None
            await asyncio.sleep(max(asked or 0.0, pause))
            pause = min(2 * pause, 30.0)


async def _listed(
    indexer: Indexer[V], pages: AsyncIterator[tuple[list[V], int]], skipped: Callable[[str], bool]
) -> set[RunRef]:
    """Take a list into the cache, one page at a time so that nothing else waits long. Return the runs that changed."""
    changed: set[RunRef] = set()
    seen: set[str] = set()
    listed_at = 0
    with indexer.expecting():
        async for views, version in pages:
            changed |= {view.run for view in views if indexer.put(view)}
            seen |= {view.uid for view in views}
            listed_at = version
    return changed | indexer.keep(seen, listed_at, skipped)
