"""The refund example's backend over HTTP: what it knows, what it pays, and the trouble it makes on request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from examples.refund.backend import Backend

ROOT = Path(__file__).parents[2]
PAYER = {"Authorization": "Bearer right"}
LAMP = {"orderId": "4711", "amount": 129.0}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path / "state", "right") as open_backend:
        yield open_backend


@pytest.fixture
def http(backend: Backend) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=backend.url, timeout=20, headers=PAYER) as client:
        yield client


def on_disk(tmp_path: Path, name: str = "payments") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "state" / f"{name}.jsonl").read_text().splitlines()]


def test_orders(http: httpx2.Client) -> None:
    order = http.get("/orders/4711").json()
    assert order["customer"] == {"email": "ana@example.com"}
    assert [(item["name"], item["price"]) for item in order["items"]] == [("lamp", 129.0), ("bulb", 9.9)]
    assert [item["name"] for item in http.get("/orders/1042").json()["items"]] == ["mug"]
    absent = http.get("/orders/1")
    assert (absent.status_code, absent.json()) == (404, {"error": "there is no order 1; there are 1042, 4711"})


def test_customers_and_their_notes(http: httpx2.Client, tmp_path: Path) -> None:
    (ana,) = http.get("/customers", params={"email": "ana@example.com"}).json()["customers"]
    assert http.get("/customers", params={"email": "nobody@example.com"}).json() == {"customers": []}
    assert http.get("/customers").status_code == 400

    notes, key = f"/customers/{ana['id']}/notes", {"Idempotency-Key": "k-1"}
    first = http.post(notes, json={"text": "refunded"}, headers=key)
    again = http.post(notes, json={"text": "refunded"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert http.post(notes, json={"text": "something else"}, headers=key).status_code == 409
    assert http.post(notes, json={"text": "refunded"}, headers={"Idempotency-Key": "k-2"}).status_code == 201
    assert http.post(notes, json={"text": "refunded"}).status_code == 400
    assert http.post(notes, json={"text": ""}, headers=key).status_code == 422
    assert http.post("/customers/1/notes", json={"text": "x"}, headers=key).status_code == 404
    assert http.get(notes).json()["notes"] == on_disk(tmp_path, "notes")
    assert [note["idempotencyKey"] for note in on_disk(tmp_path, "notes")] == ["k-1", "k-2"]


def test_every_accepted_request_pays(http: httpx2.Client, backend: Backend, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "k-1"}
    paid = [http.post("/refunds", json=LAMP, headers=key).json() for _ in range(2)]
    assert [payment["id"] for payment in paid] == ["pay_0001", "pay_0002"]
    assert [payment["idempotencyKey"] for payment in paid] == ["k-1", "k-1"]
    assert http.get("/payments").json()["payments"] == paid == on_disk(tmp_path) == backend.payments


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"orderId": "1", "amount": 1.0}, 404),
        ({"amount": 1.0}, 422),
        ({"orderId": "4711"}, 422),
        ({"orderId": "4711", "amount": 0}, 422),
        ({"orderId": "4711", "amount": True}, 422),
        ({"orderId": "4711", "amount": "129"}, 422),
        ({"orderId": "4711", "amount": 1.005}, 422),
        ({"orderId": "4711", "amount": 138.91}, 422),
        ([], 400),
    ],
)
def test_what_is_refused_is_not_paid(http: httpx2.Client, tmp_path: Path, body: Any, status: int) -> None:
    assert http.post("/refunds", json=body).status_code == status
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}])
def test_payments_ask_for_the_token(backend: Backend, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=backend.url, headers=headers) as stranger:
        refused = stranger.post("/refunds", json=LAMP)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert stranger.get("/payments").status_code == 401
        assert stranger.get("/orders/4711").status_code == 200
    assert backend.payments == []


def test_a_pause_holds_back_the_answer_and_not_the_payment(http: httpx2.Client, tmp_path: Path) -> None:
    http.post("/control", json={"pause_payment_after_commit": 3600})
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/refunds", json=LAMP, timeout=httpx2.Timeout(20, read=0.3))
    while not on_disk(tmp_path):
        threading.Event().wait(0.01)  # the client may have given up before the backend was scheduled
    assert [payment["orderId"] for payment in on_disk(tmp_path)] == ["4711"]
    # One payment was held back, the next is not.
    assert http.post("/refunds", json=LAMP).status_code == 201


def test_closing_wakes_who_is_paused(tmp_path: Path) -> None:
    outcome: list[str] = []

    def pay(url: str) -> None:
        with httpx2.Client(headers=PAYER, timeout=60) as client, pytest.raises(httpx2.RemoteProtocolError) as caught:
            client.post(f"{url}/refunds", json=LAMP)
        outcome.append(type(caught.value).__name__)

    with Backend(tmp_path / "state", "right") as backend:
        httpx2.post(f"{backend.url}/control", json={"pause_payment_after_commit": 3600})
        payer = threading.Thread(target=pay, args=(backend.url,))
        payer.start()
        while not backend.payments and payer.is_alive():
            payer.join(0.01)
    payer.join(20)
    assert outcome == ["RemoteProtocolError"]


def test_failing_payments_pay_nothing(http: httpx2.Client, backend: Backend) -> None:
    trouble = http.post("/control", json={"fail_payments": 503, "times": 2}).json()
    assert trouble == http.get("/control").json() == {"fail_payments": {"value": 503, "times": 2}}
    assert [http.post("/refunds", json=LAMP).status_code for _ in range(3)] == [503, 503, 201]
    assert len(backend.payments) == 1
    http.post("/control", json={"fail_payments": 500, "times": 9})
    assert http.post("/control", json={"fail_payments": 0}).json() == {}
    assert http.post("/refunds", json=LAMP).status_code == 201


@pytest.mark.parametrize(
    "body", [{"fail_payment": 503}, {"fail_payments": 200}, {"fail_payments": 503, "times": 0}, {"fail_payments": "x"}]
)
def test_trouble_that_is_not_known(http: httpx2.Client, body: dict[str, Any]) -> None:
    assert http.post("/control", json=body).status_code == 422
    assert http.get("/control").json() == {}


def test_what_was_written_survives_a_restart(tmp_path: Path) -> None:
    key = {**PAYER, "Idempotency-Key": "k-1"}
    with Backend(tmp_path / "state", "right") as backend, httpx2.Client(base_url=backend.url, headers=key) as http:
        http.post("/refunds", json=LAMP)
        note = http.post("/customers/881/notes", json={"text": "refunded"}).json()
    with Backend(tmp_path / "state", "right") as backend, httpx2.Client(base_url=backend.url, headers=key) as http:
        again = http.post("/customers/881/notes", json={"text": "refunded"})
        assert (again.status_code, again.json()) == (200, note)
        assert http.post("/refunds", json=LAMP).json()["id"] == "pay_0002"
        assert len(http.get("/payments").json()["payments"]) == 2


def test_unknown_paths_and_bodies(http: httpx2.Client) -> None:
    assert http.get("/").status_code == 404
    assert http.post("/orders/4711", json={}).status_code == 404
    assert http.post("/refunds", content=b"{").status_code == 400
    assert http.post("/refunds", content=iter([b"{}"])).status_code == 411
    assert http.get("/orders/4711").status_code == 200


def test_the_command_survives_sigkill_with_its_payments(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "examples.refund.backend", "--dir", str(tmp_path / "state")]
    command += ["--port-file", str(port_file)]
    for count, end in ((1, signal.SIGKILL), (2, signal.SIGTERM)):
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "BACKEND_TOKEN": "right"}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{port_file.read_text().strip()}"
            assert httpx2.post(f"{url}/refunds", json=LAMP, headers=PAYER).json()["n"] == count
            process.send_signal(end)
            assert process.wait(20) == (0 if end == signal.SIGTERM else -end)
    assert len(on_disk(tmp_path)) == 2


def test_the_command_asks_for_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "BACKEND_TOKEN"}
    command = [sys.executable, "-m", "examples.refund.backend", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "set the environment variable BACKEND_TOKEN" in done.stderr
