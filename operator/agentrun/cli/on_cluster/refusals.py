"""What an API server answers instead of yes, as errors that tell a person what to do.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agentrun.api.decoding import Unreadable, decode
from agentrun.api.errors import AgentrunError, Path
from agentrun.cli.failures import OutOfReach


class Missing(AgentrunError):
    """There is no such object."""


class NotInstalled(AgentrunError):
    """The cluster does not know our kinds."""


class Denied(AgentrunError):
    """A role is missing, or an admission policy refused; its words are shown as they stand."""


class Taken(AgentrunError):
    """An object of that name is there already."""


class Conflict(AgentrunError):
    """Somebody else changed the object meanwhile, or owns what was to be changed."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that the API server refuses."""

    path: Path
    message: str


class Unfit(AgentrunError):
    """The API server refuses the object itself."""

    def __init__(self, message: str, causes: tuple[Cause, ...] = ()) -> None:
        self.causes = causes
        super().__init__(message)


_CANNOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_STRICT = re.compile(r"strict decoding error: (.*)", re.DOTALL)
_UNKNOWN = re.compile(r'(unknown|duplicate) field "([^"]+)"')


def error_of(code: int, body: bytes) -> AgentrunError:
    """The error for an answer with ``body``, which is a Status unless something before the API server answered."""
    try:
        status = decode(body)
    except Unreadable:
        status = None
    found: dict[str, Any] = status if isinstance(status, dict) else {}
    said = str(found.get("message") or body[:200].decode(errors="replace").strip() or f"status {code}")
    details = found.get("details")
    details = details if isinstance(details, dict) else {}
    match code:
        case 401:
            return Denied(f"the API server does not know you: {said}. Log in again, or choose another --context")
        case 403:
            return Denied(said + _role(said))
        case 404 if details.get("name"):
            return Missing(said)
        case 404:
            return NotInstalled(
                "this cluster does not know AgentRuns: helm install agentrun-crds charts/agentrun-crds "
                "--namespace agentrun-system --create-namespace, then the chart agentrun"
            )
        case 409:
            return Taken(said) if found.get("reason") == "AlreadyExists" else Conflict(said)
        case 400 | 422:
            return Unfit(said, tuple(_causes(said, details)))
        case _ if code == 413 or "too large" in said:  # etcd's limit comes as 500; the same object will never fit
            return Unfit(said)
        case _ if code == 429 or code >= 500:
            return OutOfReach(f"the API server answered {code}: {said}; try again")
        case _:
            return Unfit(said)


def _role(said: str) -> str:
    """Which role has what is missing, and how it is given."""
    missing = _CANNOT.search(said)
    if missing is None:
        return ""  # an admission policy: it says itself what to do
    if missing["group"] == "agentrun.dev":
        reads = missing["verb"] in ("get", "list", "watch")
        decides = missing["resource"] == "approvals/status"
        role = "agentrun-viewer" if reads else "agentrun-approver" if decides else "agentrun-editor"
    elif missing["group"] == "" and missing["resource"] in ("pods", "pods/log", "events"):
        role = "view"
    else:
        return ""
    where = f"rolebinding {role}-{_plain(missing['user'])} -n {missing['namespace']}"
    if missing["namespace"] is None:
        where = f"clusterrolebinding {role}-{_plain(missing['user'])}"
    return f". The role {role} has it: kubectl create {where} --clusterrole={role} --user={missing['user']}"


def _plain(user: str) -> str:
    return re.sub("[^a-z0-9]+", "-", user.lower()).strip("-") or "user"


def _causes(said: str, details: dict[str, Any]) -> list[Cause]:
    causes = details.get("causes")
    found = [
        Cause(_path(cause["field"]), str(cause.get("message", "")))
        for cause in (causes if isinstance(causes, list) else ())
        if isinstance(cause, dict) and isinstance(cause.get("field"), str)
    ]
    strict = _STRICT.search(said)
    if not found and strict is not None:
        found = [Cause(_path(m[2]), f"{m[1]} field for the API server") for m in _UNKNOWN.finditer(strict[1])]
    return found


def _path(field: str) -> Path:
    """``spec.steps[0].agent`` as a path; a key in brackets that is no number stays a text."""
    parts = re.findall(r"[^.\[\]]+", "" if field == "<nil>" else field)
    return tuple(int(part) if part.isdecimal() else part for part in parts)
