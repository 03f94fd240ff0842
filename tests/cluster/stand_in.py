"""Stands in for a kubelet and for people who decide, in tests that have an API server only.

The kubelet runs the runner of each pod as a process of this machine, forked in milliseconds. It writes the pod's status
as a real kubelet does: running, then ended, with exit code and termination message. A deleted pod gets SIGTERM, and is
removed when its process has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

from agentrun.api.canonical import timestamp
from agentrun.api.labels import ATTEMPT, KEY, RUN_LABEL
from agentrun.attempt.environment import SECRETS_VARIABLE, TERMINATION_VARIABLE
from tests.cluster.access import Access
from tests.crash.zygote import MESSAGE_MAX, Zygote, ask

GROUP = "/apis/agentrun.dev/v1alpha1"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]


class ApiError(Exception):
    """The API server answered a request with the status ``code``."""

    def __init__(self, what: str, code: int, said: str) -> None:
        super().__init__(f"{what}: {code} {said[:500]}")
        self.code = code


class Api:
    """The API server, used as admin and without a proxy; an async context manager."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def __aenter__(self) -> Self:
        trust = ssl.create_default_context(cafile=str(self._access.ca))
        self._session = aiohttp.ClientSession(
            self._access.url,
            headers={"Authorization": f"Bearer {self._access.token('admin')}", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**22,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Object:
        """Send a request, and return the response. Raises ApiError."""
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, path, data=data, headers={"Content-Type": kind}) as got:
            text = await got.read()
            if got.status >= 300:
                raise ApiError(f"{method} {path}", got.status, text.decode(errors="replace"))
            found: Object = json.loads(text)
            return found

    async def follow(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Object]]:
        """Yield ADDED for each existing object, then the watch events, until cancelled. Starts again if that breaks."""
        while True:
            with suppress(aiohttp.ClientError, ApiError):
                listed = await self.call("GET", f"{path}?labelSelector={selector}")
                for item in listed["items"]:
                    yield "ADDED", item
                query = f"?watch=true&labelSelector={selector}&resourceVersion={listed['metadata']['resourceVersion']}"
                async with self._session.get(path + query) as got:
                    async for line in got.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        yield event["type"], event["object"]
            await asyncio.sleep(0.1)  # the API server may be out of reach


class Process:
    """A process that a zygote forked. The result of ``ended`` is its exit code, negative for a signal."""

    def __init__(self, pid: int, ended: asyncio.Task[int]) -> None:
        self.pid = pid
        self.ended = ended

    @classmethod
    async def fork(cls, zygote: Zygote, role: str, environment: Mapping[str, str], log: Path) -> Process:
        """Fork a process in ``role``, with its output in ``log``."""
        with Path(os.devnull).open("rb") as nothing, log.open("ab") as said:  # noqa: ASYNC230 (null device and a log)
            connection = ask(zygote.path, role, "cluster", environment, [nothing.fileno(), *2 * [said.fileno()]])
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        pid = json.loads(await loop.sock_recv(connection, MESSAGE_MAX))["pid"]

        async def wait() -> int:
            with connection:
                while "exit" not in (told := json.loads(await loop.sock_recv(connection, MESSAGE_MAX))):
                    pass
                return int(told["exit"])

        return cls(pid, asyncio.create_task(wait()))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if not self.ended.done():  # after the end, the id can belong to another process
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal, wait for the end of the process, and return the exit code."""
        self.send(number)
        return await asyncio.shield(self.ended)


@dataclass
class Pod:
    """A pod that was seen."""

    namespace: str
    name: str
    uid: str
    step: str
    attempt: int
    process: Process | None = None
    ended: bool = False


Decide = Callable[[Object], Awaitable[None]]


@dataclass
class Space:
    """A namespace: the settings for its pods and people, and what was seen of its objects."""

    environment: dict[str, str]
    folder: Path
    decisions: bool = True
    """Whether people approve as soon as they are asked."""
    pods: dict[str, Pod] = field(default_factory=dict)
    """Every pod that ever existed, by its uid."""
    runs: dict[str, Object] = field(default_factory=dict)
    """Every AgentRun as it was last seen."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def attempts(self) -> list[tuple[str, int]]:
        """The step and attempt of every pod that ever existed."""
        return sorted((pod.step, pod.attempt) for pod in self.pods.values())

    async def wait(self, what: str, test: Callable[[], object], seconds: float = 60.0) -> None:
        """Call ``test`` after every change until it is true. Raises TimeoutError."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(test)
        except TimeoutError:
            status = {name: run.get("status") for name, run in self.runs.items()}
            raise TimeoutError(f"{what} did not come within {seconds:g} s: {status}") from None


class StandIn:
    """The kubelet and the people, for the namespaces in ``spaces``; an async context manager."""

    def __init__(self, api: Api, zygote: Zygote) -> None:
        self.api = api
        self.spaces: dict[str, Space] = {}
        self._zygote = zygote
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for path, selector, take in (
            ("/api/v1/pods", RUN_LABEL, self._on_pod),
            (f"{GROUP}/approvals", "", self._on_approval),
            (f"{GROUP}/agentruns", "", self._on_run),
        ):
            self._spawn(self._watch(path, selector, take))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        pods = [pod for space in self.spaces.values() for pod in space.pods.values()]
        await asyncio.gather(*(pod.process.end() for pod in pods if pod.process is not None))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, path: str, selector: str, take: Callable[[Space, str, Object], None]) -> None:
        async for kind, found in self.api.follow(path, selector):
            space = self.spaces.get(found["metadata"]["namespace"])
            if space is not None:
                take(space, kind, found)
                async with space.changed:
                    space.changed.notify_all()

    def _on_run(self, space: Space, kind: str, run: Object) -> None:
        if kind != "DELETED":
            space.runs[run["metadata"]["name"]] = run

    def _on_approval(self, space: Space, kind: str, approval: Object) -> None:
        if kind != "DELETED" and space.decisions and not (approval.get("status") or {}).get("decisions"):
            self._spawn(self._approve(approval))

    def _on_pod(self, space: Space, kind: str, found: Object) -> None:
        meta = found["metadata"]
        pod = space.pods.get(meta["uid"])
        if pod is None:
            notes = meta["annotations"]
            pod = Pod(meta["namespace"], meta["name"], meta["uid"], notes[KEY], int(notes[ATTEMPT]))
            space.pods[pod.uid] = pod
            if kind != "DELETED":
                self._spawn(self._run(space, pod, found))
        elif kind == "DELETED":
            if pod.process is not None:
                pod.process.send(signal.SIGKILL)
        elif "deletionTimestamp" in meta:
            if pod.process is not None and not pod.ended:
                pod.process.send(signal.SIGTERM)
            elif pod.ended:
                self._spawn(self._remove(pod))

    async def _run(self, space: Space, pod: Pod, found: Object) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        target = {"apiVersion": "v1", "kind": "Node", "name": "nowhere"}
        meta = {"name": pod.name, "namespace": pod.namespace}
        last_word = space.folder / f"{pod.name}.word"
        container = found["spec"]["containers"][0]
        given = {entry["name"]: entry["value"] for entry in container["env"]}
        given[TERMINATION_VARIABLE] = str(last_word)
        if SECRETS_VARIABLE in given:
            given[SECRETS_VARIABLE] = str(space.folder / "secrets")
        # A pod that is bound to a node is deleted when its kubelet says so; any other pod at once.
        with suppress(ApiError):  # the pod was deleted in between, or the API server is out of reach
            await self.api.call("POST", f"{path}/binding", {"metadata": meta, "target": target})
        pod.process = await Process.fork(
            self._zygote, "runner", given | space.environment, space.folder / f"{pod.name}.log"
        )
        began = time.time()
        step: Object = {"name": container["name"], "image": container["image"], "imageID": "x", "restartCount": 0}
        running = step | {"ready": True, "state": {"running": {"startedAt": timestamp(int(began))}}}
        await self._say(path, pod, {"phase": "Running", "containerStatuses": [running]})
        code = await asyncio.shield(pod.process.ended)
        terminated = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
            "message": last_word.read_text() if last_word.exists() else "",
            "startedAt": timestamp(int(began)),
            "finishedAt": timestamp(int(time.time())),
        }
        ended = step | {"ready": False, "state": {"terminated": terminated}}
        after = await self._say(
            path, pod, {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [ended]}
        )
        pod.ended = True
        if after is not None and "deletionTimestamp" in after["metadata"]:
            await self._remove(pod)

    async def _say(self, path: str, pod: Pod, status: Object) -> Object | None:
        """Write the status, and return the pod; None if the pod is gone. Like a kubelet, retry until it succeeds."""
        while True:
            try:
                body = {"metadata": {"uid": pod.uid}, "status": status}
                return await self.api.call("PATCH", f"{path}/status", body, MERGE)
            except ApiError as error:
                if error.code in (404, 409):
                    return None
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)

    async def _remove(self, pod: Pod) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        with suppress(ApiError):  # it is gone
            await self.api.call("DELETE", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}", options)

    async def _approve(self, approval: Object) -> None:
        meta = approval["metadata"]
        decision = {
            "by": "fin",
            "decision": "Approved",
            "digest": approval["spec"]["digest"],
            "at": timestamp(int(time.time())),
        }
        with suppress(ApiError):  # it is gone
            await self.api.call(
                "PATCH",
                f"{GROUP}/namespaces/{meta['namespace']}/approvals/{meta['name']}/status",
                {"status": {"decisions": [decision]}},
                MERGE,
            )
