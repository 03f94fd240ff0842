"""By which id a call is answered, and which tool it names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentrun.api.values import JSON

ID_MAX = 65_536
"""Characters of a call's id: some gateways seal a thought into it, which has to come back."""

NAME_MAX = 200
"""Characters of a tool's name that are looked at: those of a workflow have 64 at most."""


class Names:
    """Ids by which calls are answered: what the endpoint gave, where that is one; else made up.

    Made-up ids go by the order of the calls alone, so that a resumed attempt makes up the same. They have nine letters
    and digits, the only form that every endpoint takes. ``given`` says which of the endpoint's own ids will do.
    """

    def __init__(self, given: str = rf"[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{{0,{ID_MAX - 1}}}") -> None:
        self._given = given
        self._taken: set[str] = set()
        self._made = 0

    def of(self, ids: Iterable[JSON]) -> list[str]:
        """The ids of one turn's calls, in order; each is distinct from those of every turn before."""
        found: list[str | None] = []
        for one in ids:
            usable = isinstance(one, str) and one not in self._taken and re.fullmatch(self._given, one)
            found.append(str(one) if usable else None)
            if usable:
                self._taken.add(str(one))
        return [one or self._make_up() for one in found]

    def _make_up(self) -> str:
        while True:
            name = f"call{self._made:05}"
            self._made += 1
            if name not in self._taken:
                self._taken.add(name)
                return name


NINE = r"[a-zA-Z0-9]{9}"
"""Ids that every endpoint takes."""


def tool_name(name: JSON) -> str:
    """The tool that is meant: without what templates leave around it."""
    if not isinstance(name, str):
        return ""
    return re.sub(r"^(?:functions|default_api|tools)[.:/]", "", name[:NAME_MAX].split("<|", 1)[0].strip())


def name_to_send(name: JSON) -> str:
    """``name`` as the history may hold it: also one that the model made up."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", tool_name(name))[:64] or "unnamed"
