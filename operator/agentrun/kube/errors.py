"""How a request to the API server fails, in Kubernetes' words."""

from __future__ import annotations

from agentrun.api.errors import AgentrunError


class ClusterError(AgentrunError):
    """Base of what can go wrong with a request to the API server."""


class NotFound(ClusterError):
    """There is no such object, or its namespace is gone."""


class AlreadyExists(ClusterError):
    """An object of that name is there."""


class Conflict(ClusterError):
    """The object has changed since it was read: look again."""


class Refused(ClusterError):
    """The API server will not do it: permissions, quota, Pod Security, a schema. Waiting alone will not help."""


class Unfit(Refused):
    """The API server will never take what was sent: it is too large, or not as the schema has it."""


class Unavailable(ClusterError):
    """No answer, 429 or 5xx, after the client's own bounded retries; ``retry_after`` in seconds if it said so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooSlow(Unavailable):
    """No answer in the time that a call has: what was asked for may be done all the same."""


class Gone(ClusterError):
    """A page or a watch began too long ago to go on."""
