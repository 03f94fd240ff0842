"""The operator's metrics, in the text format of Prometheus.

Metrics that every controller has are named as in controller-runtime and client-go's work queue, because dashboards and
alerts know those names (https://book.kubebuilder.io/reference/metrics-reference). All others begin with ``agentrun_``.
No label holds the name or UID of a run, so the number of series does not grow with the runs. docs/reference/ lists all.

The control code calls the methods, from the event loop or from a thread. Each costs one to three microseconds, does no
I/O and raises nothing. The thread that serves ``/metrics`` calls ``render``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from agentrun import __version__
from agentrun.api.run import Outcome, Reason

CONTROLLER = "agentrun"
"""The value of the labels ``controller`` and ``name``: there is one controller with one queue."""

LIVE = tuple(reason for reason in Reason if str(reason) not in set(Outcome))
"""The states of runs that have not ended, named by the reasons of their conditions."""

ReconcileResult = Literal["success", "error", "requeue"]
StoreResult = Literal["ok", "unavailable", "unfit"]
Verb = Literal["get", "list", "create", "patch", "update", "delete", "deletecollection"]

REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
WORK_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Lost(StrEnum):
    """How an attempt's pod ended without the runner's message."""

    DELETED = "Deleted"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    OOM_KILLED = "OOMKilled"
    NOT_STARTED = "NotStarted"
    CRASHED = "Crashed"
    OTHER = "Other"


class Metrics:
    """All metrics of one operator process, in a registry of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]  # no dashboard uses these series
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("agentrun_build", "The version of the operator.", registry=registry).info({"version": __version__})

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        reconciles = counter(
            "controller_runtime_reconcile_total", "Reconciles, by how they ended.", "controller", "result"
        )
        results: tuple[ReconcileResult, ...] = ("success", "error", "requeue")
        self._reconciles = {result: reconciles.labels(CONTROLLER, result) for result in results}
        self._reconcile_errors = counter(
            "controller_runtime_reconcile_errors_total", "Reconciles that ended with an error.", "controller"
        ).labels(CONTROLLER)
        self._reconcile_time = histogram(
            "controller_runtime_reconcile_time_seconds", "How long a reconcile takes.", WORK_BUCKETS, "controller"
        ).labels(CONTROLLER)
        self._workers = gauge(
            "controller_runtime_active_workers", "Workers that reconcile a run right now.", "controller"
        ).labels(CONTROLLER)

        self._depth = gauge("workqueue_depth", "Runs that wait for a worker.", "name").labels(CONTROLLER)
        self._adds = counter("workqueue_adds_total", "Runs put into the queue.", "name").labels(CONTROLLER)
        self._retries = counter("workqueue_retries_total", "Runs put back after an error.", "name").labels(CONTROLLER)
        self._waited = histogram(
            "workqueue_queue_duration_seconds", "How long a run waits for a worker.", WORK_BUCKETS, "name"
        ).labels(CONTROLLER)
        self._worked = histogram(
            "workqueue_work_duration_seconds", "How long a worker has a run.", WORK_BUCKETS, "name"
        ).labels(CONTROLLER)

        self._followed = histogram(
            "agentrun_pod_ended_to_next_pod_seconds",
            "From the event that a step's pod has ended to the creation of the run's next pod.",
            LATENCY_BUCKETS,
        )
        self._api_requests = counter(
            "agentrun_api_requests_total", "Requests to the API server, retries included.", "verb", "resource", "code"
        )
        self._api_seconds = histogram(
            "agentrun_api_request_seconds", "How long the API server takes.", REQUEST_BUCKETS, "verb", "resource"
        )
        self._store_requests = counter(
            "agentrun_store_requests_total", "Requests to the store of the journals.", "operation", "result"
        )
        self._store_seconds = histogram(
            "agentrun_store_request_seconds", "How long the store takes.", REQUEST_BUCKETS, "operation"
        )
        self._watch_age = gauge(
            "agentrun_watch_age_seconds",
            "Time since a watch or a list of the resource last delivered anything.",
            "resource",
        )
        self._leader = gauge("agentrun_leader", "1 while this replica holds the Lease, else 0.")
        runs = gauge("agentrun_runs", "Runs that have not ended, as this replica sees them, by state.", "state")
        self._runs = {reason: runs.labels(str(reason)) for reason in LIVE}
        ended = counter("agentrun_runs_ended_total", "Runs that ended while this replica led.", "outcome")
        self._ended = {outcome: ended.labels(str(outcome)) for outcome in Outcome}
        self._started = counter("agentrun_steps_started_total", "Attempts of steps started: pods created.")
        self._queued_steps = gauge(
            "agentrun_steps_queued", "Attempts of steps that wait for a place for a pod, because a limit is reached."
        )
        self._step_pods = gauge("agentrun_step_pods", "Pods of steps that have not ended, as this replica sees them.")
        lost = counter(
            "agentrun_step_attempts_lost_total",
            "Attempts whose pod ended without a termination message of the runner.",
            "reason",
        )
        self._lost = {reason: lost.labels(str(reason)) for reason in Lost}
        self._lag = histogram(
            "agentrun_event_loop_lag_seconds", "How late the event loop wakes a task that is due.", LAG_BUCKETS
        )

        # The children by their labels, because resolving labels costs more than counting. The verbs and resources in
        # the code bound their number. Two threads that create one at the same time get the same child.
        self._api_counts: dict[tuple[str, str, int | None], Counter] = {}
        self._api_times: dict[tuple[str, str], Histogram] = {}
        self._store_counts: dict[tuple[str, str], Counter] = {}
        self._store_times: dict[str, Histogram] = {}
        self._heard: dict[str, float] = {}

    def queued(self, depth: int) -> None:
        """Count a run that was put into the queue, which now holds ``depth``."""
        self._adds.inc()
        self._depth.set(depth)

    def taken(self, waited: float, depth: int) -> None:
        """Count a run that a worker took after ``waited`` seconds. The queue now holds ``depth``."""
        self._workers.inc()
        self._waited.observe(waited)
        self._depth.set(depth)

    def reconciled(self, result: ReconcileResult, seconds: float) -> None:
        """Count a reconcile that ended. Call this once for each ``taken``, even after a cancellation."""
        self._workers.dec()
        self._worked.observe(seconds)
        self._reconcile_time.observe(seconds)
        self._reconciles[result].inc()
        if result == "error":
            self._reconcile_errors.inc()

    def retried(self) -> None:
        """Count a run that is put back into the queue after an error."""
        self._retries.inc()

    def followed(self, seconds: float) -> None:
        """Count a pod that was created ``seconds`` after the event of the end of the run's previous pod."""
        self._followed.observe(seconds)

    def api_request(self, verb: Verb, resource: str, code: int | None, seconds: float) -> None:
        """Count a request to the API server. ``code``: the status of the answer; None if there was no answer.

        ``resource`` is the plural, with the subresource if there is one: ``agentruns/status``.
        """
        count = self._api_counts.get((verb, resource, code))
        if count is None:
            count = self._api_requests.labels(verb, resource, "error" if code is None else str(code))
            self._api_counts[verb, resource, code] = count
        count.inc()
        timed = self._api_times.get((verb, resource))
        if timed is None:
            timed = self._api_times[verb, resource] = self._api_seconds.labels(verb, resource)
        timed.observe(seconds)

    def store_request(self, operation: str, result: StoreResult, seconds: float) -> None:
        """Count an operation on the store that ended. ``control.async_journal`` names it, such as ``facts``."""
        count = self._store_counts.get((operation, result))
        if count is None:
            count = self._store_counts[operation, result] = self._store_requests.labels(operation, result)
        count.inc()
        timed = self._store_times.get(operation)
        if timed is None:
            timed = self._store_times[operation] = self._store_seconds.labels(operation)
        timed.observe(seconds)

    def watch_heard(self, resource: str) -> None:
        """Reset the age of the watch of ``resource`` (the plural), because the watch or a list delivered something."""
        new = resource not in self._heard
        self._heard[resource] = self._clock()
        if new:
            self._watch_age.labels(resource).set_function(lambda: self._clock() - self._heard[resource])

    def leads(self, leading: bool) -> None:
        """Record whether this replica holds the Lease."""
        self._leader.set(leading)

    def run_moved(self, before: Reason | None, after: Reason | None) -> None:
        """Count a run under ``after`` instead of ``before``. None: before it was seen, or after it is gone.

        Runs in final states are not counted, because they are not live.
        """
        if before in self._runs:
            self._runs[before].dec()
        if after in self._runs:
            self._runs[after].inc()

    def run_ended(self, outcome: Outcome) -> None:
        """Count a run that ended."""
        self._ended[outcome].inc()

    def step_started(self) -> None:
        """Count a pod that was created for an attempt, or was found to exist already when it was requested."""
        self._started.inc()

    def steps_queued(self, more: int) -> None:
        """Change the number of attempts that wait for a place by ``more``, which may be negative."""
        self._queued_steps.inc(more)

    def step_pods(self, count: int) -> None:
        """Record the number of step pods that have not ended."""
        self._step_pods.set(count)

    def attempt_lost(self, reason: Lost) -> None:
        """Count an attempt whose pod ended or disappeared, without a final record or message of the runner."""
        self._lost[reason].inc()

    def loop_lagged(self, seconds: float) -> None:
        """Record that the event loop woke a task this many seconds late."""
        self._lag.observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page for a scrape with this Accept header, and the content type of the page."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
