"""Answers of both APIs, as a turn is read from them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from agentrun.runner import chat_turn, responses_turn
from agentrun.runner.models import Turn

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def chat(message: Any, finish: Any = "stop", **more: Any) -> Turn:
    return chat_turn.read_turn({"choices": [{"message": message, "finish_reason": finish, **more}]})


def responses(*items: Any, **more: Any) -> Turn:
    return responses_turn.read_turn({"status": "completed", "output": [*items], **more})
