"""What the rest of the runner knows of a tool, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agentrun.api.values import JSON


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a call came to.

    ``output`` is for the workflow, ``text`` for the model. ``status`` is the HTTP status, None where nothing was
    sent. ``is_error``: the tool said no, or its answer is of no use; the call is over either way.

    ``kept``: the call was carried out, and its answer cannot be used; this is what came of it, as a record holds it.
    """

    status: int | None
    output: JSON
    text: str
    is_error: bool = False
    kept: dict[str, JSON] | None = None


class ToolClient(Protocol):
    """One tool, ready to be called. Making it opens nothing. Tasks may share it."""

    async def call(
        self,
        args: dict[str, JSON],
        about: Mapping[str, JSON] | None = None,
        *,
        idempotency_key: str | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> ToolOutput:
        """Call the tool with ``args``, which fit its parameters; ``about`` holds ``inputs`` and ``run``.

        A ``Once`` tool is called exactly once; another may be tried again, with the same ``idempotency_key``. The
        tool's own timeout bounds each try, and the caller bounds the whole. ``before_send`` is asked when nothing has
        been sent and everything else is ready; what it raises ends the call. Cancellation gives the call up; it may
        have been carried out.

        Raises:
            Failure: of class Tool, where there is no answer that says what came of the call. Its ``happened`` says
                whether the call may have been carried out.
        """
        ...

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        ...
