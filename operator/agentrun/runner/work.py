"""What an attempt's process does, by the kind of its step: the runner's one look at it."""

from __future__ import annotations

from typing import Any

from agentrun.api.workflow import Agent, ToolCall
from agentrun.runner.attempt import Attempt


async def work(attempt: Attempt) -> dict[str, Any]:
    """Do what the attempt is for; the body of its ``closed`` record, without the outcome.

    Raises:
        Parked, Closed, Failure: as the kind's own module says.
    """
    match attempt.body:
        case Agent() as agent:
            from agentrun.runner.agent import run_agent_step  # noqa: PLC0415  (lazy: a tool step needs no model)

            return await run_agent_step(attempt, agent)
        case ToolCall() as call:
            from agentrun.runner.tool_step import run_tool_step  # noqa: PLC0415  (lazy: an agent step needs no such)

            return await run_tool_step(attempt, call)
