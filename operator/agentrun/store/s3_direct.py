"""The S3 store for processes that write hundreds of objects a second: of botocore it uses only the signing and sending.

Most of the CPU that botocore needs for a small PUT goes into validating parameters, resolving the endpoint again and
calling event handlers. ``DirectClient`` replaces the client that ``S3Store`` uses, and leaves these out. It sends the
requests that botocore would send. To learn their form, it starts a PutObject and stops it right before it is signed.
From that request it takes the URL, the region and the kind of signature, as the configuration made them (virtual hosts,
paths, dual stack, FIPS). If the request has anything that is not known here (S3 Express, SigV4a, no signature,
checksums, further headers), botocore sends all requests itself. Connections, proxies, certificates, credentials and
their refresh are botocore's own.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

from agentrun.store.s3 import Limits, S3Store
from agentrun.store.s3_errors import Again

_MARK = ".address"
"""The key of the request that is stopped. No object of a store has it, because names do not start with a dot."""

_HEADERS = frozenset({"user-agent", "if-none-match", "content-type", "content-length", "expect"})
"""The headers of botocore's PutObject before it is signed, if nothing unusual is configured."""

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_BUSY = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"})
_STALLED = frozenset({"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"})
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})

_RENEW_EVERY = 30.0
"""Seconds between two searches for new credentials, so that not every request searches while there are none."""

_RETRY_COST = 5
PAUSE_MAX = 20.0
"""The longest pause between two tries of a request, in seconds. Pauses double, with jitter, as in botocore."""


class DirectS3Store(S3Store):
    """``S3Store`` at about half of its CPU: the same objects, errors and retries. Safe for threads."""

    def _make_client(self) -> Any:
        return DirectClient(super()._make_client, self.bucket, self._limits)


@dataclass(frozen=True, slots=True)
class _Route:
    """How requests for the bucket are addressed and signed."""

    client: Any
    url: str
    """The bucket's URL, ending in ``/``; empty if botocore has to send the requests."""
    signer: Any
    signing: Mapping[str, str]
    user_agent: Any

    @property
    def bucket_url(self) -> str:
        """The URL of the bucket itself: without the final slash, unless the path is nothing but that slash."""
        return self.url if urlsplit(self.url).path == "/" else self.url[:-1]


class _Stopped(Exception):
    """Carries a request out of botocore before it is signed and sent."""

    def __init__(self, request: Any, signer: Any, signing: Mapping[str, str]) -> None:
        super().__init__("stopped before it was signed")
        self.request = request
        self.signer = signer
        self.signing = signing


class DirectClient:
    """The part of a botocore client that ``S3Store`` uses, for one bucket. Raises botocore's errors."""

    def __init__(self, make_client: Callable[[], Any], bucket: str, limits: Limits) -> None:
        from botocore.parsers import create_parser  # noqa: PLC0415
        from botocore.retries.quota import RetryQuota  # noqa: PLC0415

        self._make_client = make_client
        self._bucket = bucket
        self._attempts = limits.attempts
        self._parser = create_parser("rest-xml")
        # Shared by all threads, as in botocore: while a store is down, each call soon makes only one request.
        self._quota = RetryQuota()
        self._lock = threading.Lock()
        self._renewed = float("-inf")
        self._route: _Route | None = None
        self._client = self._new_client()

    @property
    def direct(self) -> bool:
        """Whether this client sends the requests. False: something is unusual, and botocore sends them."""
        return self._find_route().url != ""

    def put_object(self, **parameters: Any) -> dict[str, Any]:
        """PutObject with Bucket, Key, Body, and IfNoneMatch or IfMatch."""
        headers = {
            n: parameters[p] for p, n in (("IfNoneMatch", "If-None-Match"), ("IfMatch", "If-Match")) if p in parameters
        }
        answer = self._exchange("PutObject", "PUT", quote(parameters["Key"], "/~"), parameters["Body"], headers)
        if answer is None:
            return dict(self._client.put_object(**parameters))
        return {"ETag": answer.headers.get("ETag", "")}

    def get_object(self, **parameters: Any) -> dict[str, Any]:
        """GetObject with Bucket and Key. The whole body is read when this returns."""
        answer = self._exchange("GetObject", "GET", quote(parameters["Key"], "/~"))
        if answer is None:
            return dict(self._client.get_object(**parameters))
        return {"Body": io.BytesIO(answer.content), "ETag": answer.headers.get("ETag", "")}

    def delete_object(self, **parameters: Any) -> dict[str, Any]:
        """DeleteObject, through botocore: only the probe uses it."""
        return dict(self._client.delete_object(**parameters))

    def get_paginator(self, operation: str) -> Any:
        """A paginator for ``list_objects_v2``; botocore's own for other operations."""
        if operation != "list_objects_v2":
            return self._client.get_paginator(operation)
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, **parameters: str) -> Iterator[dict[str, Any]]:
        from botocore.handlers import decode_list_object_v2  # noqa: PLC0415

        names = {"Prefix": "prefix", "Delimiter": "delimiter", "StartAfter": "start-after"}
        # Keys may hold characters that XML cannot, hence the encoding. botocore asks for it too.
        query = {"list-type": "2", "encoding-type": "url"} | {names[p]: v for p, v in parameters.items() if p in names}
        while True:
            text = "&".join(f"{name}={quote(value, '~')}" for name, value in sorted(query.items()))
            answer = self._exchange("ListObjectsV2", "GET", f"?{text}")
            if answer is None:
                yield from self._client.get_paginator("list_objects_v2").paginate(**parameters)
                return
            page: dict[str, Any] = self._parse("ListObjectsV2", answer)
            decode_list_object_v2(page, {"encoding_type_auto_set": True})
            yield page
            if not page.get("IsTruncated"):
                return
            query["continuation-token"] = page["NextContinuationToken"]

    def _exchange(
        self, operation: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Any:
        """The successful answer, after bounded retries. None: nothing was done, and botocore has to send it."""
        from botocore.exceptions import ClientError, ConnectionError, HTTPClientError  # noqa: A004, PLC0415

        held = 0
        for attempt in count(1):
            route = self._find_route()
            if not route.url:
                return None
            problem: Exception
            try:
                answer = self._send(route, method, path, body, headers or {})
                if answer.status_code < 300:
                    self._quota.release(held or 1)
                    return answer
                problem = ClientError(self._parse(operation, answer), operation)
            except (ConnectionError, HTTPClientError) as error:
                problem = error
            code, status = _said(problem)
            if status in {301, 307} or code in _ELSEWHERE:
                # botocore follows the redirect and remembers the region. The next request finds its route from that.
                self._forget(route)
                return None
            if attempt >= self._attempts:
                raise problem
            if code in _EXPIRED and self._renew(route):
                continue
            passing = status is None or status in _PASSING or code in _BUSY | _STALLED
            if not passing or not self._quota.acquire(_RETRY_COST):
                raise problem
            held += _RETRY_COST
            time.sleep(min(random.random() * 2 ** (attempt - 1), PAUSE_MAX))  # noqa: S311 (jitter)
        raise AssertionError("unreachable")

    def _send(self, route: _Route, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        """Sign and send once. Raises botocore's errors, and Again if the answer's body broke off."""
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        url = route.bucket_url + path if path.startswith("?") else route.url + path
        request = AWSRequest(method, url, {"User-Agent": route.user_agent, **headers}, body)
        # This call refreshes credentials that are about to expire, in one thread for all.
        route.signer.get_auth_instance(**route.signing).add_auth(request)
        answer = route.client._endpoint.http_session.send(request.prepare())  # noqa: SLF001 (no other door to it)
        length = answer.headers.get("Content-Length")
        if length is not None and int(length) != len(answer.content):
            raise Again(f"{len(answer.content)} bytes of {length} were received")
        return answer

    def _parse(self, operation: str, answer: Any) -> dict[str, Any]:
        """The answer as botocore parses it. Errors too, so that their messages are the same."""
        shape = self._client.meta.service_model.operation_model(operation).output_shape
        headers = {name.lower(): value for name, value in answer.headers.items()}
        found = {"headers": headers, "status_code": answer.status_code, "body": answer.content}
        return dict(self._parser.parse(found, shape))

    def _find_route(self) -> _Route:
        route = self._route
        if route is None:
            with self._lock:
                route = self._route = self._route or self._look()
        return route

    def _look(self) -> _Route:
        """Let botocore address a PutObject, and take its route. Raises botocore's errors if the configuration does not
        allow for one.
        """
        client = self._client
        try:
            client.put_object(Bucket=self._bucket, Key=_MARK, Body=b"", IfNoneMatch="*")
        except _Stopped as stopped:
            request = stopped.request
            usual = (
                stopped.signing["signature_version"] in {"s3v4", "v4"}
                and {name.lower() for name in request.headers} <= _HEADERS
                and not {"request_credentials", "identity_cache"} & set(request.context.get("signing", {}))
            )
            url = request.url.removesuffix(_MARK) if usual else ""
            return _Route(client, url, stopped.signer, stopped.signing, request.headers.get("User-Agent", ""))
        raise AssertionError("botocore sent a request without asking before-sign")

    def _new_client(self) -> Any:
        client = self._make_client()
        client.meta.events.register_last("before-sign.s3.PutObject", _stop)
        return client

    def _forget(self, route: _Route) -> None:
        with self._lock:
            if self._route is route:
                self._route = None

    def _renew(self, route: _Route) -> bool:
        """Search for credentials again, as at the start: files and tokens may have been replaced. Return whether that
        was done, here or in another thread.

        The time of the last search is lost with the process; one more search is harmless.
        """
        with self._lock:
            if self._route is not route:
                return True  # another thread did it
            if time.monotonic() - self._renewed < _RENEW_EVERY:
                return False
            self._renewed = time.monotonic()
            self._client, self._route = self._new_client(), None
            return True


def _stop(
    request: Any, signing_name: str, region_name: str, signature_version: Any, request_signer: Any, **_: Any
) -> None:
    """Handler of ``before-sign``: stops the request for ``_MARK`` and lets every other one pass."""
    if not request.url.endswith(f"/{_MARK}"):
        return
    own = request.context.get("signing", {})
    signing = {
        "signing_name": own.get("signing_name", signing_name),
        "region_name": own.get("region", region_name),
        "signature_version": signature_version,
    }
    raise _Stopped(request, request_signer, signing)


def _said(problem: Exception) -> tuple[str, int | None]:
    """S3's error code and the status; no status if there was no answer."""
    response = getattr(problem, "response", None)
    if not isinstance(response, dict):
        return "", None
    return response.get("Error", {}).get("Code", ""), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
