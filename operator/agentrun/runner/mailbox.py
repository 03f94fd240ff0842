"""What reaches an attempt while it works.

The process puts messages in: from signals, and from the end of standard input. The attempt reads them between two
calls, where its journal says all that it has done.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Mailbox:
    """The messages to one attempt."""

    asked_to_leave: bool = False
    """Whether the attempt has to commit what it has, and end."""
