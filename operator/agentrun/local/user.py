"""The person who works on this machine."""

from __future__ import annotations

import getpass
import os


def user() -> str:
    """The operating system's user. Nobody vouches for it, so decisions on one machine are recorded as unverified."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # a user id without a name, as in a container
