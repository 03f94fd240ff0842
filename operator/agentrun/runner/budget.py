"""Reserves from the attempt's allowance before each call, so that a budget is not exceeded.

The allowance is this attempt's part of the run's budget. What the step spent before is already subtracted from it.
"""

from __future__ import annotations

from decimal import Decimal

from agentrun.api.canonical import canonical
from agentrun.api.facts import Usage
from agentrun.api.values import money
from agentrun.api.workflow import Agent, FailureClass, Model, Price
from agentrun.runner.attempt import Attempt
from agentrun.runner.failures import Failure
from agentrun.runner.outcomes import Parked

MILLION = Decimal(1_000_000)
OUTPUT_MIN = 16
"""The fewest tokens of answer that a request is made for. The Responses API refuses fewer."""

BYTES_PER_TOKEN = 3
"""A cautious estimate for text that no model has counted yet. Real ratios are nearer to 4."""


def cost(price: Price | None, input_tokens: int, cached: int, output_tokens: int) -> Decimal:
    """The USD that one call costs; 0 if the model has no price."""
    if price is None:
        return Decimal(0)
    cached_price = money(price.cached_input) if price.cached_input is not None else money(price.input)
    whole = money(price.input) * (input_tokens - cached) + cached_price * cached + money(price.output) * output_tokens
    return whole / MILLION


def spent(attempt: Attempt) -> Usage:
    """What this attempt has spent of its allowance."""
    now, before = Usage.from_json(attempt.state.usage), Usage.from_json(attempt.spent_before)
    return Usage(
        now.model_calls - before.model_calls,
        now.input_tokens - before.input_tokens,
        0,
        now.output_tokens - before.output_tokens,
        now.tool_calls - before.tool_calls,
        now.cost_usd - before.cost_usd,
    )


def short_of_tool_calls(attempt: Attempt) -> str | None:
    """``toolCalls`` if the allowance does not cover one more tool call, else None."""
    most = attempt.spec.start.allowance.tool_calls
    return "toolCalls" if most is not None and spent(attempt).tool_calls + attempt.uncounted >= most else None


def over_budget(attempt: Attempt, what: str) -> Parked | Failure:
    """The exception that ends an attempt whose allowance of ``what`` does not cover the next call.

    Parked if other attempts may still return what they do not use; a Failure if nothing more can come.
    """
    if not attempt.spec.start.allowance.last:
        return Parked({"budget": what})
    message = f"the run's budget of {what} does not cover the next call"
    return Failure(FailureClass.BUDGET, message, retryable=False, happened="no")


def reserve_model(attempt: Attempt, agent: Agent, model: Model, expected_input: int) -> int | None:
    """Check that the allowance covers a model call with about ``expected_input`` tokens.

    Return how many tokens its answer may have; None if only the model limits it.

    Raises:
        Parked, Failure: see ``over_budget``.
    """
    allowance = attempt.spec.start.allowance
    used = spent(attempt)
    limits = [agent.max_output_tokens] if agent.max_output_tokens is not None else []
    if allowance.model_calls is not None and used.model_calls >= allowance.model_calls:
        raise over_budget(attempt, "modelCalls")
    if allowance.tokens is not None:
        limits.append(allowance.tokens - used.tokens - expected_input)
    if allowance.cost_usd is not None and model.price is not None:
        left = allowance.cost_usd - used.cost_usd - cost(model.price, expected_input, 0, 0)
        price = money(model.price.output)
        if price > 0:
            limits.append(int(left * MILLION / price))
        elif left < 0:
            limits.append(0)
    if limits and min(limits) < OUTPUT_MIN:
        raise over_budget(attempt, "tokens" if allowance.tokens is not None else "costUSD")
    bound = min(limits, default=None)
    # An answer is never longer than the window. A larger limit has no meaning, and APIs refuse it.
    return None if bound is not None and bound >= model.context_window else bound


def estimate(value: object) -> int:
    """About how many tokens ``value`` takes in a request."""
    return len(canonical(value)) // BYTES_PER_TOKEN + 1
