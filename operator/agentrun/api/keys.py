"""The keys of what is executed: a step of a run, and a tool call of a step."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentrun.api.canonical import digest_of
from agentrun.api.texts import quoted


class StepKey(NamedTuple):
    """The key of what is run: a step, an item of its fan-out, or the compensation of either."""

    name: str
    index: int | None = None  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    compensate: bool = False

    @property
    def path(self) -> str:
        """The name of the folder in the journal: ``letter``, ``letter.3``, ``letter.3.compensate``."""
        item = "" if self.index is None else f".{self.index}"
        return f"{self.name}{item}{'.compensate' if self.compensate else ''}"

    @property
    def label(self) -> str:
        """The form that people write: ``letter``, ``letter[3]``, ``letter[3].compensate``."""
        item = "" if self.index is None else f"[{self.index}]"
        return f"{self.name}{item}{'.compensate' if self.compensate else ''}"

    @classmethod
    def parse(cls, text: str) -> StepKey:
        """Parse a ``path`` or a ``label``.

        Raises:
            ValueError: ``text`` is neither.
        """
        found = re.fullmatch(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)(?:\.([0-9]+)|\[([0-9]+)\])?(\.compensate)?", text)
        if not found:
            raise ValueError(f"{quoted(text)} is not a step: write NAME or NAME[INDEX]")
        index = found[3] or found[4]
        return cls(found[1], None if index is None else int(index), found[5] is not None)


class CallKey(NamedTuple):
    """The key of one tool call of a step. It is the same for every attempt and every try of the call."""

    step: StepKey
    call: str
    """The id of the call in the step's journal, such as ``2-0``: the first call of the second turn."""

    def idempotency_key(self, run: str) -> str:
        """The idempotency key of the call in the run with the uid ``run``: 32 hexadecimal digits.

        Every try of the call has the same, and no other call has it.
        """
        return digest_of([run, self.step.path, self.call]).removeprefix("sha256:")[:32]
