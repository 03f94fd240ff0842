"""Runs the operator as a process of this machine, on a control plane without nodes, behind proxies.

All tests share a ``Ground``: an event loop in a thread, the zygote, the stand-in for nodes and people, the store. A
``World`` is one namespace on it, with its own operators and shop, and its own proxies before API server and store, so
that many worlds run side by side.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from agentrun.journal.paths import RunPath
from agentrun.store.s3_direct import DirectS3Store
from tests.cluster.access import Access
from tests.cluster.proxy import Proxy, of_kubernetes, of_store
from tests.cluster.roles import AHEAD
from tests.cluster.stand_in import GROUP, Api, ApiError, Object, Process, Space, StandIn
from tests.crash.workflows import TOKEN, Outside, Refund
from tests.crash.zygote import Zygote
from tests.servers.versitygw import S3Server

T = TypeVar("T")

CRDS = Path(__file__).parents[2] / "crds"
ROOT = CRDS.parent


class Ground:
    """See the module. ``grounded`` makes one."""

    def __init__(self, access: Access, folder: Path, zygote: Zygote, store: S3Server) -> None:
        self.access, self.folder, self.zygote, self.store = access, folder, zygote, store
        self.bucket = store.new_bucket()
        self.trust = ssl.create_default_context(cafile=str(access.ca))
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self._count = 0
        self._closing = AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def open(self) -> None:
        """Start the stand-in."""
        self.api = await self._closing.enter_async_context(Api(self.access))
        self.stand_in = await self._closing.enter_async_context(StandIn(self.api, self.zygote))

    async def close(self) -> None:
        """End all forked processes, and wait until every connection is closed: TLS has a closing handshake."""
        await self._closing.aclose()
        async with asyncio.timeout(60):
            while len(self._selector.get_map()) > 1:  # noqa: ASYNC110 (one entry is the loop's own; there is no event for this)
                await asyncio.sleep(0.02)

    def world(self) -> World:
        """A world with a new namespace."""
        self._count += 1
        return World(self, f"world-{self._count:04d}")


@contextmanager
def grounded(access: Access, folder: Path, store: S3Server) -> Iterator[Ground]:
    """A ground on a control plane, until the block ends."""
    access.kubectl("apply", "--server-side", "-f", CRDS)
    access.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    with Zygote(folder, environment, "tests.cluster.roles") as zygote:
        ground = Ground(access, folder, zygote, store)
        thread = threading.Thread(target=ground.loop.run_forever)
        thread.start()
        try:
            ground.run(ground.open())
            yield ground
        finally:
            ground.run(ground.close())
            ground.loop.call_soon_threadsafe(ground.loop.stop)
            thread.join()
            ground.loop.close()


class World:
    """One namespace with its own operators; an async context manager."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.name = ground, name
        self.folder = ground.folder / name
        self.api = Proxy(ground.access.url, of_kubernetes, trust=ground.trust)
        self.store = Proxy(ground.store.endpoint, of_store)
        self.journal = DirectS3Store(f"s3://{ground.bucket}/runs")
        self.others: tuple[str, ...] = ()
        """Further namespaces that the operator watches."""
        self._operators: list[Process] = []
        self._outside = ExitStack()

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        self.outside: Outside = await asyncio.to_thread(Refund, self.folder, self._outside, lambda: None)
        for name, key, value in (("payments", "token", TOKEN),):
            (self.folder / "secrets" / name).mkdir(parents=True)
            (self.folder / "secrets" / name / key).write_text(value)
        environment = self.ground.store.environment(self.folder / "nothing") | {
            "PATH": "/usr/bin:/bin",
            "OPENAI_BASE_URL": self.outside.model.url,
            "OPENAI_API_KEY": "a-key",
        }
        self.space = self.ground.stand_in.spaces[self.name] = Space(environment, self.folder)
        self._api_url, self._store_url = await self.api.open(), await self.store.open()
        (self.folder / "kubeconfig").write_text(json.dumps(self._kubeconfig()))
        call = self.ground.api.call
        await call("POST", "/api/v1/namespaces", {"metadata": {"name": self.name}})
        await call("POST", f"/api/v1/namespaces/{self.name}/serviceaccounts", {"metadata": {"name": "default"}})
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._operators:
            await process.end()
        for pod in self.space.pods.values():
            if pod.process is not None:
                await pod.process.end()
        await self.api.close()
        await self.store.close()
        await asyncio.to_thread(self._outside.close)

    # -- the operator -----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The environment of an operator of this world."""
        return self.ground.store.environment(self.folder / "nothing") | {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "AWS_ENDPOINT_URL_S3": self._store_url,
            "AGENTRUN_STORE": f"s3://{self.ground.bucket}/runs",
            "AGENTRUN_STEP_IMAGE": "none",
            "AGENTRUN_NAMESPACES": ",".join([self.name, *self.others]),
            "AGENTRUN_LEASE_NAMESPACE": self.name,
            "AGENTRUN_ADMISSION": "false",
            "AGENTRUN_LISTEN": "off",
            "AGENTRUN_LOG_LEVEL": "info",
        }

    async def start(self, clock: float = 0.0) -> Process:
        """Start another operator, whose clock is ahead by ``clock`` seconds."""
        environment = self.environment() | {AHEAD: str(clock)}
        log = self.folder / f"operator-{len(self._operators)}.log"
        process = await Process.fork(self.ground.zygote, "operator", environment, log)
        self._operators.append(process)
        return process

    async def free_lease(self) -> None:
        """Let the next operator lead at once, as if the Lease of a dead one had expired."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.name}/leases/agentrun"
        try:
            await self.ground.api.call("DELETE", path)
        except ApiError as error:
            if error.code != 404:
                raise

    def said(self) -> str:
        """The ends of its operators' logs."""
        logs = sorted(self.folder.glob("operator-*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)

    # -- runs -------------------------------------------------------------------------------------------------------

    async def submit(self, *names: str) -> None:
        """Create runs of the refund example."""
        workflow, run = yaml.safe_load_all(self.outside.document)
        await self.create("agentworkflows", workflow)
        for name in names:
            await self.create("agentruns", run | {"metadata": {"name": name}})

    async def create(self, plural: str, document: Object) -> Object:
        """Create an agentrun object in this namespace."""
        return await self.ground.api.call("POST", f"{GROUP}/namespaces/{self.name}/{plural}", document)

    async def listed(self, plural: str) -> list[Object]:
        """The agentrun objects of one kind in this namespace, as they are now."""
        found: list[Object] = (await self.ground.api.call("GET", f"{GROUP}/namespaces/{self.name}/{plural}"))["items"]
        return found

    def path(self, run: Object) -> RunPath:
        """The path of a run's journal."""
        return RunPath(self.name, run["metadata"]["name"], run["metadata"]["uid"].replace("-", ""))

    async def ended(self, *names: str, seconds: float = 60.0) -> None:
        """Wait until the runs have ended. Raises TimeoutError with the operators' logs."""

        def over() -> bool:
            return all(phase(self.space.runs.get(name)) in ("Succeeded", "Failed", "Cancelled") for name in names)

        try:
            await self.space.wait("the end of " + ", ".join(names), over, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.said()}") from None

    def _kubeconfig(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self._api_url}}],
            "users": [{"name": "admin", "user": {"token": self.ground.access.token("admin")}}],
            "contexts": [{"name": "admin", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "admin",
        }


def phase(run: Object | None) -> str:
    """The phase of an AgentRun; "" if it has none."""
    found: str = ((run or {}).get("status") or {}).get("phase", "")
    return found
