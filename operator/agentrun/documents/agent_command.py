"""Checks an AgentCommand that the API server sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agentrun.api.bounds import too_large
from agentrun.api.canonical import moment
from agentrun.api.command import PAYLOAD_MAX, AgentCommandSpec, Command
from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.labels import REQUESTED_BY
from agentrun.documents.problems import problems_in


def read_command(obj: Mapping[str, Any]) -> Command:
    """Check an AgentCommand from the API server again: the CRD there may be of another version.

    Raises:
        InvalidDocument: with the problems of the object.
    """
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    source = f"AgentCommand {name}"
    if not isinstance(metadata, Mapping) or not all(
        isinstance(metadata.get(field), str) for field in ("name", "namespace", "uid", "creationTimestamp")
    ):
        problem = Problem(("metadata",), "must have name, namespace, uid and creationTimestamp, as an API server gives")
        raise InvalidDocument([problem], source)
    try:
        at = moment(metadata["creationTimestamp"])
    except ValueError:
        problem = Problem(("metadata", "creationTimestamp"), "must be an instant of RFC 3339")
        raise InvalidDocument([problem], source) from None
    spec = _checked(obj.get("spec"), source)
    verb = spec.signal or spec.resume or spec.resolve
    assert verb is not None  # the model's own rule
    annotations = metadata.get("annotations")
    requester = annotations.get(REQUESTED_BY) if isinstance(annotations, Mapping) else None
    return Command(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        at=at,
        requested_by=requester if isinstance(requester, str) and requester else None,
        run=spec.run.name,
        run_uid=spec.run.uid,
        verb=verb,
    )


def _checked(value: Any, source: str) -> AgentCommandSpec:
    if problem := too_large(value):
        raise InvalidDocument([Problem(("spec",), problem)], source)
    try:
        spec = AgentCommandSpec.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = problems_in(error, AgentCommandSpec)
        raise InvalidDocument([Problem(("spec", *p.path), p.message) for p, _ in found], source) from None
    given: dict[Path, Any] = {}
    if spec.signal is not None:
        given["spec", "signal", "payload"] = spec.signal.payload
    if spec.resolve is not None and spec.resolve.happened is not None:
        given["spec", "resolve", "happened", "result"] = spec.resolve.happened.result
    for path, found in given.items():
        if len(json.dumps(found)) > PAYLOAD_MAX:
            message = f"is larger than {PAYLOAD_MAX // 1024} KiB: send a reference to it instead"
            raise InvalidDocument([Problem(path, message)], source)
    return spec
