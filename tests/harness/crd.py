"""Checks an object against a CRD's schema and rules without an API server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cel_expr_python import cel


def closed(node: dict[str, Any]) -> dict[str, Any]:
    """The schema in the form for strict field validation: fields that it does not have are rejected."""
    made = dict(node)
    if "properties" in made:
        made["properties"] = {key: closed(child) for key, child in made["properties"].items()}
        made["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = closed(made[key])
    return made


_ENV = cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


def holds(rule: str, value: Any, old: Any = None) -> bool:
    found = _ENV.compile(rule).eval(data={"self": value, "oldSelf": old}).plain_value()
    assert isinstance(found, bool), (rule, found)
    return found


def violations(node: dict[str, Any], value: Any) -> Iterator[str]:
    """The messages of the CEL rules and list types that ``value`` violates when it is created."""
    for rule in node.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not holds(rule["rule"], value):
            yield rule["message"]
    match value:
        case dict():
            for key, child in value.items():
                yield from violations(node.get("properties", {}).get(key, {}), child)
        case list():
            keys = node.get("x-kubernetes-list-map-keys")
            listed = [[item[key] for key in keys] if keys else item for item in value]
            if node.get("x-kubernetes-list-type") in ("map", "set"):
                yield from ("duplicate" for n, item in enumerate(listed) if item in listed[:n])
            for child in value:
                yield from violations(node.get("items", {}), child)
        case _:
            pass
