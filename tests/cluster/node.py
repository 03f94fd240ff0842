"""A node: containerd, kubelet, kube-proxy, a name server and a bridge for pods, in the sandbox of its control plane."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from tests.cluster import names, oci
from tests.cluster.component import Component
from tests.cluster.control_plane import KUBELET, MANAGER, NODE, PROXY, SCHEDULER, ControlPlane
from tests.cluster.places import FailedError
from tests.cluster.sandbox import Sandbox

PODS = "10.244.0.0/16"
_PAUSE = "localhost/pause:1"
_CONTAINERD = """\
version = 2
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Also where root may not lower the scores, as in some virtual machines.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""


class Node:
    """The controllers, the scheduler and one node for a control plane in ``sandbox``. ``start`` starts them."""

    def __init__(self, plane: ControlPlane, sandbox: Sandbox) -> None:
        self._plane = plane
        self._sandbox = sandbox
        self.folder = plane.folder
        self.manager = plane.component(
            "kube-controller-manager",
            [
                *(
                    "--kubeconfig",
                    plane.kubeconfig(MANAGER),
                    "--use-service-account-credentials",
                    "--leader-elect=false",
                ),
                *("--service-account-private-key-file", plane.pki / "sa.key", "--root-ca-file", plane.ca),
                *("--node-monitor-period", "2s", "--node-monitor-grace-period", "20s", "--secure-port", "0"),
            ],
        )
        self.scheduler = plane.component(
            "kube-scheduler",
            ["--kubeconfig", plane.kubeconfig(SCHEDULER), "--leader-elect=false", "--secure-port", "0"],
        )
        self.proxy = plane.component(
            "kube-proxy",
            [
                *("--kubeconfig", plane.kubeconfig(PROXY), "--proxy-mode", "iptables", "--cluster-cidr", PODS),
                *("--hostname-override", NODE, "--conntrack-max-per-core", "0"),
                *("--healthz-bind-address", "127.0.0.1:10256", "--metrics-bind-address", "127.0.0.1:10249"),
            ],
        )
        self.containerd = sandbox.component("containerd", ["containerd", "--config", self._containerd()])
        self.kubelet = plane.component(
            "kubelet",
            [
                *("--config", self._kubelet(), "--kubeconfig", plane.kubeconfig(KUBELET), "--cert-dir", plane.pki),
                *("--hostname-override", NODE, "--node-ip", sandbox.inside),
            ],
        )
        self.names = sandbox.component(
            "names",
            [sys.executable, "-m", "tests.cluster.names", sandbox.inside, plane.kubeconfig()],
            {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.components: list[Component] = [
            *(self.containerd, self.manager, self.scheduler, self.proxy, self.kubelet, self.names)
        ]

    def start(self, *archives: Path) -> None:
        """Start all parts, load the images of ``archives``, and wait until the node is Ready.

        Raises:
            FailedError: a part does not start; the message has its last output.
        """
        for component in (self.containerd, self.manager, self.scheduler, self.names):
            component.start()
        self.containerd.ready("answering", self._answers)
        self.load(oci.busybox(self.folder / "pause.tar", _PAUSE))
        self.kubelet.start()
        self.proxy.start()
        for archive in archives:  # while the kubelet starts
            self.load(archive)
        self.wait()

    def wait(self) -> None:
        """Wait until the node is Ready and pods can be created. Raises FailedError."""
        self.kubelet.ready("a Ready node", self._is_ready)
        self.manager.ready("a default ServiceAccount", self._has_account)

    def load(self, archive: Path) -> None:
        """Import the images of an archive in OCI's or Docker's format. Raises FailedError."""
        self._sandbox.run("ctr", "-n", "k8s.io", "images", "import", archive)

    def tag(self, name: str, other: str) -> None:
        """Give an image of the node an additional name. Raises FailedError."""
        self._sandbox.run("ctr", "-n", "k8s.io", "images", "tag", name, other)

    def images(self) -> list[str]:
        """The names of the node's images. Raises FailedError."""
        return self._sandbox.run("ctr", "-n", "k8s.io", "images", "ls", "-q").split()

    def _answers(self) -> bool:
        try:
            self._sandbox.run("ctr", "version")
        except FailedError:
            return False
        return True

    def _is_ready(self) -> bool:
        jsonpath = '{.status.conditions[?(@.type=="Ready")].status}'
        return self._plane.kubectl("get", "node", NODE, "-o", f"jsonpath={jsonpath}", check=False).stdout == "True"

    def _has_account(self) -> bool:
        return self._plane.kubectl("get", "serviceaccount", "default", "-n", "default", check=False).returncode == 0

    def _containerd(self) -> Path:
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods",
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        cni = self.folder / "cni"
        cni.mkdir()
        (cni / "10-pods.conflist").write_text(json.dumps(network))
        path = self.folder / "containerd.toml"
        path.write_text(_CONTAINERD.format(pause=_PAUSE, cni=cni))
        return path

    def _kubelet(self) -> Path:
        nowhere = self.folder / "resolv.conf"
        nowhere.write_text("")  # for pods without the cluster's DNS: each lookup fails at once
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._sandbox.inside,
            # The API server's certificate allows everything. Without one nothing is allowed, also not to pods.
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self._plane.pki / "kubelet-ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "healthzBindAddress": "127.0.0.1",
            "readOnlyPort": 0,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._sandbox.cgroup}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "syncFrequency": "1s",
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 12,  # renewed four times in this period
            "resolvConf": str(nowhere),
            "clusterDNS": [self._sandbox.inside],
            "clusterDomain": names.DOMAIN,
        }
        path = self.folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return path
