"""Converts a step's history to the form of the API that the model is asked through.

The journal keeps each turn as it arrived. This module makes of it what an endpoint accepts: calls and results are
matched by ids that are distinct in the whole history, and each field has a valid form. The same entries always become
the same items, so that a resumed attempt sends the request that the attempt before it would have sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.call_names import NINE, Names
from agentrun.runner.dialect import Heard
from agentrun.runner.models import Item, ModelClient

LOST = "(no result is known)"
"""The result that is sent for a call that has none in the journal."""

_EMPTY_RESULT = "(empty)"


class History:
    """The items of a growing history. Entries that were converted before are not converted again."""

    def __init__(self, client: ModelClient, prompt: str) -> None:
        self._client, self._prompt = client, prompt
        self._begin()

    def items(self, entries: Sequence[dict[str, Any]]) -> list[Item]:
        """The whole history: the prompt, then ``entries`` as the fold keeps them."""
        if len(self._told) > len(entries) or not all(map(is_, self._told, entries)):  # it was compacted
            self._begin()
        for entry in entries[len(self._told) :]:
            self._told.append(entry)
            self._add(entry)
        self._close()
        return list(self._items)

    def _begin(self) -> None:
        self._told: list[dict[str, Any]] = []
        self._names = Names()
        self._items: list[Item] = [self._client.user(self._prompt)]
        self._open: dict[str, str] = {}
        """Calls without a result: from their id in the journal to the id that is sent."""
        self._order: list[str] = []
        self._ids: set[str] = set()

    def _add(self, entry: dict[str, Any]) -> None:
        if "results" in entry:
            for result in entry["results"]:
                name = self._name_of(result)
                if name is not None:
                    self._items.append(self._client.tool_result(name, result["tool"], result["output"]))
            return
        self._close()
        if "items" in entry:
            heard = heard_in(entry["items"])
            here = Names().of(call.id for call in heard.calls)
            sent = self._names.of(call.id for call in heard.calls)
            self._open, self._order = dict(zip(here, sent, strict=True)), here
            for item in in_form(self._client.api, entry["items"], heard, sent):
                self._items.append(self._once_named(item))
        else:
            self._items.append(self._client.user(entry["user"]))

    def _once_named(self, item: Item) -> Item:
        """``item``, without its id if an earlier item has the same: some gateways reuse ids in every turn."""
        name = item.get("id")
        if not isinstance(name, str) or name not in self._ids:
            self._ids.add(str(name))
            return item
        return responses_turn.without_id(item)

    def _name_of(self, result: dict[str, Any]) -> str | None:
        """The id that a result is sent with. If another version of agentrun named the call differently, the call is
        found by its position in the turn.
        """
        name = result["callId"]
        if name not in self._open:
            place = result["id"].rpartition("-")[2]
            name = self._order[int(place)] if place.isdigit() and int(place) < len(self._order) else ""
        return self._open.pop(name, None)

    def _close(self) -> None:
        for name in self._open.values():
            self._items.append(self._client.tool_result(name, "", LOST))
        self._open = {}


def _form_of(items: Sequence[Item]) -> str:
    """The API that a turn came from: a message of Chat Completions contains its calls and has no ``type``."""
    if any("tool_calls" in item or "function_call" in item for item in items):
        return "chat"
    return "chat" if items and all("type" not in item and "role" in item for item in items) else "responses"


def heard_in(items: Sequence[Item]) -> Heard:
    """The content of a recorded turn, from either API."""
    return chat_turn.heard_in(items) if _form_of(items) == "chat" else responses_turn.heard_in(items)


def in_form(api: str, items: Sequence[Item], heard: Heard, ids: Sequence[str]) -> list[Item]:
    """A recorded turn in the form of ``api``: nearly as it arrived if it came from that API, else in plainest form."""
    if _form_of(items) != api:
        return made(api, heard, ids)
    return chat_turn.back(items, heard, ids) if api == "chat" else responses_turn.back(items, heard, ids)


def made(api: str, heard: Heard, ids: Sequence[str]) -> list[Item]:
    """A turn in the plainest form of ``api``, whichever model it came from."""
    return chat_turn.made(heard, ids) if api == "chat" else responses_turn.made(heard, ids)


def plainest(api: str, items: Iterable[Item]) -> list[Item]:
    """A history of ``api`` for an endpoint that refuses another endpoint's fields, reasoning or ids."""
    names = Names(NINE)
    sent: list[Item] = []
    said: list[Item] = []
    open_calls: dict[str, str] = {}

    def speak() -> None:
        if said:
            heard = heard_in(said)
            ids = names.of(call.id for call in heard.calls)
            open_calls.update(zip((str(call.id) for call in heard.calls), ids, strict=True))
            sent.extend(made(api, heard, ids))
            said.clear()

    for item in items:
        key = "tool_call_id" if item.get("role") == "tool" else "call_id"
        value = "content" if item.get("role") == "tool" else "output"
        if item.get("role") == "tool" or item.get("type") == "function_call_output":
            speak()
            output = item[value] if str(item[value]).strip() else _EMPTY_RESULT
            sent.append({**item, key: open_calls.get(item[key], item[key]), value: output})
        elif item.get("role") in ("user", "system", "developer") and item.get("type") in (None, "message"):
            speak()
            sent.append(item)
        else:
            said.append(item)
    speak()
    return sent
