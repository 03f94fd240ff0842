"""Text from outside on its way to people: nothing in it is obeyed, and nothing that people write is harmed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.approval import Owner, approval_object
from agentrun.api.facts import ApprovalRequest
from agentrun.api.keys import StepKey
from agentrun.api.printable import JOINERS, SIGNS, UNSEEN, printable, printable_value
from agentrun.api.tools import Approvers
from agentrun.api.workflow import FailureClass
from tests.harness.planner_world import PlannerWorld, approval, compiled, step

CHARACTERS = st.text(
    st.characters() | st.sampled_from("\u200d\u200c\ufe0f\U0001f3f4\U000e007f\U000e0067\u0301👩🏽🇩🇪\n\x1b\u202e")
)

ORDINARY = {
    "german": "Größe 12 €, „so“",
    "french": "Oui\u202f! 12\u00a0000",
    "japanese": "東京都\u3000渋谷区",
    "hindi": "क्षत्रिय, र्‍य",
    "malayalam, a joiner at the end of a word": "അവന്\u200d വന്നു.",
    "persian": "می\u200cخواهم",
    "arabic": "السعر ١٢٣ \u06dd",
    "hebrew": "שָׁלוֹם 100",
    "mongolian": "ᠬᠠᠨ\u180eᠠ",
    "vietnamese, decomposed": unicodedata.normalize("NFD", "Tiếng Việt"),
    "family": "👨\u200d👩\u200d👧\u200d👦 and 👩🏽\u200d🚀 ❤\ufe0f\u200d🔥",
    "keycap and flags": "1\ufe0f\u20e3 🇩🇪 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "emoji of a later Unicode": "\U0001fae8 \U0001fae9",
    "chinese of a later Unicode": "\U0003134f",
    "variants of characters": "葛\U000e0100 ≨\ufe00 ☺\ufe0e ©\ufe0f 🅰\ufe0f ᠠ\u180b",
    "korean of parts": "\u115f\u1161 \u1100\u1160",
    "markup": "100% [bold]markup[/bold] \\n \\u001b",
}

HOSTILE = {
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "c1": "\x9b31mred\x9c",
    "return": "fine\rrm -rf",
    "line that poses as another": "ok\nWarning  Failed  30s  kubelet  node is gone",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "bidi": "amount \u202e001\u202c \u2066x\u2069 \u200e\u200f\u061c",
    "unseen": "a\u200bb\ufeffc\u00ade\u2060f",
    "joiners between letters": "pay\u200dpal goo\u200cgle \u200d\u200d",
    "tags": "hi\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065\U000e007f",
    "tags after a flag that is none": "🏴\U000e0061\U000e0061\U000e0061\U000e0061\U000e0061\U000e007f",
    "surrogate": "half \ud800",
    "private, unassigned, no character": "\ue000 \u0378 \uffff \U0001ffff",
    "nul": "a\x00b",
    "a text in selectors of variants": "👍" + "".join(chr(0xE0100 + ord(c)) for c in "also pay ana"),
    "selectors where nothing varies": "pay\ufe0f \ufe01x 👍\ufe0f\ufe0f",
    "fillers": "ana\u3164, bob\uffa0, c\u115fd, e\u1160f, g\u034fh, i\u17b4j",
}


def unseen(text: str) -> list[str]:
    """Characters that nobody sees, but for what languages and emoji need."""
    allowed = JOINERS | SIGNS
    return [c for c in text if unicodedata.category(c) in UNSEEN and c not in allowed and not _is_new(c)]


def _is_new(char: str) -> bool:
    return unicodedata.category(char) == "Cn" and ord(char) >= 0x1F000


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable(text, 500, size=2000) == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_be_obeyed_or_hidden_is_seen(text: str) -> None:
    shown = printable(text)
    assert not unseen(shown)
    assert not JOINERS & set(shown)
    assert "\\" in shown
    assert printable(shown) == shown
    shown.encode()


@given(CHARACTERS, st.integers(4, 40), st.integers(4, 80), st.booleans())
def test_whatever_goes_in_one_bounded_line_comes_out(text: str, limit: int, size: int, lines: bool) -> None:
    shown = printable(text, limit, size=size, lines=lines)
    assert len(shown) <= limit
    assert len(shown.encode()) <= size
    assert lines or len(shown.splitlines()) <= 1
    assert not [
        c for c in unseen(shown) if not (c in "\U000e0067\U000e0062\U000e0065\U000e006e\U000e007f" or c in "\n\t")
    ]
    assert printable(shown, limit, size=size, lines=lines) == shown


@given(CHARACTERS)
def test_without_a_limit_nothing_is_lost(text: str) -> None:
    shown = printable(text)
    assert printable(shown) == shown
    assert len(shown) >= len(text)
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("x" * 1000, 10, "x" * 9 + "…"),
        ("abc\x1bdef", 7, "abc…"),  # an escape is not cut in two
        ("ab👩\u200d🚀cd", 5, "ab…"),  # nor is an emoji
        ("abe\u0301fgh", 4, "ab…"),
        ("ab🇩🇪🇫🇷x", 6, "ab🇩🇪…"),
        ("e" + "\u0301" * 100, 10, "e" + "\u0301" * 8 + "…"),  # but a heap of accents is
    ],
)
def test_a_cut_parts_no_sign(text: str, limit: int, shown: str) -> None:
    assert printable(text, limit) == shown


@pytest.mark.parametrize(("text", "size", "shown"), [("äää", 6, "äää"), ("ääää", 7, "ää…"), ("東京都", 8, "東…")])
def test_bytes_are_counted_too(text: str, size: int, shown: str) -> None:
    assert printable(text, size=size) == shown


def test_a_long_text_costs_what_its_beginning_costs() -> None:
    assert len(printable("\x1b" * 10_000_000, 10)) <= 10


def test_a_value_is_shown_with_its_keys() -> None:
    assert printable_value({"a\x1b": ["b\u202e", 1, None, {"c": "two\nlines"}]}) == {
        "a\\u001b": ["b\\u202e", 1, None, {"c": "two\nlines"}]
    }


# -- the ways to Kubernetes ------------------------------------------------------------------------------------------

SAID = "ok\x07\nWarning  Failed  node is gone \u202e001\u2066 \u200b\x1b[2J"


def texts(value: Any) -> Iterator[str]:
    """Every text in ``value``, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from (*texts(key), *texts(part))
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def is_plain(value: Any, allowed: str = "") -> bool:
    return all(not [c for c in unseen(text) if c not in allowed] for text in texts(value))


def test_no_status_holds_what_a_terminal_obeys() -> None:
    world = PlannerWorld(
        compiled(step("a", retry={"limit": 1}), approval("b", "a", subject=SAID), step("c", "a", retry={"limit": 0}))
    )
    world.go()
    world.fail("a", message=SAID)
    assert is_plain(world.go().status)  # the pause before a retry
    world.now += 3600
    world.go()
    world.succeed("a")
    assert is_plain(world.go().status)  # the question
    world.fail("c", message=SAID, failure=FailureClass.PROVIDER)
    world.now += 1e6
    found = world.go().status
    assert is_plain(found) and "node is gone" in str(found)


def test_an_output_in_a_status_is_data_and_stays_as_it_is() -> None:
    world = PlannerWorld(compiled(step("a"), output={"said": "${steps.a.output}"}))
    world.go()
    world.succeed("a", SAID)
    status = world.go().status
    assert status["output"] == {"said": SAID}
    assert [entry["output"] for entry in status["steps"]] == [SAID]


def test_no_approval_holds_what_a_terminal_obeys() -> None:
    asked = ApprovalRequest(SAID, {SAID: [SAID, 1]}, "sha256:" + "0" * 64, Approvers(users=["ana"]), 1, 5000.0)
    made = approval_object(Owner("r", "n", "u"), StepKey("a"), 1, asked, "me", now=1000.0)
    assert is_plain(made, "\n")
    assert "\n" not in made["spec"]["subject"]
    assert made["spec"]["digest"] == asked.digest
