"""Metrics, logs and probes, over real HTTP on the loopback interface."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from agentrun.api.errors import AgentrunError
from agentrun.api.printable import printable
from agentrun.api.run import Outcome, Reason
from agentrun.observe import server
from agentrun.observe.health import HEARTBEAT_MAX, Health, measure_lag
from agentrun.observe.logs import MESSAGE_MAX, JSONFormatter, RunLog, log_level, transition
from agentrun.observe.metrics import LIVE, Lost, Metrics
from agentrun.observe.server import Address, CannotListen, Server, listen_address

ROOT = Path(__file__).parents[2]

OURS = {
    "controller_runtime_reconcile_total": {"controller", "result"},
    "controller_runtime_reconcile_errors_total": {"controller"},
    "controller_runtime_reconcile_time_seconds": {"controller"},
    "controller_runtime_active_workers": {"controller"},
    "workqueue_depth": {"name"},
    "workqueue_adds_total": {"name"},
    "workqueue_queue_duration_seconds": {"name"},
    "workqueue_work_duration_seconds": {"name"},
    "workqueue_retries_total": {"name"},
    "agentrun_pod_ended_to_next_pod_seconds": set(),
    "agentrun_api_requests_total": {"verb", "resource", "code"},
    "agentrun_api_request_seconds": {"verb", "resource"},
    "agentrun_store_requests_total": {"operation", "result"},
    "agentrun_store_request_seconds": {"operation"},
    "agentrun_watch_age_seconds": {"resource"},
    "agentrun_leader": set(),
    "agentrun_runs": {"state"},
    "agentrun_runs_ended_total": {"outcome"},
    "agentrun_steps_started_total": set(),
    "agentrun_steps_queued": set(),
    "agentrun_step_pods": set(),
    "agentrun_step_attempts_lost_total": {"reason"},
    "agentrun_event_loop_lag_seconds": set(),
    "agentrun_build_info": {"version"},
}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Served:
    """A server with what it shows."""

    clock: Clock
    health: Health
    metrics: Metrics
    port: int

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(), dict(response.getheaders())
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """All bytes of the response to ``request``."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            client.sendall(request)
            with client.makefile("rb") as answer:
                return answer.read()


@pytest.fixture
def served() -> Iterator[Served]:
    clock = Clock()
    health, metrics = Health(("agentruns", "pods"), clock), Metrics(clock)
    with Server(Address("127.0.0.1", 0), health, metrics) as running:
        yield Served(clock, health, metrics, running.port)


def used(metrics: Metrics) -> None:
    """Each of the methods at least once."""
    metrics.queued(2)
    metrics.taken(0.003, 1)
    metrics.reconciled("error", 0.02)
    metrics.retried()
    metrics.followed(0.015)
    metrics.api_request("patch", "agentruns/status", 200, 0.004)
    metrics.api_request("patch", "agentruns/status", None, 30.0)
    metrics.store_request("create", "ok", 0.01)
    metrics.store_request("create", "unavailable", 0.01)
    metrics.watch_heard("pods")
    metrics.leads(True)
    metrics.run_moved(None, Reason.PENDING)
    metrics.run_moved(Reason.PENDING, Reason.RUNNING)
    metrics.run_ended(Outcome.FAILED)
    metrics.step_started()
    metrics.steps_queued(3)
    metrics.steps_queued(-1)
    metrics.step_pods(7)
    metrics.attempt_lost(Lost.EVICTED)
    metrics.loop_lagged(0.0004)


def by_name(families: Iterable[Metric]) -> dict[str, Metric]:
    """The families under the names that people query; a counter's family lacks its ``_total``."""
    return {f"{f.name}_total" if f.type == "counter" else f.name: f for f in families}


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


def test_a_scrape_has_these_names_and_labels_and_no_others(served: Served) -> None:
    used(served.metrics)
    status, text, headers = served.ask("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    families = by_name(plain(text))
    ours = {n: f for n, f in families.items() if not n.startswith(("process_", "python_"))}
    found = {
        name: {key for sample in family.samples for key in sample.labels} - {"le"} for name, family in ours.items()
    }
    assert found == OURS
    assert all(family.documentation.endswith(".") for family in ours.values())
    assert {"process_resident_memory_bytes", "python_gc_collections_total", "python_info"} <= families.keys()


def test_prometheus_is_answered_in_the_format_that_it_asks_for(served: Served) -> None:
    used(served.metrics)
    status, text, headers = served.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200 and headers["Content-Type"].startswith("application/openmetrics-text")
    families = by_name(openmetrics(text))  # type: ignore[no-untyped-call]
    assert families.keys() >= OURS.keys() - {"agentrun_build_info"}


def test_each_method_moves_what_it_names() -> None:
    metrics = Metrics()
    used(metrics)
    queue = {"name": "agentrun"}
    assert value(metrics, "workqueue_depth", **queue) == 1
    assert value(metrics, "workqueue_adds_total", **queue) == 1
    assert value(metrics, "workqueue_retries_total", **queue) == 1
    assert value(metrics, "workqueue_queue_duration_seconds_sum", **queue) == 0.003
    assert value(metrics, "workqueue_work_duration_seconds_sum", **queue) == 0.02
    controller = {"controller": "agentrun"}
    assert value(metrics, "controller_runtime_active_workers", **controller) == 0
    assert value(metrics, "controller_runtime_reconcile_total", result="error", **controller) == 1
    assert value(metrics, "controller_runtime_reconcile_total", result="success", **controller) == 0
    assert value(metrics, "controller_runtime_reconcile_errors_total", **controller) == 1
    assert value(metrics, "controller_runtime_reconcile_time_seconds_count", **controller) == 1
    request = {"verb": "patch", "resource": "agentruns/status"}
    assert value(metrics, "agentrun_api_requests_total", code="200", **request) == 1
    assert value(metrics, "agentrun_api_requests_total", code="error", **request) == 1
    assert value(metrics, "agentrun_api_request_seconds_count", **request) == 2
    assert value(metrics, "agentrun_store_requests_total", operation="create", result="unavailable") == 1
    assert value(metrics, "agentrun_store_request_seconds_count", operation="create") == 2
    assert value(metrics, "agentrun_pod_ended_to_next_pod_seconds_bucket", le="0.02") == 1
    assert value(metrics, "agentrun_leader") == 1
    metrics.leads(False)
    assert value(metrics, "agentrun_leader") == 0
    assert value(metrics, "agentrun_runs_ended_total", outcome="Failed") == 1
    assert value(metrics, "agentrun_steps_started_total") == 1
    assert value(metrics, "agentrun_steps_queued") == 2
    assert value(metrics, "agentrun_step_pods") == 7
    assert value(metrics, "agentrun_step_attempts_lost_total", reason="Evicted") == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(Reason))))
def test_runs_are_counted_by_the_state_in_which_they_live(moves: list[tuple[int, Reason]]) -> None:
    metrics = Metrics()
    states: dict[int, Reason] = {}
    for run, after in moves:
        metrics.run_moved(states.get(run), after)
        states[run] = after
    [runs] = [family for family in metrics.registry.collect() if family.name == "agentrun_runs"]
    found = {sample.labels["state"]: sample.value for sample in runs.samples}
    assert found == {reason: list(states.values()).count(reason) for reason in LIVE}, "what has ended is not live"


def test_the_age_of_a_watch_is_reckoned_at_the_scrape() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    assert value(metrics, "agentrun_watch_age_seconds", resource="pods") is None
    metrics.watch_heard("pods")
    clock.now += 42
    assert value(metrics, "agentrun_watch_age_seconds", resource="pods") == 42
    metrics.watch_heard("pods")
    clock.now += 1
    assert value(metrics, "agentrun_watch_age_seconds", resource="pods") == 1


def test_the_process_is_alive_until_its_loop_has_long_not_come_round(served: Served) -> None:
    assert served.ask("/healthz")[:2] == (200, "ok\n")
    served.clock.now += HEARTBEAT_MAX
    assert served.ask("/healthz")[0] == 200
    served.clock.now += 15
    assert served.ask("/healthz")[:2] == (503, "the event loop has not run for 75 s (at most 60 s)\n")
    served.health.beat()
    assert served.ask("/healthz")[0] == 200


def test_it_is_ready_when_the_watches_are_synced_and_the_store_was_reached(served: Served) -> None:
    assert served.ask("/readyz")[:2] == (
        503,
        "store: not probed yet\nwatch of agentruns: not synced yet\nwatch of pods: not synced yet\n",
    )
    served.health.watch("agentruns", True)
    served.health.watch("pods", True)
    served.health.store("s3://journals does not answer\x1b[2J")
    assert served.ask("/readyz")[:2] == (503, "store: s3://journals does not answer\\u001b[2J\n")
    served.health.store(None)
    assert served.ask("/readyz")[:2] == (200, "ok\n"), "a standby is ready: nothing asks who leads"
    served.health.watch("pods", False)
    assert served.ask("/readyz")[:2] == (503, "watch of pods: not synced\n")
    served.health.watch("pods", True)
    served.health.stop()
    assert served.ask("/readyz")[:2] == (503, "operator: shutting down\n")
    assert served.ask("/healthz")[0] == 200, "who shuts down is alive still"


async def test_the_probes_are_answered_while_the_loop_is_blocked(served: Served) -> None:
    assert [served.ask(path)[0] for path in ("/healthz", "/readyz", "/metrics")] == [200, 503, 200]


def test_the_probes_are_answered_while_python_code_spins(served: Served) -> None:
    answers: list[int] = []
    client = threading.Thread(target=lambda: answers.append(served.ask("/healthz")[0]))
    client.start()
    while client.is_alive():
        pass  # holds the interpreter's lock all the time that it is given
    assert answers == [200]


async def test_a_late_loop_is_measured_and_beats() -> None:
    measured = asyncio.Event()

    class Watched(Metrics):
        def loop_lagged(self, seconds: float) -> None:
            super().loop_lagged(seconds)
            measured.set()

    clock = Clock()
    metrics, health = Watched(), Health((), clock)
    clock.now += 3 * HEARTBEAT_MAX
    assert health.live() is not None
    task = asyncio.create_task(measure_lag(metrics, health))
    await measured.wait()
    assert health.live() is None
    measured.clear()
    asyncio.get_running_loop().call_soon(time.sleep, 0.5)
    await measured.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    late = value(metrics, "agentrun_event_loop_lag_seconds_bucket", le="0.25")
    total = value(metrics, "agentrun_event_loop_lag_seconds_count")
    assert late is not None and total is not None and late < total


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/healthz?verbose", None, {}, 200),
        ("GET", "/", None, {}, 404),
        ("POST", "/healthz", "x", {}, 405),
        ("HEAD", "/healthz", None, {}, 405),
        ("GET", "/healthz", "x" * 100_000, {}, 413),
        ("GET", "/healthz", None, {"X-Long": "x" * server.HEAD_MAX}, 431),
    ],
)
def test_only_a_get_of_a_page_is_answered(
    served: Served, method: str, path: str, body: str | None, headers: dict[str, str], status: int
) -> None:
    assert served.ask(path, method, body, **headers)[0] == status
    assert served.ask("/healthz")[0] == 200


@pytest.mark.parametrize("request_head", [b"\r\n\r\n", b"GET /healthz\r\n\r\n", b"\xff\x00 x y\r\n\r\n"])
def test_what_is_not_http_is_told_so(served: Served, request_head: bytes) -> None:
    assert served.raw(request_head).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_client_that_ends_its_side_at_once_gets_the_whole_page(served: Served) -> None:
    for number in range(20_000):
        served.metrics.api_request("get", f"resource-{number % 2000}", number, 0.1)  # a page larger than any buffer
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            head, _, page = answer.read().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(page)}\r\n".encode() in head and len(page) > 2_000_000


def test_a_chunked_body_is_refused(served: Served) -> None:
    answer = served.raw(b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Large(Metrics):
    """Its page is larger than any buffer."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        return b"#" * 8_000_000, "text/plain"


def goes_away(port: int, sends: bytes, reads: int, *, ends: bool) -> None:
    """A client that sends and reads so much, and is gone then without a goodbye (RST)."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(sends)
        if ends:
            client.shutdown(socket.SHUT_WR)
        if reads:
            client.recv(reads)


@pytest.mark.parametrize("reads", [0, 1, 100_000])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("sends", [b"", b"GET /he", REQUEST, REQUEST + b"more", b"\x16\x03\x01\x02\x00\x01\xff"])
def test_a_client_that_goes_away_leaves_no_line_in_the_log(
    sends: bytes, ends: bool, reads: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A probe that went away left a traceback: to end the server's side failed with "not connected"."""
    metrics = Large()
    with Server(Address("127.0.0.1", 0), Health(()), metrics) as running:
        for _ in range(5):
            goes_away(running.port, sends, reads if sends.startswith(REQUEST) else 0, ends=ends)
        assert Served(Clock(), Health(()), metrics, running.port).ask("/healthz")[0] == 200
    assert not caplog.records


def test_what_asyncio_says_of_a_client_is_not_logged_and_of_a_defect_is(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    try:
        server._note(loop, {"message": "Exception in callback", "exception": OSError(107, "not connected")})
        assert not caplog.records
        server._note(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, "files")})
        assert [(r.levelname, r.exc_info) for r in caplog.records] == [("WARNING", None)]
        server._note(loop, {"message": "Task exception was never retrieved", "exception": KeyError("x")})
        assert caplog.records[-1].levelname == "ERROR" and caplog.records[-1].exc_info
    finally:
        loop.close()


def test_garbage_is_answered(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    @given(head=st.binary(max_size=300), accept=st.binary(max_size=60))
    @settings(max_examples=60, deadline=None)
    def answers(head: bytes, accept: bytes) -> None:
        for request in (head + b"\r\n\r\n", b"GET /metrics HTTP/1.1\r\nAccept: " + accept + b"\r\n\r\n"):
            assert re.match(rb"HTTP/1\.1 [2-5][0-9][0-9] ", served.raw(request)), request

    answers()
    assert not caplog.records


def test_a_head_is_answered_without_a_body(served: Served) -> None:
    head, _, body = served.raw(b"HEAD /healthz HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ") and b"Allow: GET" in head and body == b""


def test_the_metrics_may_have_an_address_of_their_own() -> None:
    health, metrics = Health(()), Metrics()
    with (
        Server(Address("127.0.0.1", 0), health, None) as probes,
        Server(Address("127.0.0.1", 0), None, metrics) as scraped,
    ):
        one, other = (Served(Clock(), health, metrics, at.port) for at in (probes, scraped))
        assert one.ask("/healthz")[0] == 200 and one.ask("/metrics")[:2] == (404, "available here: /healthz, /readyz\n")
        assert other.ask("/metrics")[0] == 200 and other.ask("/readyz")[:2] == (404, "available here: /metrics\n")


def test_idle_connections_do_not_keep_the_kubelet_out(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(server.CONNECTIONS_MAX)]
    try:
        assert served.ask("/healthz")[0] == 200
        assert idle[0].recv(1) == b"", "the oldest was not dropped"
    finally:
        for client in idle:
            client.close()


def test_a_client_that_never_ends_its_request_is_dropped() -> None:
    with (
        Server(Address("127.0.0.1", 0), Health(()), Metrics(), deadline=0.05) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=30) as client,
    ):
        client.sendall(b"GET /healthz HT")
        assert client.recv(1) == b""


def test_the_end_of_the_block_drops_who_is_connected_and_frees_the_port() -> None:
    with Server(Address("127.0.0.1", 0), Health(()), Metrics()) as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=30)
        client.sendall(b"GET")
        Served(Clock(), Health(()), Metrics(), running.port).ask("/healthz")  # the one before has been accepted now
    with client:
        assert client.recv(1) == b""
    with Server(Address("127.0.0.1", running.port), Health(()), Metrics()) as again:
        assert again.port == running.port


def test_a_taken_port_is_told_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*; set AGENTRUN_LISTEN"):
            Server(Address("127.0.0.1", port), Health(()), Metrics())


def test_an_empty_host_is_every_address() -> None:
    with Server(Address("", 0), Health(()), Metrics()) as running:
        assert Served(Clock(), Health(()), Metrics(), running.port).ask("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (server.DEFAULT_LISTEN, Address("", 8080)),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080)),
        ("[::1]:9", Address("::1", 9)),
        ("", None),
        ("off", None),
    ],
)
def test_an_address_is_read(text: str, address: Address | None) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize("text", ["8080", "host", "host:", "::1:80", ":65536", ":-1", ":٣", "host:" + "9" * 5000])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(CannotListen, match=r"AGENTRUN_LISTEN is .*; write host:port"):
        listen_address(text)


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of ours, and what it writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    logger = logging.Logger("agentrun.control")
    logger.addHandler(handler)
    yield logger, written
    handler.close()


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_holds_the_fields_of_its_run(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    run = RunLog(logger, namespace="shop", name="refund-1", uid="u-1", generation=3, reconcile_id="r-1")
    run.warning("pod %s was refused", "refund-1-pay", extra={"step": "pay", "spec": {"secret": "hunter2"}})
    (line,) = lines(written)
    stamp = datetime.fromisoformat(str(line.pop("ts")))
    assert stamp.utcoffset() == timedelta(0)
    assert line == {
        "level": "warning",
        "logger": "agentrun.control",
        "msg": "pod refund-1-pay was refused",
        "controller": "agentrun",
        "namespace": "shop",
        "name": "refund-1",
        "uid": "u-1",
        "generation": 3,
        "reconcileID": "r-1",
        "step": "pay",
    }


def test_a_transition_is_one_line_and_no_transition_is_none(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    run = RunLog(logger, namespace="shop", name="refund-1")
    transition(run, None, "Pending")
    transition(run, "Pending", "Pending")
    transition(run, "Running", "Waiting", "for finance, 50% of them", step="sign-off")
    first, second = lines(written)
    assert (first["level"], first["msg"], first["to"]) == ("info", "run: Pending", "Pending")
    assert "from" not in first and "step" not in first
    assert second["msg"] == "step sign-off: Running -> Waiting: for finance, 50% of them"
    assert (second["from"], second["to"], second["step"]) == ("Running", "Waiting", "sign-off")


def test_an_error_is_one_line_with_its_traceback(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    try:
        raise ValueError("two\nlines\x1b]52;c;x\x07")
    except ValueError:
        logger.exception("it went wrong")
    (line,) = lines(written)
    text = str(line["traceback"])
    assert text.startswith("Traceback (most recent call last):\n") and "test_observe.py" in text
    assert text.endswith("lines\\u001b]52;c;x\\u0007")


def test_a_long_traceback_keeps_its_end(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    try:
        raise ValueError("\n".join(f"line {n}" for n in range(1000)))
    except ValueError:
        logger.exception("it went wrong")
    text = str(lines(written)[0]["traceback"])
    assert text.startswith("(") and text.endswith("\nline 999") and text.count("\n") == 100


def test_objects_are_not_dumped(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    logger.warning("%s %r %s %d", {"token": "hunter2"}, ["hunter2"], b"hunter2", 7)
    logger.warning("%(pod)s", {"pod": {"env": "hunter2"}})
    logger.warning("%d of %s", "hunter2")  # noqa: PLE1206
    assert "hunter2" not in written.getvalue()
    assert [line["msg"] for line in lines(written)] == [
        "<dict of 1> '<list of 1>' <bytes of 7> 7",
        "<dict of 1>",
        "%d of %s (its arguments do not match)",
    ]


def test_kopfs_records_name_their_object(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    logger.warning("odd", extra={"k8s_ref": {"kind": "Pod", "name": "p", "namespace": "n", "uid": "u"}})
    (line,) = lines(written)
    assert (line["namespace"], line["name"], line["uid"]) == ("n", "p", "u") and "kind" not in line


@given(st.text(), st.text(), st.text())
def test_any_text_becomes_one_printable_line(message: str, name: str, cause: str) -> None:
    record = logging.LogRecord("agentrun", logging.INFO, "f.py", 1, "%s", (message,), None)
    record.agentrun_fields = {"name": name}
    error = ValueError(cause)
    record.exc_info = (ValueError, error, None)
    text = JSONFormatter().format(record)
    assert text.isascii() and text.isprintable()
    line = json.loads(text)
    assert printable(line["msg"]) == line["msg"] and len(line["msg"]) <= MESSAGE_MAX
    assert printable(line["name"]) == line["name"]
    assert printable(line["traceback"], lines=True) == line["traceback"]


def test_a_word_that_is_no_level_is_refused() -> None:
    assert log_level(" Debug ") == logging.DEBUG
    with pytest.raises(AgentrunError, match='AGENTRUN_LOG_LEVEL is "loud"; write one of debug, info, warning, error'):
        log_level("loud")


PROGRAM = """
import logging, sys, threading, warnings
from agentrun.observe.logs import configure
configure(sys.argv[1])
for name in ("agentrun.control", "kopf.activities", "kopf.objects", "aiohttp.access", "botocore.auth"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(name).log(level, "said")
warnings.warn("old", DeprecationWarning, stacklevel=1)
thread = threading.Thread(target=lambda: 1 / 0, name="t")
thread.start(); thread.join()
raise SystemError("the end")
"""


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("info", {"agentrun.control": 2, "kopf.activities": 1, "kopf.objects": 1, "aiohttp.access": 1}),
        ("debug", {"agentrun.control": 3, "kopf.activities": 3, "kopf.objects": 1, "aiohttp.access": 3}),
        ("error", {"agentrun.control": 0, "kopf.activities": 1, "kopf.objects": 1, "aiohttp.access": 1}),
    ],
)
def test_every_line_of_a_process_is_json_to_its_last_breath(level: str, told: dict[str, int]) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning:__main__", "-c", PROGRAM, level],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(ROOT / "operator")},
    )
    assert ran.returncode == 1 and not ran.stdout
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    said = [record["logger"] for record in records if record["msg"] == "said"]
    assert {name: said.count(name) for name in told} == told
    assert said.count("botocore.auth") == 1
    assert [record["level"] for record in records if record["logger"] == "py.warnings"] == ["warning"]
    thread, process = records[-2:]
    assert thread["msg"] == "thread t ended with an error" and "ZeroDivisionError" in thread["traceback"]
    assert process["msg"] == "the process ends with an error" and process["traceback"].endswith("SystemError: the end")
