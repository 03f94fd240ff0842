"""etcd and the Kubernetes API server. They start in seconds, and without a node they do not need root."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import binaries
from tests.cluster.access import TokenAccess, User
from tests.cluster.component import Component
from tests.cluster.places import run
from tests.cluster.sandbox import Sandbox

NODE = "node1"
MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
KUBELET = f"system:node:{NODE}"
_PARTS = (User(MANAGER), User(SCHEDULER), User(PROXY), User(KUBELET, ("system:nodes",)))
SERVICES = "10.96.0.0/16"
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "None", "nonResourceURLs": ["/*"]}, {"level": "Metadata"}],
}


class ControlPlane(TokenAccess):
    """A running etcd and API server.

    Without a sandbox both listen on 127.0.0.1 at free ports. In a sandbox the API server listens on all of the
    sandbox's addresses, because pods use the node's address; no other machine reaches the sandbox. ``folder`` must be
    empty, and the caller deletes it. The users' tokens are new each time. With ``audit``, ``audit_log`` gets a line for
    each request with the user, the verb, the object and the response code, without bodies.

    Raises:
        FailedError: one of them does not start; the message has its last output.

    """

    def __init__(self, folder: Path, programs: Path, *, sandbox: Sandbox | None = None, audit: bool = False) -> None:
        self.audit_log = folder / "audit.log"
        self.programs = programs
        self.sandbox = sandbox
        self.address = sandbox.inside if sandbox else "127.0.0.1"
        self.pki = folder / "pki"
        self.pki.mkdir()
        ports = (6443, 2379) if sandbox else _free_ports()
        super().__init__(
            folder,
            f"https://{self.address}:{ports[0]}",
            self.pki / "apiserver.crt",
            kubectl=programs / "kubectl",
            helm=programs / "helm",
            parts=_PARTS,
        )
        self.write_tokens(self.pki / "tokens.csv")
        _make_keys(self.pki)
        self.etcd = self.component("etcd", self._etcd(ports[1]))
        self.api_server = self.component("kube-apiserver", self._api_server(*ports, audit))
        try:
            self.etcd.start()
            self.api_server.start()
            self.wait()
        except BaseException:
            self.close()
            raise

    def component(self, name: str, options: Sequence[str | Path]) -> Component:
        """A process of one of the programs, in the control plane's sandbox if it has one; not started yet."""
        command = [self.programs / name, *options]
        if self.sandbox:
            return self.sandbox.component(name, command)
        return Component(name, command, self.folder / f"{name}.log")

    def wait(self) -> None:
        """Wait until the API server is ready. Raises FailedError."""
        self.api_server.ready("ready", self._answers)

    def restart_api_server(self) -> None:
        """Restart the API server, and wait until it is ready. Raises FailedError."""
        self.api_server.restart()
        self.wait()

    def audited(self) -> list[dict[str, Any]]:
        """The entries of the audit log so far, one for each request that was answered."""
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def close(self) -> None:
        """Stop both."""
        self.api_server.stop()
        self.etcd.stop()

    def _answers(self) -> bool:
        self.etcd.check()
        # The API server writes the certificate itself. The file exists before it is complete, and a kubeconfig made
        # from an incomplete certificate would never work.
        written = self.ca.exists() and self.ca.read_text().rstrip().endswith("-----END CERTIFICATE-----")
        return written and self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

    def _etcd(self, port: int) -> list[str | Path]:
        url = f"http://127.0.0.1:{port}"
        return [
            *("--data-dir", self.folder / "etcd"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", "http://127.0.0.1:0"),
            "--unsafe-no-fsync",  # data that a crash of this machine loses is not needed
            *("--log-level", "error"),
        ]

    def _api_server(self, port: int, etcd: int, audit: bool) -> list[str | Path]:
        options: list[str | Path] = [
            *("--etcd-servers", f"http://127.0.0.1:{etcd}"),
            *("--secure-port", str(port)),
            *("--bind-address", "0.0.0.0" if self.sandbox else "127.0.0.1"),
            # The address for the Service `kubernetes`, which may not be loopback. Without a node nobody uses it.
            *("--advertise-address", self.address if self.sandbox else "192.0.2.1"),
            *("--cert-dir", self.pki),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-signing-key-file", self.pki / "sa.key"),
            *("--service-account-key-file", self.pki / "sa.key"),
            *("--token-auth-file", self.pki / "tokens.csv"),
            *("--authorization-mode", "Node,RBAC"),
            *("--allow-privileged=true", "--profiling=false"),
            *("--service-cluster-ip-range", SERVICES),
            *("--kubelet-preferred-address-types", "InternalIP"),
            *("--kubelet-client-certificate", self.pki / "kubelet-client.crt"),
            *("--kubelet-client-key", self.pki / "kubelet-client.key"),
        ]
        if audit:
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(_AUDIT))
            options += [
                "--audit-policy-file",
                policy,
                "--audit-log-path",
                self.audit_log,
                "--audit-log-mode",
                "blocking",
            ]
        return options


@contextmanager
def running(folder: Path, *, audit: bool = False) -> Iterator[ControlPlane]:
    """A control plane alone, until the block ends. ``folder`` must be empty. Raises MissingError, FailedError."""
    plane = ControlPlane(folder, binaries.build(), audit=audit)
    try:
        yield plane
    finally:
        plane.close()


def _make_keys(pki: Path) -> None:
    """Make the key for ServiceAccounts' tokens, and the certificate that the API server shows to kubelets."""
    run(["openssl", "genrsa", "-out", pki / "sa.key", "2048"])
    new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    authority, authority_key = pki / "kubelet-ca.crt", pki / "kubelet-ca.key"
    run([*new, "-subj", "/CN=kubelet-clients", "-keyout", authority_key, "-out", authority])
    client = ("-subj", "/CN=kube-apiserver", "-addext", "extendedKeyUsage=clientAuth", "-addext")
    signed = ("basicConstraints=CA:FALSE", "-CA", authority, "-CAkey", authority_key)
    run([*new, *client, *signed, "-keyout", pki / "kubelet-client.key", "-out", pki / "kubelet-client.crt"])


def _free_ports() -> tuple[int, int]:
    """Two free ports. If another process takes one first, the start fails and says so."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
