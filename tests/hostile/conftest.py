"""The fixture of tests beside the worst objects: `control_plane`. They take both cores: they run alone, one by one."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.component import Component
from tests.cluster.conftest import control_plane, pytest_collection_finish
from tests.cluster.control_plane import ControlPlane
from tests.hostile.tenant import Tenant
from tests.servers import versitygw
from tests.servers.versitygw import REGION

__all__ = ["control_plane", "pytest_collection_finish"]


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "-f", ROOT / "crds")
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


@pytest.fixture
def eve(plane: ControlPlane) -> Tenant:
    return Tenant(plane, "eve")


@pytest.fixture
def ana(plane: ControlPlane) -> Tenant:
    return Tenant(plane, "ana")


@pytest.fixture
def operator(plane: ControlPlane, eve: Tenant, ana: Tenant, tmp_path: Path) -> Iterator[Component]:
    """The operator of both namespaces, still to be started."""
    (tmp_path / "store").mkdir()
    with versitygw.running_versitygw(tmp_path / "store") as store:
        lease = f"lease-{uuid.uuid4().hex[:6]}"
        environment = store.environment(tmp_path / "nothing") | {
            "PYTHONPATH": f"{ROOT / 'operator'}",
            "KUBECONFIG": str(plane.kubeconfig()),
            "AWS_REGION": REGION,
            "AGENTRUN_STORE": f"s3://{store.new_bucket()}/runs",
            "AGENTRUN_STEP_IMAGE": "none",
            "AGENTRUN_NAMESPACES": f"{eve.name},{ana.name}",
            "AGENTRUN_LEASE_NAMESPACE": "default",
            "AGENTRUN_LEASE_NAME": lease,
            "AGENTRUN_ADMISSION": "false",
            "AGENTRUN_LISTEN": "off",
        }
        command = [sys.executable, "-m", "agentrun.adapters.operator"]
        operator = Component("operator", command, tmp_path / "operator.log", env=environment)
        try:
            yield operator
            said = operator.said()
            assert "Traceback" not in said, said[-6000:]
        finally:
            operator.stop()
            for tenant in (eve, ana):
                tenant.clear()
