"""Builds a step's pod with the operator's code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from agentrun.adapters.pods import PodSettings, build_pod
from agentrun.api.facts import Allowance
from agentrun.api.keys import StepKey
from agentrun.control.views import RunRef, RunView
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.plan.snapshot import Start
from agentrun.records.manifest import RunManifest
from tests.harness.planner_world import compiled

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"


SETTINGS = PodSettings(store_url="s3://bucket/agentrun", image="agentrun:1")


RUN = RunView(RunRef("support", "refund-4711"), UID, version=7, generation=1, created=0.0, finished=None)


RUN_PATH = RunPath("support", "refund-4711", UID.replace("-", ""))


def tool(name: str, secret: str | None = None, key: str = "token") -> dict[str, Any]:
    auth = {} if secret is None else {"auth": {"bearer": {"secretRef": {"name": secret, "key": key}}}}
    return {"name": name, "http": {"url": "http://tools.example/", **auth}}


MODEL = {"name": "main", "model": "gpt", "credentials": {"secretRef": {"name": "openai", "key": "api-key"}}}


TOOLS = [tool("look"), tool("pay", "payments"), tool("undo", "payments", "undo-token"), tool("note", "crm")]


def pinned(*steps: dict[str, Any], identity: str | None = None, **more: Any) -> PinnedRun:
    program = compiled(*steps, **({"models": [MODEL], "tools": TOOLS} | more))
    manifest = {"identity": {"serviceAccountName": identity}} if identity else {}
    return PinnedRun(RUN_PATH, cast("RunManifest", manifest), program)


def start(path: str = "refund", **fields: Any) -> Start:
    plain = Start(StepKey.parse(path), 1, {}, (), Allowance(), 600.0)
    return replace(plain, **fields)


REFUND: dict[str, Any] = {"name": "refund", "tool": {"name": "pay"}, "compensate": {"name": "undo"}}


def build(step: dict[str, Any] = REFUND, settings: PodSettings = SETTINGS, **fields: Any) -> dict[str, Any]:
    return build_pod(settings, RUN, pinned(step), start(**fields))
