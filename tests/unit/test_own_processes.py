"""The processes that agentrun starts on one machine: none heeds a variable of Python's that the user has set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentrun.local.processes import PYTHON, own_environment

VARIABLES = {
    "PYTHONHOME": "nowhere",
    "PYTHONPATH": ".",
    "PYTHONUSERBASE": "base",
    "PYTHONSTARTUP": "openai.py",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONBREAKPOINT": "openai.set_trace",
    "PYTHONOPTIMIZE": "2",
    "PYTHONEXECUTABLE": "nowhere/python",
    "PYTHONPLATLIBDIR": "nowhere",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONVERBOSE": "1",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules of the user's, at which every variable leads."""
    site = site_of(tmp_path)
    site.mkdir(parents=True)
    for place in (tmp_path, site):
        for name in ("openai", "usercustomize", "sitecustomize"):
            (place / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def site_of(folder: Path) -> Path:
    return folder / "base" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def test_a_process_of_ours_heeds_none_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert not [name for name in own_environment() if name.startswith("PYTHON")]
    code = "import agentrun, sys; print(sys.prefix)"
    done = subprocess.run(
        [*PYTHON, "-c", code],
        env=own_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sys.prefix}\n", "")


def test_where_agentrun_is_installed_is_passed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(folder / "base"))
    assert "PYTHONUSERBASE" not in own_environment()
    information = site_of(folder) / "agentrun-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: agentrun\nVersion: 1\n")
    monkeypatch.syspath_prepend(site_of(folder))
    assert own_environment()["PYTHONUSERBASE"] == str(folder / "base")
