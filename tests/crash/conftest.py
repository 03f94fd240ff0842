"""The zygote of a test run, and how many points were struck."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.zygote import Zygote

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The process that forks drivers and runners."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}
    with Zygote(tmp_path_factory.mktemp("zygote"), environment) as zygote:
        yield zygote


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many points were struck: a test that struck none would prove nothing."""
    struck = [
        (report.nodeid, value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "struck"
    ]
    if struck:
        terminalreporter.section("crash points")
        for test, count in struck:
            terminalreporter.line(f"{count:4} {test}")
        terminalreporter.line(f"{sum(count for _, count in struck):4} in all")
