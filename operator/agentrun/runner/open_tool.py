"""The client of a tool, by the tool's kind: the runner's one look at it."""

from __future__ import annotations

from agentrun.api.workflow import Http, Tool
from agentrun.runner.http_tool import HttpTool
from agentrun.runner.secrets import Secrets
from agentrun.runner.tool_client import ToolClient
from agentrun.workflow.tool_kinds import body_of


def open_tool(tool: Tool, secret: Secrets) -> ToolClient:
    """A client of ``tool``, which reads the Secrets that its calls need from ``secret``."""
    match body_of(tool):
        case Http():
            return HttpTool(tool, secret)
