"""The API server as one user sees it, without a client between: what it answers is what is asserted."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUP = "/apis/agentrun.dev/v1alpha1"
REQUESTED_BY = "agentrun.dev/requested-by"
MERGE = "application/merge-patch+json"

Document = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    body: Document

    def ok(self) -> Document:
        """The object, where the request was granted."""
        assert self.status in {200, 201}, self.body
        return self.body

    def refused(self) -> str:
        """Why it was not, where a policy did not grant it."""
        assert self.status == 403, self.body
        return str(self.body["message"])

    @property
    def requester(self) -> str | None:
        """Who made the object, by its annotation."""
        found: str | None = self.ok()["metadata"].get("annotations", {}).get(REQUESTED_BY)
        return found


class Api:
    """Requests with one token; ``acting`` impersonates, where the token may."""

    def __init__(self, url: str, ca: Path, token: str, acting: tuple[str, ...] = ()) -> None:
        self._url = url
        self._ca = ca
        self._token = token
        self._acting = acting
        self._context = ssl.create_default_context(cafile=str(ca))

    def acting_as(self, user: str, *group: str) -> Api:
        """The same as another user, by impersonation; in one group at the most, since urllib sends a header once."""
        return Api(self._url, self._ca, self._token, (user, *group))

    def with_token(self, token: str) -> Api:
        """The same as the user whose token this is."""
        return Api(self._url, self._ca, token)

    def call(self, method: str, path: str, body: Document | None = None, kind: str = "application/json") -> Answer:
        """One request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data=data, method=method)
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", kind)
        if self._acting:
            user, *groups = self._acting
            request.add_header("Impersonate-User", user)
            for group in groups:
                request.add_header("Impersonate-Group", group)
        try:
            with urllib.request.urlopen(request, context=self._context) as answer:
                return Answer(answer.status, json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.load(error))

    def create(self, plural: str, document: Document, namespace: str = "support", *, dry: bool = False) -> Answer:
        """Make one of ours; ``dry``: up to the admission policies, and no further."""
        query = "?dryRun=All" if dry else ""
        return self.call("POST", f"{GROUP}/namespaces/{namespace}/{plural}{query}", document)

    def patch(self, plural: str, name: str, change: Document, *, status: bool = False) -> Answer:
        """A merge patch of one of ours in `support`, or of its status."""
        return self.call("PATCH", self._path(plural, name, status), change, MERGE)

    def put(self, plural: str, document: Document, *, status: bool = False) -> Answer:
        """One of ours in `support` as a whole, or its status."""
        return self.call("PUT", self._path(plural, document["metadata"]["name"], status), document)

    def delete(self, plural: str, name: str) -> Answer:
        """Remove one of ours in `support`."""
        return self.call("DELETE", self._path(plural, name, False))

    def get(self, plural: str, name: str) -> Document:
        """One of ours in `support`."""
        return self.call("GET", self._path(plural, name, False)).ok()

    def may(self, verb: str, resource: str, *, group: str = "", namespace: str = "", name: str = "") -> bool:
        """Whether roles grant it to this user: `kubectl auth can-i`. ``resource`` may be RESOURCE/SUBRESOURCE."""
        plural, _, sub = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": sub,
            "namespace": namespace,
            "name": name,
        }
        review = {"spec": {"resourceAttributes": attributes}}
        answer = self.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).ok()
        return bool(answer["status"]["allowed"])

    @staticmethod
    def _path(plural: str, name: str, status: bool) -> str:
        return f"{GROUP}/namespaces/support/{plural}/{name}{'/status' if status else ''}"


def document(kind: str, name: str, spec: Document, annotations: dict[str, str] | None = None) -> Document:
    """One of ours."""
    metadata: Document = {"name": name} | ({"annotations": annotations} if annotations is not None else {})
    return {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def run(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Document:
    """An AgentRun of the workflow `refund`."""
    return document("AgentRun", name, {"workflowRef": {"name": "refund"}, **spec}, annotations)


def binding(role: str, *subjects: str, kind: str = "ClusterRole") -> Document:
    """A RoleBinding of users, made anew each time it is posted."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"generateName": "test-"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name} for name in subjects],
    }
