"""One namespace, and what somebody writes in it."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
import uuid
from http import HTTPStatus
from typing import Any

import psutil  # type: ignore[import-untyped]

from agentrun.api.workflow import API_VERSION
from agentrun.kube.client import METADATA_OF_ALL
from tests.cluster.component import Component
from tests.cluster.control_plane import ControlPlane

PLURALS = {"AgentRun": "agentruns", "AgentWorkflow": "agentworkflows", "AgentCommand": "agentcommands"}


JSON = "application/json"


MEMORY = 512 * 2**20
"""Bytes; the chart's limit is twice that."""

TRIES = 4
"""How often an object is written to an API server that is busy."""

BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
"""What an API server of two cores answers that has been given a hundred objects of 1.5 MB."""


class Tenant:
    """One namespace, and what is written in it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.name = f"{name}-{uuid.uuid4().hex[:6]}"
        self._url = plane.url
        self._trust = ssl.create_default_context(cafile=str(plane.ca))
        self._token = plane.token("admin")
        plane.kubectl("create", "namespace", self.name)

    def call(self, method: str, path: str, text: str | None = None, kind: str = JSON, accept: str = JSON) -> bytes:
        """An answer of the API server. Raises HTTPError."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": accept}
        data = text.encode() if text is not None else None
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60, context=self._trust) as answer:
            found: bytes = answer.read()
            return found

    def path(self, kind: str, name: str = "") -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.name}/{PLURALS[kind]}" + (f"/{name}" if name else "")

    def write(self, kind: str, name: str, text: str) -> str:
        """Make an object of this text; its name. An API server that is too busy with the ones before is asked again."""
        busy = False
        for tries_left in reversed(range(TRIES)):
            try:
                self.call("POST", self.path(kind), text)
            except urllib.error.HTTPError as error:
                if busy and error.code == HTTPStatus.CONFLICT:
                    break  # it was made, although the answer was that it took too long
                if error.code not in BUSY or not tries_left:
                    raise
                busy = True
            else:
                break
        return name

    def taken(self, kind: str, name: str, text: str) -> bool:
        """Whether the API server takes an object of this text."""
        try:
            self.write(kind, name, text)
        except urllib.error.HTTPError as error:
            if b"too large" not in error.read():
                raise
            return False
        return True

    def run(self, name: str, *steps: dict[str, Any], **spec: Any) -> str:
        body = {"apiVersion": API_VERSION, "kind": "AgentRun", "metadata": {"name": name}}
        return self.write("AgentRun", name, json.dumps(body | {"spec": spec | {"workflow": {"steps": list(steps)}}}))

    def patch(self, name: str, **spec: Any) -> None:
        self.call("PATCH", self.path("AgentRun", name), json.dumps({"spec": spec}), "application/merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        self.call("DELETE", self.path(kind, name))

    def clear(self) -> None:
        """Delete all, without an answer that brings it back."""
        for kind in PLURALS:
            self.call("DELETE", self.path(kind), accept=METADATA_OF_ALL)

    def rows(self, kind: str) -> dict[str, list[str]]:
        """The printed columns of all objects, by name: what can be had without what nests in them."""
        found: dict[str, list[str]] = {}
        more = ""
        while True:
            path = f"{self.path(kind)}?limit=50&includeObject=None{more}"
            table = json.loads(self.call("GET", path, accept=f"{JSON};as=Table;v=v1;g=meta.k8s.io"))
            found.update({row["cells"][0]: [str(cell) for cell in row["cells"]] for row in table["rows"] or ()})
            if not (token := table["metadata"].get("continue")):
                return found
            more = f"&continue={token}"

    def phases(self) -> dict[str, str]:
        """The phase of each run."""
        return {name: row[1] for name, row in self.rows("AgentRun").items()}

    def events(self) -> list[tuple[str, str]]:
        found = json.loads(self.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.name}/events"))
        return [(event["reason"], event["note"]) for event in found["items"]]


def memory(operator: Component) -> int:
    return int(psutil.Process(operator.pid).memory_info().rss)


TIMER = {"name": "w", "wait": {"duration": "1s"}}
