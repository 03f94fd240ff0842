from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentrun.cli.printable import document, printable, value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=10,
)


def test_escapes_are_those_of_json() -> None:
    assert printable("\x1b]52;c;x\x07") == "\\u001b]52;c;x\\u0007"
    assert printable("\U000e0041") == "\\udb40\\udc41"
    assert printable("two\nlines\tand a tab") == "two\\nlines\\tand a tab"
    assert printable("two\nlines", lines=True) == "two\nlines"


def test_what_is_long_is_shortened() -> None:
    assert value({"a": "b" * 500}, 20).endswith("…")


@given(JSON)
def test_a_document_reads_as_the_json_that_it_was(found: Any) -> None:
    text = document(found)
    assert printable(text, lines=True) == text
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
