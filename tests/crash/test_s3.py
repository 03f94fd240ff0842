"""The same on S3: the runner is killed at every call of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.bench import Bench
from tests.crash.points import Strike
from tests.crash.workflows import Refund
from tests.crash.zygote import Zygote
from tests.servers.versitygw import S3Server


@pytest.mark.timeout(400)
def test_runner_killed_at_every_store_call_on_s3(
    s3_server: S3Server, tmp_path: Path, nursery: Zygote, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = s3_server.environment(tmp_path / "nowhere")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3_server.new_bucket()

    def store(folder: Path) -> str:
        return f"s3://{bucket}/{folder.name}"

    bench = Bench(tmp_path / "runs", nursery, Refund, stores=store, environment=environment)
    undisturbed = bench.record()
    points = undisturbed.points("runner", ("before", "after"), lambda line: line["kind"] == "store")
    record_property("struck", bench.strike_all(undisturbed, [Strike(point) for point in points]))
