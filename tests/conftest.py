"""Servers that the tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.servers import versitygw

# No test fails because the machine is busy: pytest's own time limit is the only one.
# In CI the same examples each time: what a search finds anew is not the fault of the change at hand. tests/fuzz is for
# that.
hypothesis.settings.register_profile("agentrun", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("agentrun")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the S3 server before the first test that wants it: the time limit is for tests, not for compilers."""
    wanted = any("s3_server" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    try:
        if versitygw.has_go():
            versitygw.build()
    except RuntimeError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """For `--dist loadgroup`, whose own marks come to nothing: xdist 3.8 writes them to ``Item._nodeid``, which
    pytest 9.2 does not read any more.
    """
    return _ByServer(config, log) if config.getoption("dist") == "loadgroup" else None


class _ByServer(LoadScopeScheduling):  # type: ignore[misc]
    """What shares a cluster, an API server or a stage goes to one worker; what shares nothing, to any."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.split("/")[1]
        if folder in ("chart", "control_plane", "cluster"):
            return folder
        return path if folder == "e2e" else nodeid


@pytest.fixture(scope="session", autouse=True)
def one_loader_for_all_clients() -> Iterator[None]:
    """botocore reads and parses its data anew for each session, which is half of what a client costs."""
    from botocore import loaders, session

    shared, with_path = loaders.create_loader(), loaders.create_loader
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "create_loader", lambda path=None: with_path(path) if path else shared)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it where the S3 tests ran against a stand-in."""
    if shutil.which("go") is None:
        terminalreporter.section("S3 server")
        terminalreporter.line("There is no `go` on PATH: moto stood in for versitygw, and credentials went unchecked.")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[versitygw.S3Server]:
    """A real S3 server for the whole run; every test makes its own bucket or prefix."""
    with versitygw.running(tmp_path_factory.mktemp("s3")) as server:
        yield server
