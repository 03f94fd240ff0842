"""``local.store_calls``: a driver waits for a store that is out of reach, tells why, and gives up in the end."""

from __future__ import annotations

import pytest

from agentrun.local import store_calls
from agentrun.local.store_calls import patiently
from agentrun.store.protocol import StoreError, StoreUnavailable


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of no length."""
    monkeypatch.setattr(store_calls, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(store_calls, "LONGEST_PAUSE", 0.0)


class Answers:
    """A call of a store that gives the ``answers`` in turn, the last one for ever; an error is raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[object] = []

    def __call__(self, key: str) -> object:
        self.asked.append(key)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_call_is_made_again_until_the_store_answers() -> None:
    said: list[str] = []
    call = Answers(StoreUnavailable("no route"), StoreUnavailable("full"), "found")

    assert await patiently(said.append, call, "key") == "found"

    assert call.asked == ["key"] * 3
    assert said == [f"store out of reach, trying again: {why}" for why in ("no route", "full")]


async def test_a_store_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_calls, "STORE_PATIENCE", 0.0)

    with pytest.raises(StoreUnavailable, match="no route"):
        await patiently(lambda _: None, Answers(StoreUnavailable("no route")), "key")


async def test_another_error_of_the_store_is_raised_at_once() -> None:
    call = Answers(StoreError("no such bucket"))

    with pytest.raises(StoreError, match="no such bucket"):
        await patiently(lambda _: pytest.fail("nothing is tried again"), call, "key")

    assert call.asked == ["key"]
