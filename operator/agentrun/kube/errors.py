"""How a request to the API server fails, in Kubernetes' words: one family, whoever asks.

``ClusterError`` is the base of all. ``NotFound``, ``AlreadyExists``, ``Conflict`` and ``Gone`` are about the state of
objects; ``Unauthorized`` is about our credentials. What is ``Refused`` (``Forbidden``, ``BadRequest``, ``Invalid``,
``TooLong``) does not pass by waiting; what is ``Unavailable`` (``TooSlow``) may. ``kube.status`` has the table from an
answer to its error.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

from agentrun.api.errors import AgentrunError


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the causes in the details of a Status; a part that is missing there is empty."""

    reason: str
    field: str
    """The field that it is about, such as ``spec.steps[0].agent``."""
    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the API server answers instead of what was asked for."""

    code: int
    """The HTTP status."""
    message: str = ""
    """The API server's own words; empty where the body is no Status, because something in front of it answered."""
    reason: str = ""
    name: str = ""
    """The object that it is about. A 404 without one means that the API server does not know the resource."""
    causes: tuple[Cause, ...] = ()
    retry_after: float | None = None
    """Seconds, from the header Retry-After."""
    begins: str = ""
    """The first 200 bytes of the body."""


class ClusterError(AgentrunError):
    """Base of what can go wrong with a request to the API server.

    ``status`` is the answer; None where there was none, or where the error is ours.
    """

    def __init__(self, message: str, *, status: Status | None = None) -> None:
        super().__init__(message)
        self.status = status

    def saying(self, message: str) -> Self:
        """The same error in other words."""
        error = copy(self)
        error.args = (message,)
        return error


class NotFound(ClusterError):
    """404: there is no such object. Also: its namespace is being deleted."""


class AlreadyExists(ClusterError):
    """409: an object of that name is there."""


class Conflict(ClusterError):
    """409: the object has changed since it was read, or another writer owns the field. Read it again."""


class Gone(ClusterError):
    """410: a page of a list, or a watch, began too long ago to go on."""


class Unauthorized(ClusterError):
    """401, after the credentials were read again: the API server does not know us. A rotated token may help later."""


class Refused(ClusterError):
    """The API server will not do it, and waiting alone will not help."""


class Forbidden(Refused):
    """403: a role is missing, or a quota, Pod Security or an admission policy is against it."""


class BadRequest(Refused):
    """400, and each 4xx without a class of its own: the API server does not understand the request."""


class Invalid(Refused):
    """413, 422, and a limit of etcd: the API server will never take this object. It is too large, or a field is bad."""


class TooLong(Refused):
    """An answer has more bytes than the caller reads."""


class Unavailable(ClusterError):
    """No answer, 429 or 5xx, after the client's own bounded retries.

    ``retry_after`` is in seconds, where the API server said so.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, status: Status | None = None) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after if status is None else status.retry_after


class TooSlow(Unavailable):
    """504, or no answer in the time that a call has: the API server may have done it all the same."""
