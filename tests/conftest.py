"""Servers that the tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.servers import versitygw


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
