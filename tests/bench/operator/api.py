"""The little of the Kubernetes API that the rig itself needs: a session, and a watch that does not lose anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from agentrun.kube.credentials import find_login

RUNS = "/apis/agentrun.dev/v1alpha1/namespaces/default/agentruns"
PODS = "/api/v1/namespaces/default/pods"
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
LINE_MAX = 2**22
"""Bytes of one event of a watch."""

Json = Mapping[str, Any]


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session with the API server that KUBECONFIG names."""
    access = await asyncio.to_thread(find_login().read)
    connector = aiohttp.TCPConnector(ssl=access.ssl_context(), limit=64)
    async with aiohttp.ClientSession(
        access.server,
        headers={**access.headers(), "Accept-Encoding": "identity", "User-Agent": "bench"},
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=LINE_MAX,
    ) as opened:
        yield opened


async def call(http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """The answer to a request.

    Raises:
        RuntimeError: the API server refused it.
    """
    data = None if body is None else json.dumps(body).encode()
    async with http.request(method, path, data=data, headers={"Content-Type": "application/json"} | headers) as answer:
        text = await answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
        return json.loads(text)


async def follow(http: aiohttp.ClientSession, path: str, selector: str) -> AsyncIterator[tuple[str, Json]]:
    """What is there (as ``LISTED``), then ("", {}) once, then what changes, until cancelled.

    A busy API server closes watches: this one goes on where it was, or lists anew where that is too long ago.
    """
    version = ""
    began = False
    while True:
        if not version:
            listed = await call(http, "GET", f"{path}?labelSelector={selector}")
            version = listed["metadata"]["resourceVersion"]
            for item in listed["items"]:
                yield "LISTED", item
            if not began:
                began = True
                yield "", {}
        query = f"?watch=true&allowWatchBookmarks=true&labelSelector={selector}&resourceVersion={version}"
        try:
            async with http.get(path + query) as answer:
                if answer.status == 410:
                    version = ""
                    continue
                answer.raise_for_status()
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        version = ""
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
        except aiohttp.ClientPayloadError:
            continue  # cut in the middle of a line: again from the last whole event
