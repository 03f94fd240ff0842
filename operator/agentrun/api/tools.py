"""The tools of a workflow, as a person writes them, and what they share with its steps: Secrets, approvers, calls.

Annotations are not postponed (``from __future__``): pydantic would compile the text of each at start-up.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agentrun.api.values import Duration, Expression, Spec, Template, ToolName

SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DATA_KEY_PATTERN = r"^[-._a-zA-Z0-9]+$"
URL_PATTERN = r"^https?://[^\s]+$"

SOMEBODY = "give at least one user or group"

JsonSchema = Annotated[dict[str, Any], Field(max_length=1000)]
"""A JSON Schema, draft 2020-12, without references that leave the document."""


class Effect(StrEnum):
    """What calling a tool again would do. The delivery contract depends on it (docs/contract.md)."""

    READ_ONLY = "ReadOnly"
    IDEMPOTENT = "Idempotent"
    ONCE = "Once"


class SecretKey(Spec):
    """A key of a Secret in the run's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN_PATTERN)]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY_PATTERN)]


class SecretRef(Spec):
    """Where a secret value is read from. The value itself is never in a document."""

    secret_ref: SecretKey


class Bearer(Spec):
    """``Authorization: Bearer <secret>``."""

    bearer: SecretRef


class Http(Spec):
    """An HTTP request as a tool. ``${…}`` sees ``args``; ``output`` sees ``args`` and ``response``."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    url: Annotated[str, Field(min_length=8, max_length=2000, pattern=URL_PATTERN)]
    query: Annotated[dict[str, Template], Field(max_length=50)] = {}
    headers: Annotated[dict[str, Template], Field(max_length=50)] = {}
    body: Any = None
    auth: Bearer | None = None
    output: Expression | None = None
    max_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * 1024)] = 1024 * 1024
    timeout: Duration = "30s"


class Approvers(Spec):
    """Who may decide: any of these users, or any member of these groups."""

    users: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=50)] = []
    groups: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=50)] = []

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.users and not self.groups:
            raise ValueError(SOMEBODY)
        return self


class ToolApproval(Spec):
    """When a call of this tool needs an approval. Without ``when``, always."""

    when: Expression | None = None
    approvers: Approvers
    required: Annotated[int, Field(ge=1, le=10)] = 1
    timeout: Duration = "24h"


class Tool(Spec):
    """Something that agents and steps can call."""

    name: ToolName
    description: Annotated[str, Field(max_length=4096)] = ""
    effect: Effect = Effect.ONCE
    parameters: JsonSchema = {"type": "object"}
    approval: ToolApproval | None = None
    http: Http


class ToolCall(Spec):
    """A call of a named tool; strings in ``args`` are templates."""

    name: ToolName
    args: Annotated[dict[str, Any], Field(max_length=100)] = {}
