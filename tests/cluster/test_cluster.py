"""The cluster itself: what every other test on Kubernetes takes for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.component import until
from tests.cluster.sandbox import Sandbox, destroy, find, remove_cgroups

_CHECK = """
import sys, agentrun.runner
try:
    open("/written", "w")
except OSError:
    print("read-only")
from botocore.session import get_session
store = get_session().create_client("s3")
store.put_object(Bucket=sys.argv[1], Key="from-a-pod", Body=b"hello")
"""


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, that enforces Pod Security `restricted`."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(cluster: Cluster, namespace: str, name: str, *command: str) -> dict[str, Any]:
    """A pod of the project's image as `restricted` wants it."""
    environment = cluster.store.environment(Path("/nowhere"))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "main",
                    "image": cluster.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "securityContext": {
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def finished(cluster: Cluster, namespace: str, name: str) -> str:
    """The phase in which a pod ends."""

    def ended() -> str | None:
        phase: str = cluster.get("pod", name, "-n", namespace)["status"]["phase"]
        return phase if phase in ("Succeeded", "Failed") else None

    return until(f"the end of pod {name}", ended)


def test_a_restricted_pod_runs_the_image_and_reaches_the_store(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod(cluster, namespace, "runner", "python", "-c", _CHECK, cluster.bucket))
    phase = finished(cluster, namespace, "runner")
    said = cluster.kubectl("logs", "-n", namespace, "runner").stdout
    assert (phase, said) == ("Succeeded", "read-only\n")
    stored = cluster.store.client.get_object(Bucket=cluster.bucket, Key="from-a-pod")["Body"].read()
    assert stored == b"hello"


def test_the_namespace_refuses_a_pod_with_privileges(cluster: Cluster, namespace: str) -> None:
    privileged = pod(cluster, namespace, "root", "id")
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    refused = cluster.apply(privileged, check=False)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr


def test_a_pod_reaches_the_api_server_by_its_service(cluster: Cluster, namespace: str) -> None:
    script = """
import ssl, urllib.request
mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=f"{mounted}/ca.crt")
token = open(f"{mounted}/token").read()
import os
url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}/api/v1"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(request, context=context).status)
"""
    asking = pod(cluster, namespace, "asking", "python", "-c", script)
    asking["spec"]["automountServiceAccountToken"] = True
    cluster.apply(asking)
    phase = finished(cluster, namespace, "asking")
    assert (phase, cluster.kubectl("logs", "-n", namespace, "asking").stdout) == ("Succeeded", "200\n")


def test_pods_reach_servers_of_the_test_and_the_world_outside(cluster: Cluster, namespace: str) -> None:
    from examples.scripted_model import ScriptedModel

    script = "import sys, urllib.request\nfor url in sys.argv[1:]: print(urllib.request.urlopen(url).status)"
    with ScriptedModel({"rules": [{"text": "hello"}]}, host=cluster.host) as model:
        urls = (f"{model.url}/models", f"{cluster.backend_url}/orders/4711")
        cluster.apply(pod(cluster, namespace, "calling", "python", "-c", script, *urls))
        phase = finished(cluster, namespace, "calling")
    assert (phase, cluster.kubectl("logs", "-n", namespace, "calling").stdout) == ("Succeeded", "200\n200\n")


@pytest.fixture
def rootful() -> None:
    """Skip where namespaces are not to be had; the cluster's own fixture says why."""
    if os.geteuid() != 0:
        pytest.skip("namespaces are root's")


def leftovers(number: int, init: int) -> list[Path]:
    """What a sandbox may leave on the machine."""
    paths = [Path("/proc", str(init)), Path("/sys/class/net", f"agentrun{number}")]
    groups = [*Path("/sys/fs/cgroup").glob(f"agentrun{number}"), *Path("/sys/fs/cgroup").glob(f"*/agentrun{number}")]
    return [path for path in [*paths, *groups] if path.exists()]


@pytest.mark.usefixtures("rootful")
def test_a_sandbox_leaves_nothing(tmp_path: Path) -> None:
    before = Path("/proc/mounts").read_text()
    sandbox = Sandbox(tmp_path, bound=True)
    try:
        sleeper = sandbox.component("sleeper", ["sh", "-c", "sleep 1000 & setsid sleep 1000 & wait"]).start()
        deep = sleeper.pid
        sandbox.run("ip", "link", "add", "pods", "type", "bridge")
        sandbox.run("iptables", "-N", "OF-THE-CLUSTER")
        assert (
            "OF-THE-CLUSTER"
            not in subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout
        )
        assert not Path("/sys/class/net/pods").exists()
        assert Path("/proc/mounts").read_text() == before
        assert len(leftovers(sandbox.number, sandbox.pid)) >= 3
    finally:
        sandbox.close()
    assert not Path("/proc", str(deep)).exists()
    assert leftovers(sandbox.number, sandbox.pid) == []
    assert find(tmp_path) is None


@pytest.mark.usefixtures("rootful")
def test_a_sandbox_that_stays_is_ended_by_another_process(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tests.cluster.sandbox import Sandbox
sandbox = Sandbox(Path({str(tmp_path)!r}), bound=False)
print(sandbox.pid, sandbox.number, sandbox.component("sleeper", ["sleep", "1000"]).start().pid, flush=True)
"""
    root = Path(__file__).parents[2]
    made = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True).stdout
    init, number, sleeper = map(int, made.split())
    assert Path("/proc", str(sleeper)).exists()
    assert destroy(tmp_path)
    assert leftovers(number, init) == []
    assert not destroy(tmp_path)


@pytest.mark.usefixtures("rootful")
def test_a_killed_test_run_takes_its_sandbox_along(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.cluster.sandbox import Sandbox
sandbox = Sandbox(Path({str(tmp_path)!r}), bound=True)
print(sandbox.pid, sandbox.number, sandbox.component("sleeper", ["sleep", "1000"]).start().pid, flush=True)
sys.stdin.read()
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        init, number, sleeper = map(int, run.stdout.readline().split())
        run.send_signal(signal.SIGKILL)
    gone = [Path("/proc", str(init)), Path("/proc", str(sleeper)), Path("/sys/class/net", f"agentrun{number}")]
    until("the end of all that it started", lambda: not any(path.exists() for path in gone))
    remove_cgroups()  # as the next cluster does
    assert leftovers(number, init) == []
