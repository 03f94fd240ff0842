"""The interface of a tool's client, for every kind of tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agentrun.api.values import JSON


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The result of a call.

    ``output`` is for the workflow, ``text`` for the model. ``status`` is the HTTP status; None if
    nothing was sent, or the kind of tool has none.
    ``is_error``: the tool answered with an error, or its answer cannot be used. The call is over in both cases.

    ``kept`` is set if the call was carried out but its answer cannot be used: what arrived of the answer, in the form
    of a record.
    """

    status: int | None
    output: JSON
    text: str
    is_error: bool = False
    kept: dict[str, JSON] | None = None


class ToolClient(Protocol):
    """One tool, ready to be called. Creating a client opens no connection. Tasks may share it."""

    async def call(
        self,
        args: dict[str, JSON],
        about: Mapping[str, JSON] | None = None,
        *,
        idempotency_key: str | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> ToolOutput:
        """Call the tool with ``args``, which fit its parameters; ``about`` holds ``inputs`` and ``run``.

        A ``Once`` tool is tried exactly once; any other may be tried again, with the same ``idempotency_key``. The
        tool's timeout limits each try, and the caller limits the whole call. ``before_send`` is called when everything
        is ready and nothing has been sent; an exception that it raises ends the call. Cancellation abandons the call,
        which may have been carried out.

        Raises:
            Failure: of class Tool: no answer tells the result of the call. Its ``happened`` says whether the call may
                have been carried out.
        """
        ...

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        ...
