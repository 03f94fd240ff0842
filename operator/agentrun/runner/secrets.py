"""Secret values at the moment they are used: read, checked, and never kept in a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from agentrun.api.workflow import SecretKey, WorkflowSpec
from agentrun.workflow.tool_kinds import secret_refs_of

SHORTEST_SECRET = 8
"""Characters from which on a token is looked for in answers; anything shorter would be found by chance."""

Secrets = Callable[[SecretKey], str]
"""Reads a key of a Secret; raises LookupError or OSError where there is none."""


class MissingSecret(Exception):
    """A Secret cannot be used; the message names it and says what to do, and never quotes the value."""


def read_secret(secret: Secrets, ref: SecretKey) -> str:
    """The value of ``ref``, as ``header_value`` gives it.

    Raises:
        MissingSecret: there is none, or it cannot be used.
    """
    what = f"key {ref.key} of Secret {ref.name}"
    try:
        value = secret(ref)
    except (LookupError, OSError, UnicodeDecodeError) as error:
        raise MissingSecret(f"{what} cannot be read; create it, or correct secretRef") from error
    return header_value(value, what)


def header_value(value: str, what: str) -> str:
    """``value`` as an HTTP header can carry it: without the line break that files and kubectl leave behind, and without
    blanks around it, since the HTTP library quotes a header that it does not take.

    Raises:
        MissingSecret: it is empty, or has characters that no header takes.
    """
    value = value.strip()
    if not value:
        raise MissingSecret(f"{what} is empty")
    if not (value.isascii() and value.isprintable()):
        message = "holds a line break or other characters that no HTTP header takes; store the bare token"
        raise MissingSecret(f"{what} {message}")
    return value


def secrets_of(spec: WorkflowSpec, secret: Secrets) -> Iterator[str]:
    """Every value of a Secret that ``spec`` names and that is at hand: a pod has those of its own step."""
    refs = [ref for tool in spec.tools for ref in secret_refs_of(tool)]
    refs += [model.credentials.secret_ref for model in spec.models if model.credentials is not None]
    for ref in refs:
        with suppress(MissingSecret):
            yield read_secret(secret, ref)
