"""Finds the address of the API server and our credentials: inside a cluster, or in a kubeconfig.

Inside a cluster they come from two environment variables and the folder that every pod with a ServiceAccount has
(https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/). Kubernetes replaces the token there every hour
or so, so it is read again regularly. Elsewhere the official client reads a kubeconfig, so that exec plugins (EKS),
client certificates, tokens and token files work as with kubectl.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agentrun.api.errors import AgentrunError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder in which a pod finds its token, the API server's CA and its namespace."""


class NoAccess(AgentrunError):
    """There is no usable access to the API server. The message says what is missing and where."""


@dataclass(frozen=True, slots=True)
class Access:
    """The API server's address and our credentials at one moment. ``token`` and ``password`` never show in a repr."""

    server: str
    namespace: str
    """The namespace of the pod, or of the kubeconfig's context; ``default`` if the context has none."""
    ca_path: str | None = None
    """None: the CAs of the system."""
    insecure: bool = False
    """Whether the server's certificate is not checked. Only a kubeconfig can ask for that."""
    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    certificate_path: str | None = None
    key_path: str | None = None
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the host in ``server``."""
    proxy: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        if self.token is not None:
            return {"Authorization": f"Bearer {self.token}"}
        if self.username is not None:
            pair = f"{self.username}:{self.password or ''}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        return {}

    def ssl_context(self) -> ssl.SSLContext:
        """A context with the server's CA and our certificate. Raises NoAccess if a file is missing or invalid."""
        try:
            context = ssl.create_default_context(cafile=self.ca_path)
            if self.certificate_path is not None:
                context.load_cert_chain(self.certificate_path, self.key_path)
        except OSError as error:  # ssl.SSLError is one
            files = ", ".join(name for name in (self.ca_path, self.certificate_path, self.key_path) if name)
            raise NoAccess(f"the certificates for {self.server} cannot be used ({files}): {error}") from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def anonymous(self) -> bool:
        """Whether there are no credentials. That is also the result of an exec plugin that failed."""
        return self.token is None and self.username is None and self.certificate_path is None


class Login(Protocol):
    """A source of Access."""

    def read(self, *, anew: bool = False) -> Access:
        """The access as it is now. With ``anew``, after the API server refused the last one, nothing cached is used.

        This reads files and may run an exec plugin, so do not call it in the thread of the event loop. Raises NoAccess.
        """


class InCluster:
    """The ServiceAccount of our own pod. Every read reads the files again."""

    def __init__(self, folder: Path = MOUNTED, environ: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def read(self, *, anew: bool = False) -> Access:
        """As ``Login.read``."""
        try:
            token = (self._folder / "token").read_text().strip()
            namespace = (self._folder / "namespace").read_text().strip()
        except OSError as error:
            raise NoAccess(
                f"the pod's ServiceAccount token cannot be read: {error}; is automountServiceAccountToken off?"
            ) from error
        return Access(self._server, namespace, ca_path=str(self._folder / "ca.crt"), token=token)


class Kubeconfig:
    """A kubeconfig. ``path`` may be several, separated by colons as in KUBECONFIG; None: the files of kubectl."""

    def __init__(self, path: str | None = None, context: str | None = None) -> None:
        self._path, self._context = path, context
        self._loaded: tuple[Configuration, str] | None = None

    def read(self, *, anew: bool = False) -> Access:
        """As ``Login.read``. The official client runs an exec plugin again once its token has expired."""
        if self._loaded is None or anew:
            self._loaded = self._load()
        configuration, namespace = self._loaded
        scheme, _, secret = (configuration.get_api_key_with_prefix("BearerToken") or "").partition(" ")
        username = password = None
        if scheme == "Basic":
            username, _, password = base64.b64decode(secret).decode().partition(":")
        return Access(
            configuration.host.rstrip("/"),
            namespace,
            ca_path=configuration.ssl_ca_cert or None,
            insecure=not configuration.verify_ssl,
            token=secret.strip() if scheme == "Bearer" else None,
            username=username,
            password=password,
            certificate_path=configuration.cert_file or None,
            key_path=configuration.key_file or None,
            server_name=configuration.tls_server_name or None,
            proxy=configuration.proxy or None,
        )

    def _load(self) -> tuple[Configuration, str]:
        from kubernetes import client, config  # noqa: PLC0415  # takes half a second, and a pod does not need it
        from yaml import YAMLError  # noqa: PLC0415

        try:
            loaded = client.Configuration()
            config.load_kube_config(  # type: ignore[no-untyped-call]
                self._path, self._context, loaded, persist_config=False
            )
            contexts, active = config.list_kube_config_contexts(self._path)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, ValueError, TypeError, YAMLError) as error:
            where = self._path or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise NoAccess(f"no access to a cluster by {where}: {error}; give a kubeconfig and a context") from error
        chosen = next((c for c in contexts if c["name"] == self._context), active)
        return loaded, chosen["context"].get("namespace") or "default"


def find_login(
    kubeconfig: str | None = None, context: str | None = None, environ: Mapping[str, str] = os.environ
) -> Login:
    """The source of our access: ``kubeconfig``, ``context`` or KUBECONFIG if one is given; else the pod's
    ServiceAccount; else ~/.kube/config.

    Nothing is read yet.
    """
    explicit = kubeconfig or context or environ.get("KUBECONFIG")
    if not explicit and environ.get("KUBERNETES_SERVICE_HOST"):
        return InCluster(environ=environ)
    return Kubeconfig(kubeconfig or environ.get("KUBECONFIG"), context)
