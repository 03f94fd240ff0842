"""A thin client of the Kubernetes API for the hot path: paths and plain dictionaries over keep-alive connections.

The official client's model classes take a hundred times as long as ``json.loads``, so nothing here knows a kind. An
error answer of the API server becomes one of ``kube.errors``.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from agentrun.api.decoding import MAX_BYTES
from agentrun.kube.answers import body_of, decoded
from agentrun.kube.credentials import Access, Login, NoAccess
from agentrun.kube.errors import ClusterError, Forbidden, TooLong, TooSlow, Unauthorized, Unavailable
from agentrun.kube.retry import RetryPolicy, Tries
from agentrun.kube.status import error_of, read_status
from agentrun.observe.metrics import Verb

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
JSON: Final = "application/json"
METADATA_OF_ALL: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for an answer with only ``metadata``: for callers that know the rest because they have just sent it."""

READ_TIMEOUT: Final = 30.0
WRITE_TIMEOUT: Final = 5.0
"""Seconds from the guard's check to the answer. Not longer than a Lease lasts after its holder gave up: so the last
write of an old leader is over before the next leader begins (control/leader.py). ``delete_collection`` is an exception:
it may take ``READ_TIMEOUT``."""

RETRIES: Final = RetryPolicy((0.05, 0.25, 1.0), patience=2.0, unanswered=True)
"""The pauses are short, because a worker that sleeps serves no other run. A call without an answer is sent again, even
a creation: our names are deterministic, so an object that the lost try created shows as AlreadyExists."""

PAGE: Final = 500
PAGE_BYTES: Final = 2 * 1024 * 1024
"""The largest page of a list, in bytes. A larger page is requested again with fewer objects, so that somebody's large
objects neither fill the memory nor hold up the loop.
"""

REREAD: Final = 60.0
"""Seconds after which the credentials are read again."""

_WHOLE = 2**20
"""The largest body, in bytes, that aiohttp sends at once. Larger bodies are sent in parts, to not hold up the loop."""

OnCall = Callable[[Verb, str, int, float], None]
"""Verb, resource (``agentruns/status``), HTTP status (0: no answer) and seconds of each request sent."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request. ``within``: its timeout in seconds; None: ``READ_TIMEOUT`` or ``WRITE_TIMEOUT``. ``at_most``: bytes of
    the answer.
    """

    method: str
    verb: Verb
    path: str
    query: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = JSON
    within: float | None = None
    accept: str | None = None
    at_most: int = MAX_BYTES


class Kube:
    """Requests to one API server. An async context manager, which raises NoAccess if there is no access.

    Every method raises the errors of ``kube.errors``. It sends a request again (``RETRIES``) if the connection fails,
    or if the API server says that it did nothing (429): for about a second in all, longer if Retry-After asks for it.
    After a cancellation, the request may have been carried out.

    ``may_write`` is called right before each try of a write and stops it by raising. ``on_call`` is called after each
    try.
    """

    def __init__(
        self,
        login: Login,
        *,
        may_write: Callable[[], None] = lambda: None,
        on_call: OnCall = lambda *_: None,
        connections: int = 64,
    ) -> None:
        self._login = login
        self._may_write = may_write
        self._on_call = on_call
        self._connections = connections
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._take(await asyncio.to_thread(self._login.read))
        connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60, ttl_dns_cache=60)
        # identity: inside a cluster, compression costs both sides more than it saves
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": "agentrun"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str) -> dict[str, Any]:
        """The object at ``path``, such as ``/api/v1/namespaces/demo/pods/x``."""
        return await self._request(Call("GET", "get", path))

    async def list_all(self, path: str, labels: str = "") -> dict[str, Any]:
        """The whole collection as one consistent List. ``labels`` is a selector as in kubectl. Raises as ``pages``."""
        found, items = {}, []
        async for found in self.pages(path, labels):
            items += found["items"]
        return found | {"items": items}

    async def pages(self, path: str, labels: str = "", *, limit: int = PAGE) -> AsyncIterator[dict[str, Any]]:
        """The collection page by page, as it was at one moment. A page has at most ``limit`` objects, and at most
        ``PAGE_BYTES`` unless it is a single object.

        Raises Gone if the caller takes so long that etcd has compacted that moment away.
        """
        query = {"labelSelector": labels}
        asked = limit
        while True:
            most = PAGE_BYTES if asked > 1 else MAX_BYTES
            try:
                data = await self._ask(Call("GET", "list", path, {**query, "limit": str(asked)}, at_most=most))
            except TooLong:
                if asked == 1:
                    raise
                asked = max(1, asked // 8)
                continue
            found = await decoded("list", path, data)
            yield found
            if not (token := found["metadata"].get("continue")):
                return
            query["continue"] = token
            asked = max(1, min(limit, 4 * asked, asked * PAGE_BYTES // (2 * len(data))))  # half of what a page may have

    async def create(self, path: str, body: Mapping[str, Any], *, accept: str = JSON) -> dict[str, Any]:
        """Create ``body`` in the collection at ``path``. Return the object of the answer. Raises AlreadyExists."""
        return await self._request(Call("POST", "create", path, body=json.dumps(body).encode(), accept=accept))

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object at ``path`` by ``body``. Raises Conflict if its resourceVersion is stale."""
        return await self._request(Call("PUT", "update", path, body=json.dumps(body).encode()))

    async def patch(
        self, path: str, patch: Any, content_type: str = MERGE_PATCH, *, accept: str = JSON
    ) -> dict[str, Any]:
        """Patch the object at ``path`` and return it. Raises Conflict if the patch names a stale resourceVersion."""
        body = json.dumps(patch).encode()
        return await self._request(Call("PATCH", "patch", path, body=body, content_type=content_type, accept=accept))

    async def delete(self, path: str, uid: str | None = None, grace: int | None = None) -> None:
        """Delete the object at ``path``. Raises Conflict if it has another ``uid``. ``grace``: its grace period in
        seconds; None: the object's own.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        await self._request(Call("DELETE", "delete", path, body=json.dumps(options).encode()))

    async def delete_collection(self, path: str, labels: str = "", fields: str = "", grace: int | None = None) -> int:
        """Delete all objects that the selectors match, in one request. Return how many there were.

        The API server takes about 2 ms for each. If it needs more than ``READ_TIMEOUT`` this raises TooSlow, and the
        next call continues with the rest.
        """
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        call = Call(
            "DELETE",
            "deletecollection",
            path,
            {"labelSelector": labels, "fieldSelector": fields},
            json.dumps(options).encode(),
            within=READ_TIMEOUT,
            accept=METADATA_OF_ALL,
        )
        found = await self._request(call)
        return len(found.get("items") or ())

    async def _request(self, call: Call) -> dict[str, Any]:
        return await decoded(call.verb, call.path, await self._ask(call))

    async def _ask(self, call: Call) -> bytes:
        """Send a request and return the body of the answer. Raises TooLong, and the errors that the class names."""
        resource, write = resource_of(call.path), call.method != "GET"
        limit = call.within or (WRITE_TIMEOUT if write else READ_TIMEOUT)
        body = call.body
        headers = {"Content-Type": call.content_type} if body is not None else {}
        if call.accept is not None:
            headers["Accept"] = call.accept
        tries = Tries(RETRIES)
        while True:
            if time.monotonic() >= self._reread_at:
                await self._read_access(self._access, anew=False)
            access = self._access
            if write:
                self._may_write()
            began = time.monotonic()
            code, failure = 0, ""
            try:
                async with self._session.request(
                    call.method,
                    self._url(call.path, call.query),
                    data=body if body is None or len(body) <= _WHOLE else io.BytesIO(body),
                    headers=self._headers | headers,
                    ssl=self._ssl,
                    server_hostname=access.server_name,
                    proxy=access.proxy,
                    timeout=aiohttp.ClientTimeout(total=limit),
                ) as response:
                    data = await body_of(response, call.at_most)
                    code, asked = response.status, response.headers.get("Retry-After")
            except TimeoutError:
                # The API server may still carry it out. There is no time left for another try.
                raise TooSlow(f"the API server did not answer within {limit:g} s ({call.verb} {call.path})") from None
            except (aiohttp.ClientError, OSError) as lost:
                failure = f"no connection to the API server ({call.verb} {call.path}): {lost}"
            finally:
                self._on_call(call.verb, resource, code, time.monotonic() - began)
            if 200 <= code < 300:
                return data
            error: ClusterError = Unavailable(failure)
            if not failure:
                error = error_of(read_status(code, data, asked), f"{call.verb} {call.path}")
            if tries.renew(error):
                await self._read_access(access, anew=True)
                continue
            if isinstance(error, Unauthorized | Forbidden) and access.anonymous:
                raise error.saying(f"{error}; the kubeconfig's user gave no credentials: did its exec plugin fail?")
            pause = tries.pause(error)
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        if query is None:
            return URL(self._access.server + path, encoded=True)  # names need no quoting: a third of the cost
        return URL(self._access.server + path).with_query({k: v for k, v in query.items() if v})

    def _take(self, access: Access) -> None:
        """Use ``access`` from now on. This reads the CA again too, because it rotates. Raises NoAccess."""
        self._ssl = access.ssl_context() if access.server.startswith("https") else True
        self._headers = access.headers()
        self._access = access
        self._reread_at = time.monotonic() + REREAD

    async def _read_access(self, old: Access, *, anew: bool) -> None:
        async with self._lock:
            if self._access is not old or (not anew and time.monotonic() < self._reread_at):
                return  # another request has just read it
            try:
                read = await asyncio.to_thread(self._login.read, anew=anew)
                if read != old:
                    self._take(read)
            except NoAccess as error:
                raise Unavailable(str(error)) from error
            self._reread_at = time.monotonic() + REREAD


def resource_of(path: str) -> str:
    """The name of a ``path``'s resource in the metrics: ``pods``, ``agentruns/status``."""
    parts = path.split("/")
    at = 3 if parts[1] == "api" else 4
    if parts[at] == "namespaces" and len(parts) > at + 2:
        at += 2
    return f"{parts[at]}/{parts[at + 2]}" if len(parts) > at + 2 else parts[at]
