"""kopf as the source of events: it logs in, discovers, lists and watches, and passes every event to the controller.

Handlers only update the cache and add a key to the queue. kopf writes nothing: no finalizer, no annotation, no Event.
The copy of each object with which kopf would compute changes is switched off too: it costs more CPU than all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import kopf

from agentrun.adapters.kopf_reading import SEEN
from agentrun.adapters.relist import Relisting
from agentrun.control.controller import Controller
from agentrun.control.views import WATCHED, Kind
from agentrun.kube.credentials import Access, Login
from agentrun.observe.metrics import Metrics


class _KeepsNothing(kopf.AnnotationsDiffBaseStorage):
    """Keeps no copy of an object. Only handlers of changes would read it, and there are none."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def registry_for(controller: Controller, login: Login, metrics: Metrics, listed: Relisting) -> kopf.OperatorRegistry:
    """The handlers of all watched kinds, which call ``controller``.

    All of them are coroutines. kopf runs a plain function in a thread: it would change the cache and the queue while
    the event loop reads them, and the thread would cost more than the work.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return connection(await asyncio.to_thread(login.read, anew=True))

    def handler_of(kind: Kind[Any]) -> Any:
        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            metrics.watch_heard(kind.plural)
            if event["type"] is None and kind.kept:  # from a list: kopf lists again when a watch is too old
                listed.ask()
            view = event["object"][SEEN]
            if view is not None:
                (controller.gone if event["type"] == "DELETED" else controller.seen)(kind, view)

        return handle

    for kind in WATCHED:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(handler_of(kind))
    return registry


def settings_for() -> kopf.OperatorSettings:
    """The settings with which kopf writes nothing and lets the API server filter by labels."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _KeepsNothing()
    for kind in WATCHED:
        if kind.labels:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.labels
    settings.queueing.idle_timeout = 1.0  # ends each object's task soon: thousands of objects are idle
    settings.networking.request_timeout = 30.0  # repeats a list whose server died silently
    settings.networking.connect_timeout = 5.0
    settings.process.ultimate_exiting_timeout = None  # else kopf would kill the process after a round of watches
    return settings


def connection(access: Access) -> kopf.ConnectionInfo:
    """Our access to the API server, in kopf's form."""
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
