"""Reads and checks secret values when they are used. No message contains one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from agentrun.api.tools import SecretKey
from agentrun.api.workflow import WorkflowSpec
from agentrun.workflow.tool_kinds import secret_refs_of

SHORTEST_SECRET = 8
"""The fewest characters of a token that is masked in answers. Shorter ones would match by chance."""

Secrets = Callable[[SecretKey], str]
"""Reads a key of a Secret. Raises LookupError or OSError if it does not exist."""


class MissingSecret(Exception):
    """A Secret cannot be used. The message names it and says what to do; it never quotes the value."""


def read_secret(secret: Secrets, ref: SecretKey) -> str:
    """The value of ``ref``, in the form of ``header_value``.

    Raises:
        MissingSecret: the key does not exist, or its value cannot be used.
    """
    what = f"key {ref.key} of Secret {ref.name}"
    try:
        value = secret(ref)
    except (LookupError, OSError, UnicodeDecodeError) as error:
        raise MissingSecret(f"{what} cannot be read; create it, or correct secretRef") from error
    return header_value(value, what)


def header_value(value: str, what: str) -> str:
    """``value`` in a form that an HTTP header can carry.

    The line break that files and kubectl leave, and surrounding blanks, are removed. The characters are checked here,
    because the error of the HTTP library would quote the header.

    Raises:
        MissingSecret: ``value`` is empty, or has characters that are not valid in a header.
    """
    value = value.strip()
    if not value:
        raise MissingSecret(f"{what} is empty")
    if not (value.isascii() and value.isprintable()):
        message = "contains a line break or other characters that an HTTP header cannot carry; store the bare token"
        raise MissingSecret(f"{what} {message}")
    return value


def secrets_of(spec: WorkflowSpec, secret: Secrets) -> Iterator[str]:
    """The values of all Secrets that ``spec`` names and that this process can read. A pod has those of its own step."""
    refs = [ref for tool in spec.tools for ref in secret_refs_of(tool)]
    refs += [model.credentials.secret_ref for model in spec.models if model.credentials is not None]
    for ref in refs:
        with suppress(MissingSecret):
            yield read_secret(secret, ref)
