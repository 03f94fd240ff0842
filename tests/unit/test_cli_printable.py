from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun
from agentrun.api.printable import printable
from agentrun.cli.__main__ import main
from agentrun.query.texts import document, value

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


def test_an_interrupt_while_modules_are_imported_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who thinks better of it in the first half second saw a traceback."""

    class Interrupted:
        def __getattr__(self, _: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "agentrun.cli.main", Interrupted())
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130


def test_what_pythonpath_leads_to_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps heed no such variable, so the command and its steps would see two different libraries."""
    here, there = tmp_path / "here", tmp_path / "there"
    ours, libraries = str(Path(agentrun.__file__).parents[1]), str(Path(click.__file__).parents[1])
    for folder in (here, there):
        folder.mkdir()
    ran = []
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(there), ".", ours, libraries]))
    monkeypatch.setattr(sys, "path", ["", str(here), str(there), f"{there}/../there", ours, libraries])
    monkeypatch.setitem(sys.modules, "agentrun.cli.main", SimpleNamespace(main=lambda: ran.append(list(sys.path))))
    main()
    assert ran == [[ours, libraries]]
