"""Opens a tool's client by the tool's kind. No other module of the runner depends on the kind."""

from __future__ import annotations

from agentrun.api.tools import Http, Tool
from agentrun.runner.secrets import Secrets
from agentrun.runner.tool_client import ToolClient
from agentrun.workflow.tool_kinds import body_of


def open_tool(tool: Tool, secret: Secrets) -> ToolClient:
    """A client of ``tool``. It reads the Secrets of its calls through ``secret``."""
    match body_of(tool):
        case Http():
            from agentrun.runner.http_tool import HttpTool  # noqa: PLC0415  (lazy: an agent asks its model first)

            return HttpTool(tool, secret)
