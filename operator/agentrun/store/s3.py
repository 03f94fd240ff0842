"""A store in an S3 bucket, or in a bucket of another server that speaks S3 and honours conditional writes.

``create`` is a PutObject with ``If-None-Match: *``, ``swap`` one with ``If-Match``
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). If an answer is lost, botocore sends
the PUT again. The second PUT then finds the object of the first one: 412, KeyExists, and the caller compares.

The store uses botocore, the half of boto3 that makes requests: importing boto3's resource layer as well costs a
process 0.1 s more. Credentials, region, endpoint (``AWS_ENDPOINT_URL_S3``) and profiles are found as boto3 finds them.
"""

from __future__ import annotations

import builtins
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from agentrun.api.texts import quoted
from agentrun.store.keys import check_folder, check_key, check_prefix, is_key, is_segment
from agentrun.store.protocol import KeyExists, KeyMissing, StoreError, StoreUnavailable, StoreUnfit
from agentrun.store.s3_errors import Again, explained

_T = TypeVar("_T")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_LONGEST_PREFIX = 100
CONNECTIONS = 128
"""Connections that are kept. There must be at least as many as threads that make requests (``side_by_side.ALLOWANCE``,
and the callers' own: ``control.async_journal.THREADS``); botocore closes each further connection, and logs it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to try: requests per call, and the seconds that each request waits for a connection and an answer."""

    attempts: int = 5
    connect: float = 5.0
    read: float = 20.0


class S3Store:
    """Objects of one bucket below a prefix. Safe for threads.

    Nothing is imported or sent before the first call; ``preload`` imports ahead of it.
    """

    def __init__(self, url: str, *, limits: Limits | None = None) -> None:
        """The store at ``s3://bucket/prefix``. Raises StoreUnfit if ``url`` is something else."""
        self.url = url
        self.remote = True
        self.bucket, self._start = _parse(url)
        self._limits = limits or Limits()
        self._client: Any = None
        self._connecting = threading.Lock()

    def preload(self) -> None:
        """Import botocore and create the client: CPU and files, no network. Worth a thread while other things start.

        Raises StoreUnfit if the AWS configuration is broken.
        """
        self._connect()

    def create(self, key: str, data: bytes) -> None:
        """Write a new object, durably. Raises KeyExists (the caller compares), StoreUnavailable or StoreUnfit."""
        check_key(key)
        self._put(self._start + key, data, IfNoneMatch="*")

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises KeyMissing, StoreUnavailable or StoreUnfit."""
        return self.read_version(key)[0]

    def list(self, prefix: str, after: str = "") -> list[str]:
        """Every key that starts with ``prefix`` and is greater than ``after``, sorted: one request per 1,000."""
        check_prefix(prefix)
        start = {"StartAfter": self._start + after} if after else {}
        pages = self._ask(lambda client: _pages(client, Bucket=self.bucket, Prefix=self._start + prefix, **start))
        cut = len(self._start)
        keys = (found["Key"][cut:] for page in pages for found in page.get("Contents", ()))
        # Leave out the objects of other programs, such as the `folder/` objects of consoles.
        return sorted(filter(is_key, keys))

    def children(self, prefix: str) -> builtins.list[str]:
        """The distinct next segments of the keys below ``prefix``, sorted."""
        check_folder(prefix)
        start = self._start + prefix
        pages = self._ask(lambda client: _pages(client, Bucket=self.bucket, Prefix=start, Delimiter="/"))
        cut = len(start)
        folders = {found["Prefix"][cut:-1] for page in pages for found in page.get("CommonPrefixes", ())}
        objects = {found["Key"][cut:] for page in pages for found in page.get("Contents", ())}
        return sorted(filter(is_segment, folders | objects))

    def read_version(self, key: str) -> tuple[bytes, str]:
        """The object and its ETag, which is opaque. Raises KeyMissing, StoreUnavailable or StoreUnfit."""
        check_key(key)
        return self._get(self._start + key)

    def swap(self, key: str, data: bytes, version: str | None) -> str:
        """Replace the object if it still has ``version`` (None: if there is no object). Return the new version.

        Raises KeyExists if the object has another version by now, or is gone. The other version may be our own: the
        answer to the PUT was lost, and the second try found its object.
        """
        check_key(key)
        if version is None:
            return self._put(self._start + key, data, IfNoneMatch="*")
        return self._put(self._start + key, data, IfMatch=version)

    def probe(self) -> None:
        """Write a new object; check that it reads back, and that the conditions keep it from being written again.

        Raises StoreUnfit if a condition is ignored or the address, credentials or permissions are wrong, and
        StoreUnavailable if nothing answers.
        """
        key = f"{self._start}.probe/{secrets.token_hex(16)}"
        with suppress(KeyExists):  # it is our own object: nobody else has this key, so an answer was lost
            self._put(key, b"probe", IfNoneMatch="*")
        try:
            for header, condition in (("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", {"IfMatch": '"another"'})):
                try:
                    self._put(key, b"again", **condition)
                except KeyExists:
                    continue
                raise StoreUnfit(
                    f"{self.url}: the server ignores {header} on PUT, so two processes could both believe that they "
                    "own a run; use a store with conditional writes (Amazon S3 has them; of others, current releases)"
                )
            if self._get(key)[0] != b"probe":
                raise StoreUnfit(f"{self.url}: an object does not read back as it was written; use another store")
        except KeyMissing:
            raise StoreUnfit(
                f"{self.url}: an object that was just written can't be read; the store must be strongly consistent"
            ) from None
        finally:
            # A bucket for audits may forbid deletion. The five bytes left behind do no harm, and the result is valid.
            with suppress(StoreError):
                self._ask(lambda client: client.delete_object(Bucket=self.bucket, Key=key))

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        """PutObject under the full ``key``. Return the ETag. Raises KeyExists also if the object is gone."""
        try:
            answer = self._ask(lambda client: client.put_object(Bucket=self.bucket, Key=key, Body=data, **condition))
        except KeyMissing:
            raise KeyExists(f"s3://{self.bucket}/{key} is gone") from None
        return str(answer.get("ETag", ""))

    def _get(self, key: str) -> tuple[bytes, str]:
        """GetObject of the full ``key``: body and ETag."""

        def fetch(client: Any) -> tuple[bytes, str]:
            from botocore.exceptions import HTTPClientError, IncompleteReadError  # noqa: PLC0415

            answer = client.get_object(Bucket=self.bucket, Key=key)
            try:
                # botocore's retries end with the headers: a connection that breaks in the body is retried here.
                return answer["Body"].read(), str(answer.get("ETag", ""))
            except (HTTPClientError, IncompleteReadError) as error:
                raise Again(str(error)) from error

        return self._ask(fetch)

    def _ask(self, request: Callable[[Any], _T]) -> _T:
        """The answer to ``request``. Retries what botocore does not retry: 409 and bodies that broke off."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        client = self._connect()
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return request(client)
            except Again as error:
                problem: StoreError = StoreUnavailable(f"{self.url}: {error}; try again later")
            except (ClientError, BotoCoreError) as error:
                found = explained(error, self.url)
                if not isinstance(found, Again):
                    raise found from error
                problem = StoreUnavailable(f"{self.url}: {found}; try again later")
            except OSError as error:
                if error.filename is None:
                    raise
                # A file that the configuration names, such as the token of a web identity.
                raise StoreUnfit(f"{self.url}: {error}; correct the AWS configuration") from error
            if attempt < self._limits.attempts:
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311 (jitter, not a secret)
        raise problem

    def _connect(self) -> Any:
        """The client, created at first use. Two botocore clients must not be created at once, hence the lock."""
        if self._client is None:
            with self._connecting:
                if self._client is None:
                    self._client = self._make_client()
        return self._client

    def _make_client(self) -> Any:
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        config = Config(
            retries={"mode": "standard", "total_max_attempts": self._limits.attempts},
            connect_timeout=self._limits.connect,
            read_timeout=self._limits.read,
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            # Without the extra CRC-32, botocore signs the body's SHA-256, which the server checks just as well. Servers
            # that do not know the newer checksum headers accept the request then. It also saves 0.1 ms a PUT.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # botocore itself reads only AWS_DEFAULT_REGION. Every other SDK reads AWS_REGION, which EKS sets in pods.
            region = os.environ.get("AWS_REGION") or None
            return botocore.session.Session().create_client("s3", config=config, region_name=region)
        except BotoCoreError as error:
            raise explained(error, self.url) from error
        except ValueError as error:  # an endpoint that is no URL
            raise StoreUnfit(f"{self.url}: {error}; correct AWS_ENDPOINT_URL_S3 or the AWS configuration") from error


def _pages(client: Any, **parameters: str) -> list[dict[str, Any]]:
    return list(client.get_paginator("list_objects_v2").paginate(**parameters))


def _parse(url: str) -> tuple[str, str]:
    """The bucket, and the prefix of all keys: empty, or ending in ``/``. Raises StoreUnfit."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if "@" in bucket:
        # Not quoted: this is where people put secrets.
        raise StoreUnfit("the store's address contains credentials; remove them and set AWS_ACCESS_KEY_ID and so on")
    if scheme != "s3" or _BUCKET.fullmatch(bucket) is None:
        raise StoreUnfit(f"{quoted(url)} is not a store: write s3://BUCKET/PREFIX")
    if prefix and (len(prefix) > _LONGEST_PREFIX or not is_key(prefix)):
        raise StoreUnfit(
            f"{quoted(url)}: the prefix after the bucket may hold A-Z a-z 0-9 . _ @ = + , : ~ ! ( ) - with single / "
            f"between, and {_LONGEST_PREFIX} characters"
        )
    return bucket, f"{prefix}/" if prefix else ""
