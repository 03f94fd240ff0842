"""Workflows whose problems are found before they run."""

from __future__ import annotations

from typing import Any

from agentrun.api.errors import InvalidDocument, dotted
from agentrun.api.workflow import WorkflowSpec
from agentrun.workflow.lint import checked_program
from agentrun.workflow.program import compile_program
from tests.harness.planner_world import MODEL

CLOSED: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["orderId"],
    "properties": {
        "orderId": {"type": "string"},
        "note": {"type": ["string", "null"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "to": {"$ref": "#/$defs/address", "description": "where to"},
        "open": {"type": "object"},
        "any": {},
        "either": {"anyOf": [{"type": "string"}, {"type": "object"}]},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}]},
        "named": {"type": "object", "additionalProperties": {"type": "string"}},
        "matched": {"type": "object", "additionalProperties": False, "patternProperties": {"^x": {}}},
    },
    "$defs": {
        "line": {"type": "object", "additionalProperties": False, "properties": {"sku": {"type": "string"}}},
        "address": {"type": "object", "additionalProperties": False, "properties": {"city": {"type": "string"}}},
    },
}
PAY: dict[str, Any] = {
    "name": "pay",
    "parameters": {
        "type": "object",
        "additionalProperties": False,
        "required": ["amount"],
        "properties": {
            "amount": {"type": "number", "minimum": 1},
            "currency": {"enum": ["EUR", "USD"]},
            "to": {
                "type": "object",
                "required": ["iban"],
                "properties": {"iban": {"type": "string", "pattern": "^DE"}},
            },
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "if": {"properties": {"currency": {"const": "USD"}}, "required": ["currency"]},
        "then": {"required": ["tags"]},
    },
    "http": {"url": "http://pay.example/"},
}
OPEN: dict[str, Any] = {
    "name": "open",
    "http": {"url": "http://open.example/${args.id}", "query": {"q": "${has(args.q) ? args.q : ''}"}},
}


def spec(*steps: dict[str, Any], **more: Any) -> WorkflowSpec:
    base = {"models": [MODEL], "tools": [PAY, OPEN], "inputs": CLOSED}
    return WorkflowSpec.model_validate(base | {"steps": list(steps)} | more)


def problems(*steps: dict[str, Any], **more: Any) -> list[str]:
    found = spec(*steps, **more)
    compile_program(found)  # what was taken once stays readable
    try:
        checked_program(found)
    except InvalidDocument as error:
        return [f"{dotted(problem.path)}: {problem.message}" for problem in error.problems]
    return []


def paying(args: dict[str, Any], name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "tool": {"name": "pay", "args": args}, **more}
