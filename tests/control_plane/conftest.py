"""The fixtures of tests on an API server alone: `control_plane`, and `ground`, the operator on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import control_plane, pytest_collection_finish
from tests.cluster.control_plane import ControlPlane
from tests.cluster.ground import Ground, grounded
from tests.servers import versitygw

__all__ = ["control_plane", "pytest_collection_finish"]


@pytest.fixture(scope="session")
def ground(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The operator as a process of this machine, on the API server alone, with proxies between."""
    nowhere = tmp_path_factory.mktemp("nowhere") / "nothing"
    with versitygw.running_versitygw(tmp_path_factory.mktemp("store")) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment(nowhere).items():
            patch.setenv(name, value)
        with grounded(control_plane, tmp_path_factory.mktemp("ground"), store) as ground:
            yield ground
