"""Dispatches an attempt on the kind of its step. No other module of the runner does."""

from __future__ import annotations

from typing import Any

from agentrun.api.tools import ToolCall
from agentrun.api.workflow import Agent
from agentrun.runner.attempt import Attempt


async def work(attempt: Attempt) -> dict[str, Any]:
    """Do the step's work. Return the body of the ``closed`` record, without the outcome.

    Raises:
        Parked, Closed, Failure: see the module of the kind.
    """
    match attempt.body:
        case Agent() as agent:
            from agentrun.runner.agent import run_agent_step  # noqa: PLC0415  (lazy: a tool step needs no model)

            return await run_agent_step(attempt, agent)
        case ToolCall() as call:
            from agentrun.runner.tool_step import run_tool_step  # noqa: PLC0415  (lazy: an agent step does not need it)

            return await run_tool_step(attempt, call)
