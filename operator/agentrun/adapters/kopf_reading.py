"""Makes kopf read its lists and watches through our own decoder.

kopf parses whole pages and lines with ``json.loads``. There, a tenant's object that nests too deep ends the watch again
and again, and a large object stays in kopf's queues as dictionaries. Here each object becomes a view as soon as its
bytes are read (``SEEN``), and kopf gets only its kind and four fields of its metadata.

This module replaces two functions of kopf, ``clients.api.stream`` and ``clients.fetching.fetch_objs``. The tests check
both against the installed release. A release that changes them fails there, and at the start of the operator
(docs/adr/0017).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import aiohttp
from kopf._cogs.clients import api, fetching

from agentrun.api.decoding import Unreadable, decode_object
from agentrun.kube.answers import APART
from agentrun.kube.client import Kube
from agentrun.kube.errors import ClusterError, Refused

SEEN: Final = "seen"
"""The key under which an object for kopf carries its view."""

PAGE: Final = 200
"""Objects in one page of a list. Parsing them takes some 5 ms, in which the event loop does nothing else."""

LONG: Final = 0.02
"""If the work on one line of a watch takes more than this many seconds, the watch pauses for as long. So a client that
keeps writing large objects gets at most half of the operator's time.
"""

View = Callable[[Mapping[str, Any]], Any]

_STREAM = ("url", "settings", "payload", "headers", "timeout", "stopper", "logger")
_FETCH = ("settings", "resource", "namespace", "logger")


@contextmanager
def reading(kube: Kube, views: Mapping[str, View]) -> Iterator[None]:
    """Replace kopf's two functions within the block. ``views`` makes the view of an object, by its kind.

    Raises:
        RuntimeError: the functions of this release of kopf have other parameters.
    """
    theirs: tuple[Any, Any] = api.stream, fetching.fetch_objs
    for function, known in zip(theirs, (_STREAM, _FETCH), strict=True):
        if tuple(inspect.signature(function).parameters) != known:
            raise RuntimeError(f"kopf has changed: {function.__qualname__} is not what agentrun replaces")

    def shown(obj: Mapping[str, Any], kind: str) -> dict[str, Any]:
        metadata = obj["metadata"]
        told = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata}
        view = views.get(kind)
        return {"kind": kind, "metadata": told, SEEN: view(obj) if view is not None else None}

    async def stream(
        url: str,
        *,
        settings: Any,
        payload: object | None = None,
        headers: dict[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  (kopf's)
        stopper: asyncio.Future[Any] | None = None,
        logger: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        async for line in _lines(url, settings, payload, headers, timeout, stopper, logger):
            began = time.monotonic()
            try:
                event = decode_object(line) if len(line) <= APART else await asyncio.to_thread(decode_object, line)
            except Unreadable as error:
                raise aiohttp.ClientPayloadError(f"a line of the watch {error}") from None  # kopf begins again
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                event["object"] = shown(event["object"], event["object"].get("kind", ""))
            took = time.monotonic() - began
            yield event
            if took > LONG:
                await asyncio.sleep(took)

    async def fetch_objs(
        *, settings: Any, resource: Any, namespace: str | None, logger: Any
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        labels = ",".join(sorted(set(settings.watching.label_selectors.collect(resource))))
        try:
            async for page in kube.pages(resource.get_url(namespace=namespace), labels, limit=PAGE):
                yield [shown(item, resource.kind) for item in page["items"]], page["metadata"]["resourceVersion"]
        except Refused:
            raise
        except ClusterError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error  # kopf lists again

    api.stream, fetching.fetch_objs = cast("tuple[Any, Any]", (stream, fetch_objs))
    try:
        yield
    finally:
        api.stream, fetching.fetch_objs = theirs


async def _lines(
    url: str,
    settings: Any,
    payload: object | None,
    headers: dict[str, str] | None,
    timeout: aiohttp.ClientTimeout | None,  # noqa: ASYNC109  (kopf's)
    stopper: asyncio.Future[Any] | None,
    logger: Any,
) -> AsyncIterator[bytes]:
    """The lines of a watch until it ends or ``stopper`` is done. The code follows kopf's own ``stream``.

    While the request waits for its response, ``stopper`` cancels it. Afterwards ``stopper`` closes the connection.
    """
    task = asyncio.current_task()
    assert task is not None

    def give_up(_: object) -> None:
        task.cancel()

    if stopper is not None and not stopper.done():
        stopper.add_done_callback(give_up)
    try:
        response = await api.request(
            "get", url, payload=payload, headers=headers, timeout=timeout, settings=settings, logger=logger
        )
    except asyncio.CancelledError:
        if stopper is not None and stopper.done():
            return
        raise
    finally:
        if stopper is not None:
            stopper.remove_done_callback(give_up)

    def close(_: object) -> None:
        response.close()

    if stopper is not None:
        if stopper.done():
            response.close()
            return
        stopper.add_done_callback(close)
    try:
        async with response:
            async for line in api.iter_jsonlines(response.content):
                yield line
    except aiohttp.ClientConnectionError:
        if stopper is None or not stopper.done():
            raise
    finally:
        if stopper is not None:
            stopper.remove_done_callback(close)
