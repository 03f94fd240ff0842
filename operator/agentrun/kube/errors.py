"""The errors of requests to the API server, named as in Kubernetes. All clients of this project raise them.

``ClusterError`` is the base class. ``NotFound``, ``AlreadyExists``, ``Conflict`` and ``Gone`` are about the state of
objects; ``Unauthorized`` is about our credentials. Waiting does not help against ``Refused`` (``Forbidden``,
``BadRequest``, ``Invalid``, ``TooLong``); it may help against ``Unavailable`` (``TooSlow``). ``kube.status`` has the
table from answers to errors.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Final, Self

from agentrun.api.errors import AgentrunError


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the causes in the details of a Status. A missing part is empty."""

    reason: str
    field: str
    """The field that the cause is about, such as ``spec.steps[0].agent``."""
    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """The error answer of the API server."""

    code: int
    """The HTTP status."""
    message: str = ""
    """The API server's own message; empty if the body is no Status, because something in front of the API server
    answered.
    """
    reason: str = ""
    name: str = ""
    """The name of the object. A 404 without a name means that the API server does not know the resource."""
    causes: tuple[Cause, ...] = ()
    retry_after: float | None = None
    """Seconds, from the header Retry-After."""
    begins: str = ""
    """The first 200 bytes of the body."""


class ClusterError(AgentrunError):
    """The base class of errors of requests to the API server.

    ``status`` is the answer; None if there was none, or if the error is ours.
    """

    def __init__(self, message: str, *, status: Status | None = None) -> None:
        super().__init__(message)
        self.status = status

    def saying(self, message: str) -> Self:
        """The same error with another message."""
        error = copy(self)
        error.args = (message,)
        return error


class NotFound(ClusterError):
    """404: the object does not exist. Also 403 because its namespace is being deleted."""


class AlreadyExists(ClusterError):
    """409: an object of that name exists."""


class Conflict(ClusterError):
    """409: the object has changed since it was read, or another writer owns the field. The caller reads it again."""


class Gone(ClusterError):
    """410: the list or the watch began too long ago to be continued."""


class Unauthorized(ClusterError):
    """401, after the credentials were read again: the API server does not know us. A rotated token may help later."""


class Refused(ClusterError):
    """The API server refuses the request, and waiting alone does not help."""


class Forbidden(Refused):
    """403: a role is missing, or a quota, Pod Security or an admission policy forbids the request."""


class BadRequest(Refused):
    """400, and every 4xx without a class of its own: the API server does not understand the request."""


class Invalid(Refused):
    """413, 422, and a limit of etcd: the API server will never take this object. It is too large, or a field is bad."""


class TooLong(Refused):
    """The answer has more bytes than the caller accepts."""


class Unavailable(ClusterError):
    """No answer, 408, 429 or 5xx, after the client's own bounded retries.

    ``retry_after``: the seconds that the API server asked to wait; None if it did not.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, status: Status | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after if status is None else status.retry_after


class TooSlow(Unavailable):
    """504, or no answer within the timeout of the call. The API server may have carried the request out."""


DENIED: Final = (Unauthorized, Forbidden)
"""The caller is not known, or may not: a login, a role or an admission policy decides that."""

REJECTED: Final = (BadRequest, Invalid)
"""The request itself is wrong."""
