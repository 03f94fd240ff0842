"""When an attempt is followed by another: pure rules for the runner (is this the end?) and the planner (when?)."""

from __future__ import annotations

from agentrun.api.facts import FailureInfo
from agentrun.api.values import DELAY_MAX, seconds
from agentrun.api.workflow import FailureClass, Retry

LOSSES_MAX = 5
"""Attempts in a row that may be lost without any progress before the step is parked for a person."""


def retries(retry: Retry, failure: FailureInfo, failures: int) -> bool:
    """Whether the ``failures``-th failure of a step (from 1) is followed by another attempt.

    ``Unknown``, ``Rejected``, ``Budget`` and ``Timeout`` never are: trying again would not change them,
    or would repeat an effect.
    """
    return failure.retryable and str(failure.failure_class) in retry.classes and failures <= retry.limit


def retry_delay(retry: Retry, failures: int, retry_after: float | None = None) -> float:
    """Seconds from the ``failures``-th failure to the next attempt; at least ``retry_after``, at most ``DELAY_MAX``."""
    backoff = retry.backoff
    # The exponent is bounded so that a long life of failures cannot overflow a float.
    delay = min(seconds(backoff.initial) * backoff.factor ** min(failures - 1, 300), seconds(backoff.max))
    return min(max(delay, retry_after or 0.0), DELAY_MAX)


def loss_delay(losses: int) -> float:
    """Seconds before an attempt follows one that was lost: at once, then 1, 2, 4 … 30."""
    return 0.0 if losses == 0 else min(2.0 ** (losses - 1), 30.0)


def loss_is_final(retry: Retry, losses: int) -> bool:
    """Whether a step after ``losses`` in a row fails (``retry.classes`` has Infrastructure) instead of being parked."""
    return FailureClass.INFRASTRUCTURE in retry.classes and losses > LOSSES_MAX + retry.limit
