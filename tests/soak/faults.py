"""What is done to the cluster: a table of faults, each of which mends itself before the next one begins."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.component import Component
from tests.cluster.control_plane import NODE
from tests.cluster.operator import Operator, processes
from tests.cluster.places import FailedError

RECOVERY = 30.0
"""Seconds after a fault in which others may still feel it. A Lease lasts 15 s, the kubelet waits 10 s or longer before
it starts a container again that was killed, and a replica takes a few to start and to list everything.
"""


@dataclass
class Chaos:
    """Faults in an order that ``seed`` decides, one at a time, until ``end``; ``windows`` says when they were felt."""

    operator: Operator
    namespace: str
    seed: int
    pause: tuple[float, float] = (15.0, 45.0)
    """Seconds of peace between two faults, at least and at most."""
    windows: list[tuple[float, float, str]] = field(default_factory=list)
    """Beginning, end (with recovery) and name of each fault, by the monotonic clock."""
    missed: list[str] = field(default_factory=list)
    """Faults that met nothing to hurt."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def run(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set."""
        names = list(FAULTS)
        while not stop.wait(self.random.uniform(*self.pause)):
            name = self.random.choice(names)
            begun = time.monotonic()
            self.windows.append((begun, float("inf"), name))
            try:
                FAULTS[name](self)
            except FailedError as error:
                self.missed.append(f"{name}: {str(error).splitlines()[0]}")
            self.windows[-1] = (begun, time.monotonic() + RECOVERY, name)

    def quiet(self, begun: float, ended: float) -> bool:
        """Whether no fault was felt between two moments."""
        return all(end < begun or start > ended for start, end, _ in list(self.windows))

    def before(self, moment: float) -> str:
        """The last fault that began before a moment, in words."""
        past = [(end - RECOVERY, name) for begun, end, name in list(self.windows) if begun < moment]
        return f"{moment - past[-1][0]:.0f} s after {past[-1][1]}" if past else "before any fault"

    @contextmanager
    def paused(self, component: Component) -> Any:
        """A part of the cluster that is stopped meanwhile."""
        component.send(signal.SIGSTOP)
        try:
            yield
        finally:
            component.send(signal.SIGCONT)

    def hold(self, low: float, high: float) -> None:
        """Let a fault last."""
        time.sleep(self.random.uniform(low, high))

    def a_pod(self) -> dict[str, Any]:
        """A step's pod at work. Raises FailedError."""
        pods = [p for p in self.operator.pods.all(self.namespace) if (p.get("status") or {}).get("phase") == "Running"]
        if not pods:
            raise FailedError("no step is at work")
        return self.random.choice(pods)


def kill_leader(chaos: Chaos) -> None:
    """SIGKILL."""
    chaos.operator.kill_leader()


def kill_both(chaos: Chaos) -> None:
    """Both replicas at once."""
    for pod in chaos.operator.replicas():
        chaos.operator.send(pod, signal.SIGKILL)


def pause_leader(chaos: Chaos) -> None:
    """Past the length of its Lease: it wakes up and leads no more."""
    pod = chaos.operator.leader()
    chaos.operator.send(pod, signal.SIGSTOP)
    try:
        chaos.hold(12, 20)
    finally:
        chaos.operator.send(pod, signal.SIGCONT)


def delete_replica(chaos: Chaos) -> None:
    """The pod of the leader, as a drain does."""
    chaos.operator.kubectl("delete", "pod", chaos.operator.leader(), "-n", "agentrun", "--wait=false")
    chaos.operator.rolled_out()


def kill_runner(chaos: Chaos) -> None:
    """SIGKILL, as the kernel does that has no memory left."""
    for process in processes(chaos.a_pod()["metadata"]["uid"], "agentrun.runner"):
        os.kill(process, signal.SIGKILL)


def delete_pod(chaos: Chaos) -> None:
    """Politely."""
    name = chaos.a_pod()["metadata"]["name"]
    chaos.operator.kubectl("delete", "pod", name, "-n", chaos.namespace, "--wait=false", "--ignore-not-found")


def force_pod(chaos: Chaos) -> None:
    """At once: its process may be at work yet."""
    name = chaos.a_pod()["metadata"]["name"]
    words = ("--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
    chaos.operator.kubectl("delete", "pod", name, "-n", chaos.namespace, *words)


def pause_runner(chaos: Chaos) -> None:
    """A zombie past its grace: the pod is deleted by force meanwhile, and the process wakes up afterwards."""
    pod = chaos.a_pod()["metadata"]
    found = processes(pod["uid"], "agentrun.runner")
    for process in found:
        os.kill(process, signal.SIGSTOP)
    try:
        words = ("--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
        chaos.operator.kubectl("delete", "pod", pod["name"], "-n", chaos.namespace, *words)
        chaos.hold(3, 8)
    finally:
        for process in found:
            try:
                os.kill(process, signal.SIGCONT)
            except ProcessLookupError:
                continue  # the kubelet has killed it


def pause_store(chaos: Chaos) -> None:
    """Nothing answers there for a while."""
    with chaos.paused(chaos.operator.cluster.outside.store):
        chaos.hold(4, 12)


def pause_kubelet(chaos: Chaos) -> None:
    """Nothing is heard of the node."""
    assert chaos.operator.cluster.node is not None
    with chaos.paused(chaos.operator.cluster.node.kubelet):
        chaos.hold(5, 15)


def restart_api_server(chaos: Chaos) -> None:
    """Every watch is cut."""
    assert chaos.operator.cluster.plane is not None
    chaos.operator.cluster.plane.restart_api_server()


def cordon(chaos: Chaos) -> None:
    """The node takes no new pods."""
    chaos.operator.kubectl("cordon", NODE)
    try:
        chaos.hold(5, 12)
    finally:
        chaos.operator.kubectl("uncordon", NODE)


FAULTS: dict[str, Callable[[Chaos], None]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        *(kill_leader, kill_both, pause_leader, delete_replica, kill_runner, delete_pod, force_pod, pause_runner),
        *(pause_store, pause_kubelet, restart_api_server, cordon),
    )
}
"""By name. One that takes runners is as likely as one that takes operators."""
