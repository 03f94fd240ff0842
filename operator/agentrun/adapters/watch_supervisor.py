"""Keeps kopf's watches going as long as the operator lives.

If the API server refuses one watch, kopf ends all of them. Then this module lists everything and starts the watches
again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import kopf

from agentrun.adapters.kopf_handlers import registry_for, settings_for
from agentrun.adapters.kopf_reading import reading
from agentrun.adapters.lister import ApiLists
from agentrun.adapters.relist import Relisting
from agentrun.adapters.watched import views_for
from agentrun.control.controller import Controller
from agentrun.control.views import KEPT
from agentrun.kube.client import Kube
from agentrun.kube.credentials import Login
from agentrun.observe.health import Health
from agentrun.observe.metrics import Metrics

PAUSE_FIRST, PAUSE_MAX = 0.5, 30.0
"""Seconds before the watches restart: ``PAUSE_FIRST`` after a round that lasted longer than ``PAUSE_MAX``. After a
shorter round the pause doubles, up to ``PAUSE_MAX``.
"""

LEAVE = 10
"""How often, a second apart, the tasks of kopf are cancelled at the end of a round of watches."""

_KOPF = str(Path(kopf.__file__).parent)

log = logging.getLogger("agentrun.source")


def heed_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set ``stop``."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def watch(
    controller: Controller,
    kube: Kube,
    login: Login,
    metrics: Metrics,
    health: Health,
    clock: Callable[[], float],
    lists: ApiLists,
    stop: asyncio.Event,
) -> None:
    """Watch until ``stop`` is set, which SIGTERM and SIGINT do, then return. Do not cancel this.

    If one watch is refused (a 4xx: the types are being replaced, a role is gone, 410), kopf ends all of them. Then they
    restart after a pause, and everything is listed, because no watch reports what was deleted meanwhile.
    (``kopf.operator`` would also cancel every task of the loop that is younger than itself, so ours too.)
    """
    with reading(kube, views_for(clock)):
        await _watch(controller, login, metrics, health, lists, stop)


async def _watch(
    controller: Controller, login: Login, metrics: Metrics, health: Health, lists: ApiLists, stop: asyncio.Event
) -> None:
    pause, relisting = PAUSE_FIRST, Relisting(controller)
    while await _types_are_there(controller, stop):
        namespaces = lists.answering  # one refused watch would end all others
        if not namespaces and not lists.everywhere:
            log.error("none of the watched namespaces can be listed completely; retrying in %.0f s", PAUSE_MAX)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_MAX)
            continue
        tasks = await kopf.spawn_tasks(
            registry=registry_for(controller, login, metrics, relisting),
            settings=settings_for(),
            standalone=True,
            identity=cast("Any", "agentrun"),  # unused, since peering is off; the default looks up the user's name
            clusterwide=lists.everywhere,
            namespaces=tuple(namespaces),
            stop_flag=stop,
        )
        heed_signals(stop)  # kopf has set its own handlers, which end only this round of watches
        relisting.ask()
        began = time.monotonic()
        others = asyncio.ensure_future(lists.others_answer(namespaces))
        done, _ = await asyncio.wait([*tasks, others], return_when=asyncio.FIRST_COMPLETED)
        others.cancel()
        await _end_round()
        relisting.stop()
        if stop.is_set():
            return
        if others in done:
            log.warning("restarting the watches: of the watched namespaces, %s can be listed", lists.answering)
            continue
        why = "; ".join(str(task.exception()) for task in done if not task.cancelled()) or "no reason given"
        pause = PAUSE_FIRST if time.monotonic() - began > PAUSE_MAX else min(2 * pause, PAUSE_MAX)
        log.error("the watches ended: %s; restarting them in %.0f s", why[:500], pause)
        for kind in KEPT:
            health.watch(kind.plural, False)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
            return


async def _types_are_there(controller: Controller, stop: asyncio.Event) -> bool:
    """Wait until everything can be listed, because kopf looks up the types only once. False: ``stop`` was set."""
    tasks = [asyncio.ensure_future(controller.warm()), asyncio.ensure_future(stop.wait())]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()
    return not stop.is_set()


async def _end_round() -> None:
    """Cancel all tasks of kopf that are left. When one watch fails, kopf leaves the others running, and a watch loses a
    cancellation that comes while it reconnects.
    """
    for _ in range(LEAVE):
        left = [task for task in asyncio.all_tasks() if _is_kopfs(task)]
        if not left:
            return
        # A watch cancels its own pause-waiter, which complains if somebody else does. So these come last.
        for task in [t for t in left if not t.get_name().startswith("pause-waiter")] or left:
            task.cancel()
        await asyncio.wait(left, timeout=1)
    if still := [task for task in left if not task.done()]:
        log.error("the watches do not end: %d tasks are left", len(still))


def _is_kopfs(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF)
