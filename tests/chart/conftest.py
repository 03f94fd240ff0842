"""The charts: helm alone, and both installed by helm on an API server with real users."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart.api import Api, binding, run
from tests.cluster import binaries
from tests.cluster.conftest import control_plane, pytest_collection_finish
from tests.cluster.control_plane import ControlPlane
from tests.cluster.places import MissingError

__all__ = ["control_plane", "pytest_collection_finish"]

CHARTS = Path(__file__).parents[2] / "charts"
SYSTEM = "agentrun-system"
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of helm and kubectl."""
    try:
        return binaries.build()
    except MissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def plane(request: pytest.FixtureRequest) -> ControlPlane:
    found: ControlPlane = request.getfixturevalue("control_plane")
    return found


@pytest.fixture(scope="session")
def admin(plane: ControlPlane) -> Api:
    """Who may do everything, as far as roles go."""
    return Api(plane.url, plane.ca, plane.token("admin"))


def until(what: str, holds: Callable[[], bool]) -> None:
    """Ask until it is so: the API server takes a policy up a moment after it is written."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, f"not within a minute: {what}"
        time.sleep(0.05)


def stamped(admin: Api) -> bool:
    """Whether the API server writes the name of who makes a run."""
    answer = admin.create("agentruns", run("probe"), dry=True)
    if answer.status == 503:
        return False  # a type that is new: the mutating policy does not know its schema yet
    return answer.requester == "admin"


@pytest.fixture(scope="session")
def release(plane: ControlPlane, admin: Api) -> None:
    """Both charts, and a namespace `support`, where everybody may do all that the chart's roles for people grant.

    Who may decide on what is then the policies' to say.
    """
    place = ("--namespace", SYSTEM, "--create-namespace")
    plane.helm("upgrade", "--install", "agentrun-crds", CHARTS / "agentrun-crds", *place)
    plane.helm("upgrade", "--install", "agentrun", CHARTS / "agentrun", *place, "--set", "store.url=s3://journals/test")
    admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": "support"}}).ok()
    for role in ("agentrun-editor", "agentrun-approver"):
        admin.call("POST", f"{RBAC}/support/rolebindings", binding(role, "ana", "ben", "carl", "eve")).ok()
    until("names are stamped", lambda: stamped(admin))
    forged = run("probe", identity={"serviceAccountName": "nobody-may-use-it"})
    eve = admin.with_token(plane.token("eve"))
    until("identities are checked", lambda: eve.create("agentruns", forged, dry=True).status == 403)


@pytest.fixture(scope="session")
def people(plane: ControlPlane, admin: Api, release: None) -> dict[str, Api]:
    """The API server as each of them sees it; ben and carl are in the group `finance`."""
    return {name: admin.with_token(plane.token(name)) for name in ("admin", "ana", "ben", "carl", "eve")}


@pytest.fixture(scope="session")
def operator(admin: Api, release: None) -> Api:
    """The operator's ServiceAccount, by a token of its own."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/agentrun/token"
    answer = admin.call("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
    return admin.with_token(answer.ok()["status"]["token"])


@pytest.fixture(scope="session")
def fresh() -> Iterator[str]:
    """Names that nothing has yet: `next(fresh)`."""
    return (f"test-{number}" for number in itertools.count())
