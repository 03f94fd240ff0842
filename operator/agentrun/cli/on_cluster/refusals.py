"""Adds to the API server's error messages what a person can do.

The classes of the errors stay those of ``kube.errors``.
"""

from __future__ import annotations

import re

from agentrun.api.errors import AgentrunError, Path, Problem
from agentrun.kube.errors import (
    ClusterError,
    Forbidden,
    NotFound,
    Status,
    Unauthorized,
    Unavailable,
)
from agentrun.kube.status import error_of


class NotInstalled(AgentrunError):
    """The cluster does not have agentrun's CRDs."""


_CANNOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_STRICT = re.compile(r"strict decoding error: (.*)", re.DOTALL)
_UNKNOWN = re.compile(r'(unknown|duplicate) field "([^"]+)"')


def refusal_of(status: Status) -> AgentrunError:
    """The error for a response that is not a success, with a message for the person."""
    error = error_of(status, "")
    said = status.message or status.begins.strip() or f"status {status.code}"
    match error:
        case Unauthorized():
            return error.saying(
                f"the API server rejects your credentials: {said}. Log in again, or choose another --context"
            )
        case Forbidden():
            return error.saying(said + _role(said))
        case NotFound() if status.code == 403:  # the namespace is being deleted, so nothing can be created in it
            return Forbidden(said + _role(said), status=status)
        case NotFound() if not status.name:
            return NotInstalled(
                "agentrun is not installed on this cluster: helm install agentrun-crds charts/agentrun-crds "
                "--namespace agentrun --create-namespace, then install the chart agentrun"
            )
        case Unavailable():
            return error.saying(f"the API server answered {status.code}: {said}; try again")
        case _:
            return error.saying(said)


def fields_of(error: ClusterError) -> list[Problem]:
    """The fields that the API server rejects; empty if it does not name them."""
    if error.status is None:
        return []
    found = [Problem(_path(cause.field), cause.message) for cause in error.status.causes if cause.field]
    strict = _STRICT.search(error.status.message)
    if not found and strict is not None:
        found = [Problem(_path(m[2]), f"{m[1]} field for the API server") for m in _UNKNOWN.finditer(strict[1])]
    return found


def _role(said: str) -> str:
    """A sentence that names the role with the missing permission, and the command that grants it; or empty."""
    missing = _CANNOT.search(said)
    if missing is None:
        return ""  # the message of an admission policy already says what to do
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
    return f". The role {role} permits it: kubectl create {where} --clusterrole={role} --user={missing['user']}"


def _plain(user: str) -> str:
    return re.sub("[^a-z0-9]+", "-", user.lower()).strip("-") or "user"


def _path(field: str) -> Path:
    """``spec.steps[0].agent`` as a path. A key in brackets that is not a number stays a text."""
    parts = re.findall(r"[^.\[\]]+", "" if field == "<nil>" else field)
    return tuple(int(part) if part.isdecimal() else part for part in parts)
