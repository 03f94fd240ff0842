"""Sends requests to a cluster's API server in a person's own name, with errors in words for that person.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agentrun.api.decoding import Unreadable, decode_list, decode_object
from agentrun.api.texts import quoted
from agentrun.api.workflow import API_VERSION
from agentrun.cli.on_cluster.refusals import refusal_of
from agentrun.kube.credentials import Access, InCluster, NoAccess, find_login
from agentrun.kube.errors import ClusterError, Unavailable
from agentrun.kube.impersonation import acting_as
from agentrun.kube.retry import RetryPolicy, Tries
from agentrun.kube.status import read_status

if TYPE_CHECKING:
    import httpx2

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"

MANAGER: Final = "agentrun"
"""The field manager of what is written here."""

TIMEOUT: Final = 30.0
"""Seconds until a request without a response counts as lost."""

WATCH: Final = 240
"""Seconds after which the API server ends a watch, unless the caller asks for fewer."""

RETRIES: Final = RetryPolicy((0.5, 1.0, 2.0), patience=5.0, unanswered=False)
"""Retry for some seconds while the API server is busy. A request without a response is not retried: it may have been
carried out, so the person is told.
"""

PAGE: Final = 500


def collection(plural: str, namespace: str | None) -> str:
    """The path of agentrun's objects of a kind, in one namespace or in all."""
    space = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{space}/{plural}"


class Client:
    """One API server, used as the kubeconfig's user. The kubeconfig is read at the first request or ``namespace``.

    Methods raise the errors of ``kube.errors`` with messages for a person (``refusals``), and NotInstalled.
    """

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        self._login = find_login(kubeconfig, context)
        self._where = (kubeconfig, context)
        self._access: Access | None = None
        self._http: httpx2.Client | None = None

    @property
    def namespace(self) -> str:
        """The context's namespace. Raises NoAccess."""
        return self._read().namespace

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The object at ``path``. Parts that cannot be decoded are left out and named in it (``api.decoding``)."""
        return self._send("GET", path, query)

    def list_all(self, path: str, labels: str = "") -> list[dict[str, Any]]:
        """The objects of a collection, fetched in pages."""
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        found = self._send("GET", path, query, read=decode_list)
        items: list[dict[str, Any]] = found["items"]
        while token := found["metadata"].get("continue"):
            found = self._send("GET", path, query | {"continue": token}, read=decode_list)
            items += found["items"]
        # Items of a List have no apiVersion and kind of their own.
        kind = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return [kind | item for item in items]

    def create(self, path: str, body: Mapping[str, Any], *, dry: bool = False) -> dict[str, Any]:
        """Create the object and return it. With ``dry``, nothing is written. Unknown fields are rejected.

        Raises:
            AlreadyExists: an object has the name.
        """
        return self._send("POST", path, _written(dry), body)

    def apply(self, path: str, body: Mapping[str, Any], *, dry: bool = False) -> dict[str, Any]:
        """Server-side apply; returns the resulting object. With ``dry``, nothing is written. Raises Conflict."""
        return self._send("PATCH", path, _written(dry), body, APPLY)

    def patch(self, path: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a merge patch and return the resulting object.

        Raises:
            Conflict: the patch has a resourceVersion, and the object has changed since.
        """
        return self._send("PATCH", path, _written(dry=False), change, MERGE_PATCH)

    def user(self) -> str:
        """The user that the API server authenticates these requests as."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        found = self._send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, review)
        return str(found["status"]["userInfo"]["username"])

    def watch(self, path: str, name: str, version: str, within: int | None = None) -> Iterator[dict[str, Any]]:
        """The watch events of one object after ``version``. Ends after ``within`` seconds, else after ``WATCH``."""
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}", "resourceVersion": version}
        for line in self.lines(path, query | {"timeoutSeconds": str(within or WATCH)}, quiet=TIMEOUT + WATCH):
            try:
                yield decode_object(line.encode(errors="surrogatepass"))
            except Unreadable:
                return  # the connection broke within a line; the next watch continues

    def lines(self, path: str, query: Mapping[str, str], quiet: float | None = None) -> Iterator[str]:
        """The lines of a response as they arrive. After ``quiet`` seconds without data the connection counts as lost;
        None waits for ever.
        """
        import httpx2  # noqa: PLC0415

        with self._answering(path):
            limit = httpx2.Timeout(TIMEOUT, read=quiet)
            request = self._client().build_request("GET", path, params=dict(query), timeout=limit)
            response = self._client().send(request, stream=True)
            try:
                if response.status_code != 200:
                    raise refusal_of(read_status(response.status_code, response.read()))
                yield from response.iter_lines()
            finally:
                response.close()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        read: Callable[[bytes], dict[str, Any]] = decode_object,
    ) -> dict[str, Any]:
        content = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content_type} if body is not None else {}
        tries = Tries(RETRIES)
        while True:
            with self._answering(path, "; the request may have been carried out" if method != "GET" else ""):
                response = self._client().request(method, path, params=dict(query), content=content, headers=headers)
            if response.is_success:
                try:
                    return read(response.content)
                except Unreadable:
                    said = f"{response.headers.get('content-type', 'no Content-Type')} instead of an object"
                    raise Unavailable(f"{self._read().server} is not an API server: it answers with {said}") from None
            status = read_status(response.status_code, response.content, response.headers.get("Retry-After"))
            error = refusal_of(status)
            if not isinstance(error, ClusterError):
                raise error
            if tries.renew(error):
                self._read(anew=True)
            elif (pause := tries.pause(error)) is not None:
                time.sleep(pause)
            else:
                raise error

    @contextmanager
    def _answering(self, path: str, otherwise: str = "") -> Iterator[None]:
        import httpx2  # noqa: PLC0415  (lazy: 80 ms, which --help must not take)

        try:
            yield
        except httpx2.TransportError as error:
            what = str(error) or type(error).__name__
            server = self._read().server
            raise Unavailable(f"the API server at {server} does not answer ({path}): {what}{otherwise}") from error

    def _read(self, *, anew: bool = False) -> Access:
        if self._access is None or anew:
            self.close()
            self._access = self._login.read(anew=anew)
        return self._access

    def _client(self) -> httpx2.Client:
        import httpx2  # noqa: PLC0415

        access = self._read()
        if self._http is None:
            headers = [*access.headers().items(), ("Accept", JSON), ("User-Agent", "agentrun")]
            if not isinstance(self._login, InCluster):
                headers += acting_as(*self._where, os.environ)
            try:
                self._http = httpx2.Client(
                    base_url=access.server,
                    headers=headers,
                    verify=access.ssl_context(),
                    proxy=access.proxy,
                    timeout=TIMEOUT,
                )
            except (httpx2.InvalidURL, ValueError, ImportError) as error:
                raise NoAccess(
                    f"the kubeconfig's server {quoted(access.server)} (or its proxy) cannot be used: {error}"
                ) from error
            if access.server_name is not None:
                self._http.event_hooks = {"request": [_naming(access.server_name)]}
        return self._http


def _naming(server_name: str) -> Any:
    """A hook that checks the server's certificate against ``server_name`` instead of the host of the URL."""

    def name(request: httpx2.Request) -> None:
        request.extensions = {**request.extensions, "sni_hostname": server_name}

    return name


def _written(dry: bool) -> dict[str, str]:
    query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
    return query | ({"dryRun": "All"} if dry else {})
