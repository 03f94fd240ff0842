"""When a request is sent again: one policy for both clients, who differ in its numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agentrun.kube.errors import ClusterError, TooSlow, Unauthorized, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call tries."""

    pauses: tuple[float, ...]
    """Seconds before each further try."""
    patience: float
    """A longer Retry-After, in seconds, is the caller's to wait for."""
    unanswered: bool
    """Whether a call without an answer is sent again, which may do it twice: for who names everything beforehand."""


class Tries:
    """What one call has left of its policy. It does not sleep itself."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._pauses = iter(policy.pauses)
        self._renewed = False

    def renew(self, error: ClusterError) -> bool:
        """Whether the credentials are to be read again, and the request sent at once: after the first 401."""
        first = isinstance(error, Unauthorized) and not self._renewed
        self._renewed = self._renewed or first
        return first

    def pause(self, error: ClusterError) -> float | None:
        """Seconds before the next try; None: ``error`` is the caller's.

        After a 429 the API server has done nothing. Any other answer stands, and what was too slow may still be done.
        """
        if not isinstance(error, Unavailable) or isinstance(error, TooSlow):
            return None
        if error.status.code != 429 if error.status is not None else not self._policy.unanswered:
            return None
        pause, asked = next(self._pauses, None), error.retry_after or 0.0
        if pause is None or asked > self._policy.patience:
            return None
        return max(pause, asked) * random.uniform(1, 1.25)  # noqa: S311  # so that not all come back at once
