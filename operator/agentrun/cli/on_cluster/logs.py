"""``kubectl agentrun logs``: reads logs of existing pods from their kubelets, and logs of other pods from the store."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from agentrun.api.errors import Refused
from agentrun.api.keys import StepKey
from agentrun.api.labels import ATTEMPT, KEY, RUN_LABEL, RUN_UID
from agentrun.api.printable import printable
from agentrun.cli.failures import warn
from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.cluster_run import ClusterRun, journal_of
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Damaged
from agentrun.kube.errors import DENIED, REJECTED, NotFound, Unavailable
from agentrun.query.logs import LogLine, new_lines, parsed
from agentrun.query.run_view import wanted
from agentrun.store.protocol import Store, StoreError

CONTAINER = "step"
"""The container of a step's pod that runs the step."""

POLL = 1.0
"""Seconds between two searches for new pods."""

LAST = 10.0
"""Seconds to wait for the end of the followed pods' logs after the run has ended."""


@dataclass(frozen=True, slots=True)
class _Pod:
    """A step's pod."""

    path: str
    uid: str
    key: StepKey
    attempt: int


def lines(client: Client, run: ClusterRun, only: StepKey | None, *, follow: bool) -> Iterator[LogLine]:
    """The lines in the order of time. With ``follow``, as they arrive, until the run has ended."""
    return _Reader(client, run, only, follow).lines()


@dataclass(slots=True)
class _Reader:
    """Reads each attempt's log from one source only: its pod, or the store."""

    client: Client
    run: ClusterRun
    only: StepKey | None
    follow: bool
    seen: set[str] = field(default_factory=set)
    """The parts in the store that were read."""
    from_pods: set[tuple[str, int]] = field(default_factory=set)
    """The attempts whose log was read from the pod. The store's parts have the same lines."""
    arrived: queue.SimpleQueue[LogLine] = field(default_factory=queue.SimpleQueue)
    following: list[threading.Thread] = field(default_factory=list)
    store: tuple[Store, RunPath] | None = None
    denied: set[str] = field(default_factory=set)
    """The warnings that were printed. Each is printed once."""

    def lines(self) -> Iterator[LogLine]:
        """Lines in the order of time; with ``follow``, in the order in which they arrive."""
        while True:
            self.run = ClusterRun(self.client.get(self.run.path)) if self.follow else self.run
            ended = self.run.ended
            found = [line for pod in self._pods() for line in self._of_pod(pod)]
            found += self._of_store()
            yield from sorted(found, key=lambda line: line[0])
            if not self.follow:
                return
            if not ended:
                yield from self._waiting(POLL)
                continue
            until = time.monotonic() + LAST
            while any(thread.is_alive() for thread in self.following) and time.monotonic() < until:
                yield from self._waiting(POLL / 10)
            yield from self._waiting(0.0)
            yield from self._of_store()
            return

    def _waiting(self, seconds: float) -> Iterator[LogLine]:
        """The lines of the followed pods that arrive within ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            try:
                left = until - time.monotonic()
                yield self.arrived.get(timeout=left) if left > 0 else self.arrived.get_nowait()
            except queue.Empty:
                return

    def _pods(self) -> list[_Pod]:
        space = f"/api/v1/namespaces/{self.run.namespace}/pods"
        try:
            objects = self.client.list_all(space, f"{RUN_LABEL}={self.run.name}")
        except DENIED as error:
            self._say(f"the pods cannot be listed: {error}")
            return []
        pods = []
        for obj in objects:
            notes = obj["metadata"].get("annotations") or {}
            if notes.get(RUN_UID) != self.run.uid.replace("-", "") or KEY not in notes:
                continue
            key = StepKey.parse(notes[KEY])
            if wanted(key, self.only):
                path = f"{space}/{obj['metadata']['name']}/log"
                pods.append(_Pod(path, obj["metadata"]["uid"], key, int(notes.get(ATTEMPT, 0))))
        return pods

    def _of_pod(self, pod: _Pod) -> list[LogLine]:
        """The lines of the pod's log. With ``follow``, returns none: a thread puts the lines into the queue."""
        attempt = (pod.key.path, pod.attempt)
        if attempt in self.from_pods:
            return []
        self.from_pods.add(attempt)
        if self.follow:
            thread = threading.Thread(target=self._forward, args=(pod,), daemon=True)
            thread.start()
            self.following.append(thread)
            return []
        try:
            return list(self._read(pod, {}))
        except (NotFound, *REJECTED):
            pass  # the pod is gone or has not begun; the store has what there is
        except (*DENIED, Unavailable) as error:
            self._say(f"{pod.key.label}: the pod's log cannot be read: {error}")
        self.from_pods.discard(attempt)
        return []

    def _read(self, pod: _Pod, query: dict[str, str]) -> Iterator[LogLine]:
        at = ""
        for text in self.client.lines(pod.path, query | {"container": CONTAINER}):
            line = parsed(text)
            at = str(line.get("at", at)) if isinstance(line, dict) else at
            yield at, pod.key, line

    def _forward(self, pod: _Pod) -> None:
        """Read the pod's log to its end. If it cannot be read at all, leave it to the next search or to the store."""
        any_ = False
        try:
            for line in self._read(pod, {"follow": "true"}):
                any_ = True
                self.arrived.put(line)
        except (NotFound, *REJECTED, *DENIED, Unavailable) as error:
            if any_:
                self._say(f"{pod.key.label}: the pod's log broke off: {error}")
                return
            if isinstance(error, (*DENIED, Unavailable)):
                self._say(f"{pod.key.label}: the pod's log cannot be read: {error}")
            self.from_pods.discard((pod.key.path, pod.attempt))

    def _of_store(self) -> list[LogLine]:
        try:
            if self.store is None:
                if "journal" not in self.run.status:
                    return []
                self.store = journal_of(self.run)
            return new_lines(*self.store, self.only, self.seen, self.from_pods)
        except (StoreError, Damaged, Refused) as error:
            self._say(f"logs of deleted pods cannot be read: {error}")
            return []

    def _say(self, text: str) -> None:
        if text not in self.denied:
            self.denied.add(text)
            warn(printable(text, 500))
