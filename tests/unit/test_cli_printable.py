from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.cli.printable import UNSEEN, document, printable, value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=10,
)
HOSTILE = {
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "link": "\x1b]8;;https://evil.example\x1b\\safe.example\x1b]8;;\x1b\\",
    "title": "\x1b]0;root@host\x07",
    "cursor": "\x1b[2A\x1b[2Kapproved by finance",
    "c1": "\x9b31mred\x9c",
    "return": "fine\rrm -rf",
    "bidi": "amount \u202e001\u202c \u2066x\u2069",
    "unseen": "a\u200bb\ufeffc\u2028d\U000e0041",
    "surrogate": "half \ud800",
}


def seen(text: str, allowed: str = "") -> bool:
    return all(unicodedata.category(c) not in UNSEEN or c in allowed for c in text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_shown_and_obeyed_by_nobody(text: str) -> None:
    assert seen(printable(text))
    assert seen(printable(text, lines=True), "\n\t")
    printable(text).encode()


def test_escapes_are_those_of_json() -> None:
    assert printable("\x1b]52;c;x\x07") == "\\u001b]52;c;x\\u0007"
    assert printable("\U000e0041") == "\\udb40\\udc41"
    assert printable("two\nlines\tand a tab") == "two\\nlines\\tand a tab"
    assert printable("two\nlines", lines=True) == "two\nlines"


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("Größe 12 €", "日本語", "naïve — “quotes”", "100% [bold]markup[/bold]", ""):
        assert printable(text) == text


def test_what_is_long_is_shortened_before_it_is_escaped() -> None:
    assert printable("x" * 1000, 10) == "x" * 9 + "…"
    assert len(printable("\x1b" * 1_000_000, 10)) <= 6 * 10
    assert value({"a": "b" * 500}, 20).endswith("…")


@given(st.text(st.characters()))
def test_nothing_unseen_is_ever_printed(text: str) -> None:
    assert seen(printable(text))
    assert seen(printable(text, lines=True), "\n\t")


@given(JSON)
def test_a_document_reads_as_the_json_that_it_was(found: Any) -> None:
    text = document(found)
    assert seen(text, "\n")
    assert json.loads(text) == json.loads(json.dumps(found))


def test_help_imports_nothing_that_takes_long() -> None:
    """What a person waits for when they only ask which verbs there are."""
    code = (
        "import sys\n"
        "from agentrun.cli.main import app\n"
        "app.main(['--help'], prog_name='agentrun', standalone_mode=False)\n"
        "heavy = {'pydantic', 'rich', 'boto3', 'openai', 'yaml', 'asyncio', 'httpx2', 'jsonschema_rs'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    assert "approve" in done.stdout
