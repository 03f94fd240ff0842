"""kopf as the source of events: it logs in, discovers, lists and watches, and hands every event to the controller.

Handlers only update the cache and add a key to the queue, so kopf writes nothing: no finalizer, no annotation, no
Event. What it would keep of every object to tell what changed is not kept either (it costs more CPU than all the rest).
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
    """No copy of any object: only handlers of changes, of which there are none, would read it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


def registry_for(controller: Controller, login: Login, metrics: Metrics, listed: Relisting) -> kopf.OperatorRegistry:
    """The handlers of every kind that is watched, feeding ``controller``.

    All of them are coroutines: kopf runs a plain function in a thread, where it would change the cache and the queue
    while the event loop reads them, and cost more than what it does.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        return connection(await asyncio.to_thread(login.read, anew=True))

    def handler_of(kind: Kind[Any]) -> Any:
        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            metrics.watch_heard(kind.plural)
            if event["type"] is None and kind.kept:  # of a list: kopf lists again where a watch is too old to go on
                listed.ask()
            view = event["object"][SEEN]
            if view is not None:
                (controller.gone if event["type"] == "DELETED" else controller.seen)(kind, view)

        return handle

    for kind in WATCHED:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(handler_of(kind))
    return registry


def settings_for() -> kopf.OperatorSettings:
    """Kopf's settings: nothing is written, and the API server filters by labels."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _KeepsNothing()
    for kind in WATCHED:
        if kind.labels:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.labels
    settings.queueing.idle_timeout = 1.0  # an object's own task ends soon: thousands of them stand still
    settings.networking.request_timeout = 30.0  # a list whose server died without a word is asked for again
    settings.networking.connect_timeout = 5.0
    settings.process.ultimate_exiting_timeout = None  # it would kill the process some time after a round of watches
    return settings


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
