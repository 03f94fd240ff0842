"""Dividing a run's budget among the attempts that run at the same time.

An attempt gets an allowance when it starts and reserves from it before each call, so the budget holds without any
communication between pods. When the attempt ends, the unused part is free again.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from agentrun.api.facts import Allowance, Usage

_UNBOUNDED = {last: Allowance(last=last) for last in (True, False)}


def free(budget: Allowance, used: Iterable[Usage], held: Iterable[Allowance]) -> Allowance:
    """The part of ``budget`` that was neither used nor is held by running attempts."""
    spent = Usage.total(used)
    holders = list(held)

    def left(total: int | None, gone: int, holds: list[int | None]) -> int | None:
        return None if total is None else max(0, total - gone - sum(h or 0 for h in holds))

    cost = None
    if budget.cost_usd is not None:
        gone = spent.cost_usd + sum((h.cost_usd or Decimal(0) for h in holders), Decimal(0))
        cost = max(Decimal(0), budget.cost_usd - gone)
    return Allowance(
        left(budget.model_calls, spent.model_calls, [h.model_calls for h in holders]),
        left(budget.tokens, spent.tokens, [h.tokens for h in holders]),
        left(budget.tool_calls, spent.tool_calls, [h.tool_calls for h in holders]),
        cost,
        last=not holders,
    )


def share(rest: Allowance, among: int) -> Allowance:
    """An equal part of ``rest`` for the first of ``among`` attempts that start together; at least one call."""
    last = rest.last and among == 1
    if _is_unbounded(rest):
        return _UNBOUNDED[last]

    def part(total: int | None) -> int | None:
        return None if total is None else min(total, max(1, total // among))

    return Allowance(
        part(rest.model_calls),
        part(rest.tokens),
        part(rest.tool_calls),
        None if rest.cost_usd is None else rest.cost_usd / among,
        last=last,
    )


def less(rest: Allowance, taken: Allowance) -> Allowance:
    """``rest`` after ``taken`` was handed out of it."""
    if _is_unbounded(rest):
        return _UNBOUNDED[False]

    def minus(total: int | None, gone: int | None) -> int | None:
        return None if total is None else total - (gone or 0)

    cost = None if rest.cost_usd is None else rest.cost_usd - (taken.cost_usd or Decimal(0))
    return Allowance(
        minus(rest.model_calls, taken.model_calls),
        minus(rest.tokens, taken.tokens),
        minus(rest.tool_calls, taken.tool_calls),
        cost,
        last=False,
    )


def _is_unbounded(rest: Allowance) -> bool:
    """Whether there is nothing to divide, as in most runs. Then a thousand steps that begin at once need no count."""
    return rest.model_calls is None and rest.tokens is None and rest.tool_calls is None and rest.cost_usd is None
