"""Makes the error of an answer that is no success: one table for both clients.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from typing import Any, Final

from agentrun.api.decoding import Unreadable, decode
from agentrun.kube.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Status,
    TooSlow,
    Unauthorized,
    Unavailable,
)

MESSAGE_MAX: Final = 2000
"""Characters of an error's message. ``Status.message`` is not cut."""

BY_CODE: Final[dict[int, type[ClusterError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
    429: Unavailable,
    504: TooSlow,
}
"""The class by HTTP status. Any other status from 500 on is Unavailable, all the rest is BadRequest."""


def read_status(code: int, body: bytes, retry_after: str | None = None) -> Status:
    """The Status in ``body``, which may be anything. ``retry_after`` is the text of the header."""
    try:
        found = decode(body)
    except Unreadable:
        found = None
    status: dict[str, Any] = found if isinstance(found, dict) else {}
    details = status.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    return Status(
        code,
        str(status.get("message") or ""),
        str(status.get("reason") or ""),
        str(details.get("name") or ""),
        tuple(_cause(cause) for cause in (causes if isinstance(causes, list) else ()) if isinstance(cause, dict)),
        float(retry_after) if retry_after and retry_after.isdecimal() else None,
        body[:200].decode(errors="replace"),
    )


def error_of(status: Status, what: str) -> ClusterError:
    """The error for an answer, with the API server's own message. If a later try may succeed, the message also names
    the request (``what``).
    """
    kind = kind_of(status)
    message = (status.message or f"{status.code} {status.begins}")[:MESSAGE_MAX]
    if issubclass(kind, Unavailable | Unauthorized):
        message = f"the API server answered {status.code} ({what}): {message}"
    return kind(message, status=status)


def kind_of(status: Status) -> type[ClusterError]:
    """The class of the error for an answer."""
    code, said = status.code, status.message or status.begins
    if code == 409 and status.reason == "AlreadyExists":
        return AlreadyExists
    if code == 403 and any(cause.reason == "NamespaceTerminating" for cause in status.causes):
        return NotFound
    # The limits of etcd and gRPC come as 500, but the same object will never fit.
    if code == 500 and ("too large" in said or "larger than max" in said):
        return Invalid
    return BY_CODE.get(code, Unavailable if code >= 500 else BadRequest)


def _cause(found: dict[str, Any]) -> Cause:
    field = found.get("field")
    return Cause(str(found.get("reason") or ""), field if isinstance(field, str) else "", str(found.get("message", "")))
