"""Secret values at the moment they are used: read, checked, and never kept in a message."""

from __future__ import annotations

from collections.abc import Callable

from agentrun.api.workflow import SecretKey

SHORTEST_SECRET = 8
"""Characters from which on a token is looked for in answers; anything shorter would be found by chance."""

Secrets = Callable[[SecretKey], str]
"""Reads a key of a Secret; raises LookupError or OSError where there is none."""


class MissingSecret(Exception):
    """A Secret cannot be used; the message names it and says what to do, and never quotes the value."""


def read_secret(secret: Secrets, ref: SecretKey) -> str:
    """The value of ``ref`` as an HTTP header can carry it, without the newline that files and kubectl leave behind.

    Raises:
        MissingSecret: there is none, it is empty, or it has characters that no header takes.
    """
    what = f"key {ref.key} of Secret {ref.name}"
    try:
        value = secret(ref).strip()  # blanks too: h11 quotes a header that begins or ends with one
    except (LookupError, OSError, UnicodeDecodeError) as error:
        raise MissingSecret(f"{what} cannot be read; create it, or correct secretRef") from error
    if not value:
        raise MissingSecret(f"{what} is empty")
    if not (value.isascii() and value.isprintable()):
        message = "holds a line break or other characters that no HTTP header takes; store the bare token"
        raise MissingSecret(f"{what} {message}")
    return value
