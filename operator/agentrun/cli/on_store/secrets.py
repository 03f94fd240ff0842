"""Checks before a run starts that the secrets its steps will use exist and can be sent in a request."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from agentrun.api.errors import Refused
from agentrun.api.tools import SecretKey, Tool
from agentrun.api.workflow import Model
from agentrun.runner.endpoint import HEADER_VARIABLES, KEY_VARIABLE
from agentrun.runner.ports import read_secret_file
from agentrun.runner.secrets import MissingSecret, header_value, read_secret
from agentrun.workflow.program import CompiledStep, Program
from agentrun.workflow.step_kinds import kind_of, secret_refs


def check_secrets(program: Program, folder: str | None, done: frozenset[str] = frozenset()) -> None:
    """Raise Refused if a step outside ``done`` uses a key that is missing, or that cannot be sent in a request."""
    wanted = {f"{key.name}/{key.key}": key for step in _steps(program, done) for key in _keys(program, step)}
    if wanted and folder is None:
        raise Refused(
            f"the workflow uses Secrets ({', '.join(wanted)}): give the folder that holds them with --secrets DIR"
        )
    missing = [name for name in wanted if _is_missing(Path(folder or "") / name)]
    if missing:
        raise Refused(
            f"{folder} does not hold {', '.join(missing)}: put each value into a file of that name, then try again"
        )
    unusable = [why for name, key in wanted.items() if (why := _unusable(folder or "", name, key))]
    if unusable:
        raise Refused("; ".join(unusable))
    for model in models(program, done):
        _check_key(model)


def doubtful_keys(program: Program, folder: str | None, done: frozenset[str] = frozenset()) -> Iterator[str]:
    """A line for each key that can be sent but does not look like a key."""
    wanted = {f"{key.name}/{key.key}": key for step in _steps(program, done) for key in _keys(program, step)}
    values = {f"{folder}/{name}": read_secret_file(folder or "", key) for name, key in wanted.items()}
    if any(model.credentials is None for model in models(program, done)):
        values[KEY_VARIABLE] = os.environ.get(KEY_VARIABLE, "")
    for what, value in values.items():
        text = value.strip()
        if text[:1] in ("'", '"') and len(text) > 1 and text[:1] == text[-1:]:
            yield f"{what} is in quotes, which are sent as part of it"
        elif text.lower().startswith("bearer "):
            yield f"{what} begins with {text[:6]}, which is then sent twice: store the bare token"
        elif " " in text:
            yield f"{what} contains a space"


def models(program: Program, done: frozenset[str] = frozenset()) -> list[Model]:
    """The models that the steps outside ``done`` use."""
    used = (step.model for step in _steps(program, done))
    return list({model.name: model for model in used if model is not None}.values())


def tools(program: Program, done: frozenset[str] = frozenset()) -> list[Tool]:
    """The tools that the steps outside ``done`` may call."""
    bodies = (body for step in _steps(program, done) for body in step.bodies)
    names = dict.fromkeys(name for body in bodies for name in kind_of(body).tools(body))
    return [program.tool(name) for name in names]


def reads_secrets(program: Program) -> bool:
    """Whether any step reads a Secret."""
    return any(True for step in _steps(program, frozenset()) for _ in _keys(program, step))


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _unusable(folder: str, name: str, key: SecretKey) -> str:
    """Why a step could not use the key; empty if it can."""
    try:
        read_secret(lambda wanted: read_secret_file(folder, wanted), key)
    except MissingSecret as error:
        cause = error.__cause__
        if isinstance(cause, UnicodeDecodeError):
            return f"{folder}/{name} is not text (UTF-8): put the bare value into it"
        return str(cause) if cause is not None else f"{folder}/{name}: {error}: put the bare value into it"
    return ""


def _check_key(model: Model) -> None:
    """Raise Refused if the model uses the API key of the environment and that is missing or cannot be sent, or if
    another variable for a header (``HEADER_VARIABLES``) cannot be sent.
    """
    for variable in HEADER_VARIABLES:
        try:
            if os.environ.get(variable, "").strip():
                header_value(os.environ[variable], variable)
        except MissingSecret as error:
            raise Refused(f"model {model.name}: {error}, or leave it out") from None
    if model.credentials is not None:
        return
    value = os.environ.get(KEY_VARIABLE, "")
    remedy = f"set {KEY_VARIABLE}, or give the model credentials: {{secretRef: {{name: …, key: …}}}}"
    if not value:
        raise Refused(f"model {model.name}: there is no API key; {remedy}")
    try:
        header_value(value, KEY_VARIABLE)
    except MissingSecret as error:
        raise Refused(f"model {model.name}: {error}; {remedy}") from None


def _keys(program: Program, step: CompiledStep) -> Iterator[SecretKey]:
    for body in step.bodies:
        yield from secret_refs(program.spec, body)


def _steps(program: Program, done: frozenset[str]) -> list[CompiledStep]:
    return [step for step in (*program.steps.values(), *program.finally_.values()) if step.name not in done]
