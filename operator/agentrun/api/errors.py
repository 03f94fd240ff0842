"""Errors for a person at the command line: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""A place in a document: ``("spec", "steps", 1, "when")``."""


def dotted(path: Path) -> str:
    """``path`` as people write it: ``spec.steps[1].when``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document; the message says what to do about it."""

    path: Path
    message: str


class AgentrunError(Exception):
    """Base of every error whose message is meant for the person at the command line."""


class Refused(AgentrunError):
    """The command is not possible in the present state. Nothing was written."""


class InvalidDocument(AgentrunError):
    """A file or an object is invalid. Nothing was started and nothing was written.

    ``problems`` is never empty. ``source`` names the file. ``lines`` has the 1-based line numbers of the paths for
    which they are known.
    """

    def __init__(self, problems: Sequence[Problem], source: str = "", lines: dict[Path, int] | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        self.lines = lines or {}
        super().__init__("\n".join(self.describe()))

    def describe(self) -> list[str]:
        """One line per problem: ``file:line: path: message``. The line is that of the nearest known parent."""
        found = []
        for problem in self.problems:
            line = next(
                (
                    self.lines[problem.path[:n]]
                    for n in range(len(problem.path), -1, -1)
                    if problem.path[:n] in self.lines
                ),
                None,
            )
            place = self.source + (f":{line}" if line else "")
            found.append(": ".join(part for part in (place, dotted(problem.path), problem.message) if part))
        return found
