"""The operator's process: ``python -m agentrun.adapters.operator``. Its settings are environment variables.

Every replica watches and keeps its cache warm; the one that holds the Lease works. On SIGTERM, the process stops
watching, ends the visits between two writes, releases the Lease and exits. SIGKILL at any moment loses nothing: see
``control.reconciler``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
import uuid
from contextlib import ExitStack
from functools import partial

from agentrun import GC_THRESHOLD
from agentrun.adapters.admission import Admission
from agentrun.adapters.cluster_api import KubernetesCluster, KubernetesLease
from agentrun.adapters.lister import ApiLists
from agentrun.adapters.pods import build_pod
from agentrun.adapters.settings import Settings
from agentrun.adapters.watch_supervisor import heed_signals, watch
from agentrun.api.errors import AgentrunError
from agentrun.control.async_journal import Journal
from agentrun.control.cache import Cache
from agentrun.control.controller import WORKERS, Controller
from agentrun.control.leader import Leader
from agentrun.control.queue import WorkQueue
from agentrun.control.reconciler import Reconciler
from agentrun.control.views import KEPT, RunRef
from agentrun.journal.signatures import signing_key
from agentrun.kube.client import Kube
from agentrun.kube.credentials import find_login
from agentrun.observe.health import Health, measure_lag
from agentrun.observe.logs import configure
from agentrun.observe.metrics import Metrics, Verb
from agentrun.observe.server import Server, listen_address
from agentrun.store.open import open_store
from agentrun.store.protocol import Store, StoreError
from agentrun.store.s3 import Limits
from agentrun.store.s3_direct import DirectS3Store

log = logging.getLogger("agentrun.operator")

STORE_LIMITS = Limits(attempts=2, connect=3.0, read=5.0)
"""A call to a store that hangs fails within some ten seconds. The run is tried again, and no thread waits for long."""

PROBE = 60.0
"""Seconds between probes of the store."""


def main() -> int:
    """Run the operator until SIGTERM or SIGINT. Return the exit code: 0, or 2 after an AgentrunError (bad setting)."""
    try:
        settings = Settings.from_environment(os.environ)
        configure(settings.log_level)
        _spare_the_collector()
        metrics, health = Metrics(), Health(kind.plural for kind in KEPT)
        with _served(settings, metrics, health):
            asyncio.run(operate(settings, metrics, health))
    except AgentrunError as error:
        print(f"agentrun: {error}", file=sys.stderr)
        return 2
    return 0


async def operate(settings: Settings, metrics: Metrics, health: Health) -> None:
    """Watch, and work while leading, until SIGTERM or SIGINT.

    Raises:
        AgentrunError: there is no access to the API server, or the store's address is wrong.
    """
    login = find_login()
    store = _store(settings.pods.store_url)
    key = signing_key(os.environ, partial(log.warning, "%s"))
    stop = asyncio.Event()
    heed_signals(stop)
    namespace = settings.lease_namespace or (await asyncio.to_thread(login.read)).namespace

    def called(verb: Verb, resource: str, code: int, seconds: float) -> None:
        metrics.api_request(verb, resource, code or None, seconds)

    async with Kube(login, on_call=called) as unguarded:
        lease = KubernetesLease(unguarded, namespace, settings.lease_name)
        identity = f"{settings.pod_name}_{uuid.uuid4().hex[:8]}"
        leader = Leader(lease, identity, on_change=metrics.leads)
        async with Kube(login, may_write=leader.check, on_call=called) as kube:
            cluster = KubernetesCluster(kube, partial(build_pod, settings.pods), instance=identity)
            cache, queue = Cache(), WorkQueue[RunRef](metrics, space=lambda ref: ref.namespace, workers=WORKERS)
            journal = Journal(store, metrics, leader.check, key=key)
            admission = Admission(unguarded, settings.admission_policies)
            reconciler = Reconciler(
                cluster, journal, cache, queue, metrics, time.time, admission.vouches, settings.bounds
            )
            lists = ApiLists(kube, settings.namespaces, time.time, health)
            controller = Controller(cluster, lists, cache, queue, reconciler, metrics, time.time, time.monotonic)

            async def lead() -> None:
                await admission.known()
                await leader.run(controller.lead)

            background = [
                asyncio.ensure_future(work)
                for work in (
                    measure_lag(metrics, health),
                    admission.look_again(),
                    _probe(journal, health),
                    lead(),
                )
            ]
            watching = asyncio.ensure_future(watch(controller, kube, login, metrics, health, time.time, lists, stop))
            try:
                await asyncio.wait([*background, watching], return_when=asyncio.FIRST_COMPLETED)
            finally:
                health.stop()
                stop.set()
                for task in background:
                    task.cancel()
                results = await asyncio.gather(*background, watching, return_exceptions=True)
                journal.close()
            for result in results:
                if isinstance(result, Exception):
                    raise result


def _served(settings: Settings, metrics: Metrics, health: Health) -> ExitStack:
    """Serve the probes and the metrics from now on, until the stack is closed. Raises CannotListen."""
    probes, apart = listen_address(settings.listen), settings.metrics_listen
    scraped = listen_address(apart, "AGENTRUN_METRICS_LISTEN")
    with ExitStack() as stack:
        if probes is not None:
            stack.enter_context(Server(probes, health, None if apart else metrics))
        if scraped is not None:
            stack.enter_context(Server(scraped, None, metrics))
        return stack.pop_all()


def _spare_the_collector() -> None:
    """Let Python search for reference cycles rarely. Reference counts free what thousands of runs leave. A search after
    every 700 objects would take a tenth of the CPU, and stop the event loop for a quarter of a second.
    """
    gc.collect()
    gc.freeze()  # modules and classes live as long as the process
    gc.set_threshold(*GC_THRESHOLD)


def _store(url: str) -> Store:
    return DirectS3Store(url, limits=STORE_LIMITS) if url.startswith("s3://") else open_store(url)


async def _probe(journal: Journal, health: Health) -> None:
    """Probe the store until cancelled. A replica whose store fails the probe is not ready."""
    while True:
        pause = PROBE
        try:
            await journal.probe()
        except StoreError as error:
            health.store(str(error))
            log.warning("the store: %s", error)
            pause = 5.0
        else:
            health.store(None)
        await asyncio.sleep(pause)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # sys.exit would wait for the threads. One of them may wait for a store that hangs, and nothing needs its result.
    os._exit(code)
