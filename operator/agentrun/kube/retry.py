"""Decides when a request is sent again: one policy for both clients, each with its own numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agentrun.kube.errors import ClusterError, TooSlow, Unauthorized, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call is tried."""

    pauses: tuple[float, ...]
    """Seconds before each further try."""
    patience: float
    """The longest Retry-After, in seconds, that the call itself waits for. After a longer one it fails."""
    unanswered: bool
    """Whether a call without an answer is sent again. It may then be carried out twice, so only callers that choose all
    names beforehand set this.
    """


class Tries:
    """The tries that are left to one call. This class does not sleep itself."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._pauses = iter(policy.pauses)
        self._renewed = False

    def renew(self, error: ClusterError) -> bool:
        """Whether to read the credentials again and send the request at once: only after the first 401."""
        first = isinstance(error, Unauthorized) and not self._renewed
        self._renewed = self._renewed or first
        return first

    def pause(self, error: ClusterError) -> float | None:
        """Seconds before the next try; None if the caller gets ``error``.

        After a 429 the API server has done nothing, so the call is tried again. Any other answer is final. A call that
        was too slow may still be carried out, so it is not tried again either.
        """
        if not isinstance(error, Unavailable) or isinstance(error, TooSlow):
            return None
        if error.status.code != 429 if error.status is not None else not self._policy.unanswered:
            return None
        pause, asked = next(self._pauses, None), error.retry_after or 0.0
        if pause is None or asked > self._policy.patience:
            return None
        return max(pause, asked) * random.uniform(1, 1.25)  # noqa: S311  # so that not all clients return at once
