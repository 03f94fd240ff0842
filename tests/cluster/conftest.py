"""Fixtures for tests on Kubernetes: `control_plane` (an API server only), `cluster` (a whole cluster), `operator`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster import binaries
from tests.cluster import cluster as clusters
from tests.cluster import control_plane as planes
from tests.cluster import operator as operators
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.operator import Operator
from tests.cluster.places import FailedError, MissingError
from tests.e2e.toolhost import ToolHost


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build and install before the first test, so that the time limit of a test does not include compilers."""
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if session.config.option.collectonly or not names & {"cluster", "control_plane"}:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            (clusters.prepare if "cluster" in names else binaries.build)()
        except MissingError as error:
            if os.environ.get("CI"):
                raise pytest.UsageError(f"CI is set, where nothing may be skipped: {error}") from error
        except FailedError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with etcd for the whole test run, without a node and controllers. It logs every request (audit)."""
    try:
        with planes.running(tmp_path_factory.mktemp("control-plane"), audit=True) as plane:
            yield plane
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A whole cluster for the whole test run. Every test creates its own namespace."""
    try:
        with clusters.running(tmp_path_factory.mktemp("cluster")) as running:
            yield running
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Operator]:
    """The operator on the cluster for the whole test run, installed by helm with two replicas."""
    with operators.installed(cluster) as operator:
        yield operator


@pytest.fixture
def tools(cluster: Cluster) -> Iterator[ToolHost]:
    """A server of HTTP tools in the test's own process, which pods can reach."""
    with ToolHost(cluster.host) as host:
        yield host


@pytest.fixture
def namespace(operator: Operator) -> str:
    """The test's own namespace, from ``Operator.namespace``."""
    return operator.namespace()
