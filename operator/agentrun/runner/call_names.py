"""The ids and tool names of a model's calls, in a form that endpoints accept."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentrun.api.values import JSON

ID_MAX = 65_536
"""The most characters of a call's id. Some gateways put encrypted reasoning into it, which has to be sent back."""

NAME_MAX = 200
"""Characters of a tool's name that are read. Names in a workflow have at most 64."""


class Names:
    """The ids that results refer to: the endpoint's own id if it is usable, else a generated one.

    Generated ids depend only on the order of the calls, so that a resumed attempt generates the same. They have nine
    letters and digits, the only form that every endpoint accepts. ``given`` is the pattern of usable ids.
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
"""The pattern of ids that every endpoint accepts."""


def tool_name(name: JSON) -> str:
    """The name of the tool, without the prefixes and marks that templates leave."""
    if not isinstance(name, str):
        return ""
    return re.sub(r"^(?:functions?|default_api|tools)[.:/]|:\d+$", "", name[:NAME_MAX].split("<|", 1)[0].strip())


def name_to_send(name: JSON) -> str:
    """``name`` in a form that is valid in a history, even if the model invented it."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", tool_name(name))[:64] or "unnamed"
