"""kopf as the source of events: it logs in, discovers, lists and watches, and hands every event to the controller.

Handlers only update the cache and add a key to the queue, so kopf writes nothing: no finalizer, no annotation, no
Event. What it would keep of every object to tell what changed is not kept either (it costs more CPU than all the rest).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import kopf

from agentrun.adapters.kopf_reading import PAGE, SEEN, reading
from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.adapters.pod_status import pod_view
from agentrun.api.names import RUN_LABEL
from agentrun.api.workflow import GROUP, VERSION
from agentrun.control.controller import Controller
from agentrun.control.views import ApprovalView, CommandView, PodView, RunView
from agentrun.kube.client import Kube
from agentrun.kube.credentials import Access, Login
from agentrun.kube.errors import Refused
from agentrun.observe.health import Health
from agentrun.observe.metrics import Metrics

PAUSE_FIRST, PAUSE_MAX = 0.5, 30.0
"""Half the seconds before the watches begin anew, and the most: they double while it helps nothing."""

RELIST = 5.0
"""Seconds after a watch began, until everything is listed once more."""

LEAVE = 10
"""Times, a second apart, that what kopf does for a round of watches is told to end."""

_KOPF = str(Path(kopf.__file__).parent)

V = TypeVar("V")

log = logging.getLogger("agentrun.source")

LOOK = 5.0
"""Seconds between looks whether other namespaces answer."""

LISTED = ("agentruns", "approvals", "agentcommands", "pods")
"""What is kept of the cluster. Of AgentWorkflows only is watched that there are new ones."""


class _KeepsNothing(kopf.AnnotationsDiffBaseStorage):
    """No copy of any object: only handlers of changes, of which there are none, would read it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def views_for(clock: Callable[[], float]) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """How an object of each kind is seen; an AgentWorkflow only is or is not."""
    views: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "AgentRun": run_view,
        "Approval": lambda obj: approval_view(obj, clock()),
        "AgentCommand": command_view,
        "Pod": pod_view,
    }
    return {kind: partial(_viewed, view) for kind, view in views.items()}


def registry_for(controller: Controller, login: Login, metrics: Metrics, listed: Relisting) -> kopf.OperatorRegistry:
    """The handlers of every kind that is watched, feeding ``controller``.

    All of them are coroutines: kopf runs a plain function in a thread, where it would change the cache and the queue
    while the event loop reads them, and cost more than what it does.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return connection(await asyncio.to_thread(login.read, anew=True))

    def feed(seen: Callable[[V], None], gone: Callable[[V], None]) -> Any:
        async def handle(event: Mapping[str, Any], resource: Any, **_: Any) -> None:
            metrics.watch_heard(resource.plural)
            if event["type"] is None:  # of a list: kopf lists again by itself where a watch is too old to go on
                listed.ask()
            found = event["object"][SEEN]
            if found is not None:
                (gone if event["type"] == "DELETED" else seen)(found)

        return handle

    def on(plural: str, handler: Any) -> None:
        kopf.on.event(GROUP, VERSION, plural, registry=registry, id=plural)(handler)

    async def workflow(event: Mapping[str, Any], namespace: str | None, name: str | None, **_: Any) -> None:
        metrics.watch_heard("agentworkflows")
        if event["type"] != "DELETED" and namespace and name:
            controller.workflow_seen(namespace, name)

    on("agentruns", feed(controller.run_seen, controller.run_gone))
    on("approvals", feed(controller.approval_seen, controller.approval_gone))
    on("agentcommands", feed(controller.command_seen, controller.command_gone))
    on("agentworkflows", workflow)
    pods = feed(controller.pod_seen, controller.pod_gone)
    kopf.on.event("v1", "pods", registry=registry, id="pods")(pods)  # those with our label: settings_for
    return registry


def _viewed(view: Callable[[Mapping[str, Any]], V | None], obj: Mapping[str, Any]) -> V | None:
    """What is kept of an object. One that nobody thought of must not be the end of all the others."""
    try:
        return view(obj)
    except Exception:
        about = obj.get("metadata") or {}
        log.exception("%s/%s cannot be read, and counts as not there", about.get("namespace"), about.get("name"))
        return None


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


def settings_for() -> kopf.OperatorSettings:
    """Kopf's settings: nothing is written, pods are filtered by the API server."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _KeepsNothing()
    settings.watching.label_selectors["v1", "pods"] = RUN_LABEL
    settings.queueing.idle_timeout = 1.0  # an object's own task ends soon: thousands of them stand still
    settings.networking.request_timeout = 30.0  # a list whose server died without a word is asked for again
    settings.networking.connect_timeout = 5.0
    settings.process.ultimate_exiting_timeout = None  # it would kill the process some time after a round of watches
    return settings


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
    """Watch until ``stop`` is set, which SIGTERM and SIGINT do: then this returns. Not to be cancelled.

    For kopf one watch that is refused (a 4xx: the types are being replaced, a role is gone, 410) is the end of all.
    Here they begin anew after a pause, and everything is listed, because nobody tells of what was deleted meanwhile.
    (``kopf.operator`` would also cancel every task of the loop that is younger than itself: ours.)
    """
    with reading(kube, views_for(clock)):
        await _watch(controller, login, metrics, health, lists, stop)


async def _watch(
    controller: Controller, login: Login, metrics: Metrics, health: Health, lists: ApiLists, stop: asyncio.Event
) -> None:
    pause, relisting = PAUSE_FIRST, Relisting(controller)
    while await _types_are_there(controller, stop):
        namespaces = lists.answering  # a watch that is refused would be the end of all
        if not namespaces and not lists.everywhere:
            log.error(
                "none of the namespaces that are watched answers whole; they are asked again in %.0f s", PAUSE_MAX
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE_MAX)
            continue
        tasks = await kopf.spawn_tasks(
            registry=registry_for(controller, login, metrics, relisting),
            settings=settings_for(),
            standalone=True,
            identity=cast("Any", "agentrun"),  # its peering is off; by default it asks for the user's name
            clusterwide=lists.everywhere,
            namespaces=tuple(namespaces),
            stop_flag=stop,
        )
        heed_signals(stop)  # kopf's own handlers end only this round of watches
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
            log.warning("the watches begin anew: of the namespaces that are watched, %s answer", lists.answering)
            continue
        why = "; ".join(str(task.exception()) for task in done if not task.cancelled()) or "no reason given"
        pause = PAUSE_FIRST if time.monotonic() - began > PAUSE_MAX else min(2 * pause, PAUSE_MAX)
        log.error("the watches ended: %s; they begin anew in %.0f s", why[:500], pause)
        for plural in LISTED:
            health.watch(plural, False)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
            return


async def _types_are_there(controller: Controller, stop: asyncio.Event) -> bool:
    """Wait until everything can be listed, because kopf looks for the types once; False: ``stop`` came first."""
    tasks = [asyncio.ensure_future(controller.warm()), asyncio.ensure_future(stop.wait())]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    for task in done:
        task.result()
    return not stop.is_set()


async def _end_round() -> None:
    """Cancel whatever kopf still does: when one watch fails it leaves the others behind, and a cancellation that comes
    while a watch reconnects is lost in it.
    """
    for _ in range(LEAVE):
        left = [task for task in asyncio.all_tasks() if _is_kopfs(task)]
        if not left:
            return
        # Those that wait for a pause are cancelled by the watch that they are for, and complain where they are not.
        for task in [t for t in left if not t.get_name().startswith("pause-waiter")] or left:
            task.cancel()
        await asyncio.wait(left, timeout=1)
    if still := [task for task in left if not task.done()]:
        log.error("the watches do not end: %d tasks are left", len(still))


def _is_kopfs(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_KOPF)


def connection(access: Access) -> kopf.ConnectionInfo:
    """Kopf's form of where the API server is and who we are."""
    return kopf.ConnectionInfo(
        server=access.server,
        ca_path=access.ca_path,
        insecure=access.insecure,
        username=access.username,
        password=access.password,
        scheme="Bearer" if access.token is not None else None,
        token=access.token,
        certificate_path=access.certificate_path,
        private_key_path=access.key_path,
        default_namespace=access.namespace,
        proxy_url=access.proxy,
    )


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
