"""The operator on an API server that does not know its types yet, or no longer."""

from __future__ import annotations

import socket
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.cluster import control_plane as planes
from tests.cluster import scenes
from tests.cluster.component import Component, until
from tests.servers import versitygw
from tests.servers.versitygw import REGION

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"


@pytest.mark.usefixtures(
    "control_plane"
)  # says what is missing on this machine; it itself is shared, and has the types
def test_the_types_may_come_after_the_operator_and_be_replaced(tmp_path: Path) -> None:
    """kopf looks for its types once: an operator that was there first watched nothing, and said nothing of it."""
    for name in ("plane", "store"):
        (tmp_path / name).mkdir()
    with planes.running(tmp_path / "plane") as plane, versitygw.running_versitygw(tmp_path / "store") as store:
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            port = chosen.getsockname()[1]
        for name in ("default", "operator"):
            plane.kubectl("create", "serviceaccount", name)
        environment = store.environment(tmp_path / "nothing") | {
            "PYTHONPATH": f"{ROOT / 'operator'}",
            "KUBECONFIG": str(plane.kubeconfig()),
            "AWS_REGION": REGION,
            "AGENTRUN_STORE": f"s3://{store.new_bucket()}/runs",
            "AGENTRUN_STEP_IMAGE": "none",
            "AGENTRUN_LEASE_NAMESPACE": "default",
            "AGENTRUN_ADMISSION": "false",
            "AGENTRUN_LISTEN": f"127.0.0.1:{port}",
        }

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
                    return bool(answer.status == 200)
            except OSError:  # 503 is one too
                return False

        command = [sys.executable, "-m", "agentrun.adapters.operator"]
        operator = Component("operator", command, tmp_path / "operator.log", env=environment)
        operator.start()

        def install() -> None:
            plane.kubectl("apply", "--server-side", "-f", CRDS)
            plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")

        def run(name: str) -> None:
            """One that needs the watches: nothing is listed again for minutes."""
            document = yaml.safe_dump(scenes.run(name, {"name": "w", "wait": {"signal": "go"}}))
            until(
                "a run that is taken",
                lambda: not plane.kubectl("apply", "-f", "-", input=document, check=False).returncode,
            )
            phase = ("get", "agentrun", name, "-o", "jsonpath={.status.phase}")
            operator.ready(f"the status of {name}", lambda: plane.kubectl(*phase).stdout == "Waiting")

        try:
            operator.ready("a word of what is missing", lambda: "cannot list from the API server" in operator.said())
            assert not ready()
            install()
            run("first")
            assert ready()
            plane.kubectl("delete", "crd", "--all", "--wait=true")
            operator.ready("a word of what has gone", lambda: "the watches ended" in operator.said())
            assert not ready()
            install()
            run("second")
        finally:
            operator.stop()
