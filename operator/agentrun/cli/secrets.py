"""Are the Secrets there that a run will read? Asked before it starts, not when the payment is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agentrun.api.workflow import SecretKey, Step
from agentrun.cli.failures import Refused
from agentrun.plan.program import Program, model_of


def check_secrets(program: Program, folder: str | None, done: frozenset[str] = frozenset()) -> None:
    """Raise Refused where a step that is not in ``done`` reads a Secret that is not in ``folder``."""
    steps = [s.spec for s in (*program.steps.values(), *program.finally_.values()) if s.name not in done]
    wanted = {f"{key.name}/{key.key}": None for step in steps for key in _keys(program, step)}
    missing = [name for name in wanted if folder is None or not (Path(folder) / name).is_file()]
    if not missing:
        return
    names = ", ".join(missing)
    if folder is None:
        raise Refused(f"the workflow reads Secrets ({names}): give the folder that holds them with --secrets DIR")
    raise Refused(f"{folder} does not hold {names}: put each value into a file of that name, then try again")


def reads_secrets(program: Program) -> bool:
    """Whether some step reads a Secret."""
    steps = (*program.steps.values(), *program.finally_.values())
    return any(True for step in steps for _ in _keys(program, step.spec))


def _keys(program: Program, step: Step) -> Iterator[SecretKey]:
    calls = [call.name for call in (step.tool, step.compensate) if call is not None]
    if step.agent is not None:
        calls += step.agent.tools
        model = model_of(program.spec, step)
        if model is not None and model.credentials is not None:
            yield model.credentials.secret_ref
    for name in calls:
        auth = program.tool(name).http.auth
        if auth is not None:
            yield auth.bearer.secret_ref
