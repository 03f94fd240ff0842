"""The whole test cluster: a node with the project's image, and the servers outside: store, model and backend."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from agentrun import __version__
from tests.cluster import binaries, image, packages
from tests.cluster.access import Access, ImpersonatingAccess
from tests.cluster.component import Component
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.cluster.places import MissingError, Say, say
from tests.cluster.sandbox import Sandbox, remove_cgroups
from tests.servers import versitygw
from tests.servers.versitygw import S3Server

KUBECONFIG = "AGENTRUN_TEST_KUBECONFIG"
"""The variable with the kubeconfig of a person's own cluster, which is used instead of a new one."""
HOST = "AGENTRUN_TEST_HOST"
"""The variable with the address of this machine for the pods of such a cluster."""
TOKEN = "shop-token-4711"
MODEL_KEY = "model-key-4711"
PORTS = {"store": 7070, "model": 8470, "backend": 8471}
_ROOT = Path(__file__).parents[2]


class Outside:
    """The servers that a workflow needs outside of Kubernetes: versitygw, the scripted model, the shop's backend.

    They listen on ``address``: in a ``sandbox`` at PORTS, without one at free ports. The model plays the refund example
    and requires MODEL_KEY. The backend requires TOKEN, and writes payments as JSON lines to the file ``payments``.
    """

    def __init__(self, folder: Path, sandbox: Sandbox | None, address: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.address = address
        self.ports = dict(PORTS) if sandbox else {name: _free_port(address) for name in PORTS}
        for name in ("store-data", "shop"):
            (folder / name).mkdir()
        self.payments = folder / "shop" / "payments.jsonl"
        at = {name: f"{address}:{port}" for name, port in self.ports.items()}
        self.store_server = S3Server("versitygw", f"http://{at['store']}")
        self.model_url = f"http://{at['model']}/v1"
        self.backend_url = f"http://{at['backend']}"
        credentials = {"ROOT_ACCESS_KEY": self.store_server.access_key, "ROOT_SECRET_KEY": self.store_server.secret_key}
        script = _ROOT / "examples" / "refund" / "model.yaml"
        self.store = self._component(
            "store", [versitygw.build(), "--port", at["store"], "posix", folder / "store-data"], credentials
        )
        self.model = self._python(
            "model", "examples.scripted_model", script, "--require-key", env={"SCRIPTED_MODEL_KEY": MODEL_KEY}
        )
        self.backend = self._python(
            "backend", "examples.refund.backend", "--dir", folder / "shop", env={"BACKEND_TOKEN": TOKEN}
        )
        self.components = [self.store, self.model, self.backend]

    def start(self) -> None:
        """Start all servers, and wait until they listen. Raises FailedError."""
        for component in self.components:
            component.start()
        for component in self.components:
            component.ready("listening", partial(_listens, self.address, self.ports[component.name]))

    def close(self) -> None:
        """Stop all servers."""
        for component in self.components:
            component.stop()

    def _python(self, name: str, module: str, *words: str | Path, env: dict[str, str]) -> Component:
        where = ("--host", self.address, "--port", str(self.ports[name]))
        return self._component(name, [sys.executable, "-m", module, *words, *where], env | {"PYTHONPATH": str(_ROOT)})

    def _component(self, name: str, command: list[str | Path], env: dict[str, str]) -> Component:
        if self.sandbox:
            return self.sandbox.component(name, command, env)
        return Component(name, command, self.folder / f"{name}.log", env=env)


class Cluster:
    """A Kubernetes with a node, whose pods reach the store, the model and the backend by address.

    ``access`` has kubectl, helm and the users' kubeconfigs. ``image`` is the name of the project's image on the node.
    ``host`` is the address of servers that a test starts in its own process, for pods. ``plane`` and ``node`` are the
    parts of a cluster of the tests, which tests may damage; they are None on a person's own cluster.
    """

    def __init__(
        self,
        access: Access,
        outside: Outside,
        image_name: str,
        host: str,
        plane: ControlPlane | None,
        node: Node | None,
    ) -> None:
        self.access = access
        self.outside = outside
        self.image = image_name
        self.host = host
        self.plane = plane
        self.node = node
        self.store = outside.store_server
        self.bucket = self.store.new_bucket()
        self.model_url = outside.model_url
        self.backend_url = outside.backend_url
        self.kubectl = access.kubectl
        self.helm = access.helm
        self.kubeconfig = access.kubeconfig
        self.get = access.get
        self.apply = access.apply


def given() -> Path | None:
    """The kubeconfig of the person's cluster, where they gave one."""
    path = os.environ.get(KUBECONFIG)
    return Path(path) if path else None


def prepare(tell: Say = say) -> None:
    """Build and install everything that a cluster needs. Raises MissingError, FailedError."""
    if given() is not None:
        image.given()
        return
    packages.need_root()
    binaries.build(tell)
    packages.ensure(packages.NODE, tell)
    versitygw.build()
    image.build(tell)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A new cluster until the block ends; or the person's own, if AGENTRUN_TEST_KUBECONFIG is set.

    ``folder`` must be empty.

    Raises:
        MissingError: this machine lacks something.
        FailedError: a part does not start.

    """
    prepare()
    theirs = given()
    with ExitStack() as closing:
        if theirs is None:
            yield start(folder, bound=True, closing=closing)
            return
        if (host := os.environ.get(HOST)) is None:
            raise MissingError(f"set {HOST} to the address by which your cluster's pods reach this machine")
        access = ImpersonatingAccess(folder, theirs, kubectl=binaries.program("kubectl"), helm=binaries.program("helm"))
        outside = Outside(folder, None, host)
        closing.callback(outside.close)
        outside.start()
        yield Cluster(access, outside, image.given(), host, None, None)


def start(folder: Path, *, bound: bool, closing: ExitStack) -> Cluster:
    """Start a new cluster in ``folder``, which must be empty. ``closing`` ends it.

    ``bound``: the kernel ends the cluster with this process, however that ends.

    Raises:
        MissingError: this machine lacks something.
        FailedError: a part does not start.

    """
    prepare()
    remove_cgroups()  # of a killed test run; its processes, mounts and devices are gone already
    sandbox = Sandbox(folder, bound=bound)
    closing.callback(sandbox.close)
    outside = Outside(folder, sandbox, sandbox.inside)
    outside.start()
    plane = ControlPlane(folder, binaries.build(), sandbox=sandbox, audit=True)
    node = Node(plane, sandbox)
    name, archive = image.build()
    node.start(archive)
    node.tag(name, f"docker.io/library/agentrun:{__version__}")  # the name in the chart and the examples
    return Cluster(plane, outside, name, sandbox.outside, plane, node)


def _free_port(address: str) -> int:
    with socket.socket() as chosen:
        chosen.bind((address, 0))
        port: int = chosen.getsockname()[1]
        return port


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
