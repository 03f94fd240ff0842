"""Processes that are stopped, killed and doubled while a step is in the middle of its call."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.local import call, tool, workflow
from tests.e2e.shop import Running, Shop, until
from tests.e2e.toolhost import held, reply

OK = reply({"ok": True})


@pytest.fixture
def release(shop: Shop) -> Iterator[threading.Event]:
    """A file with a step that is called and waits for its answer until this is set."""
    event = threading.Event()
    shop.tools.on("/slow", held(event, OK))
    shop.tools.on("/fine", OK)
    slow = tool("slow", f"{shop.tools.url}/slow", effect="Idempotent")
    once = tool("once", f"{shop.tools.url}/slow", effect="Once")
    fine = tool("fine", f"{shop.tools.url}/fine")
    for name in ("slow", "once"):
        steps = [call("slow", name, compensate={"name": "fine", "args": {}}), call("after", "fine", dependsOn=["slow"])]
        document = workflow(tools=[slow, once, fine], steps=steps, finally_=[call("note", "fine")])
        shop.file(document, f"{name}.yaml")
    yield event
    event.set()


def in_its_call(shop: Shop, run: Running, times: int = 1) -> None:
    """Wait until the tool was asked so often and the run is in the middle of the last call."""
    until("the call", lambda: len(shop.tools.asked("/slow")) >= times or run.process.poll() is not None)
    assert run.process.poll() is None, run.said


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_driver_lets_the_call_end_and_says_how_to_go_on(
    number: signal.Signals, code: int, shop: Shop, release: threading.Event
) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        run.send(number)
        until("the word that it waits", lambda: "waiting for running steps" in run.said)
        release.set()
        said = run.end()
    assert said.code == code, said
    assert "Continue with: agentrun resume r" in said.err
    assert "Traceback" not in said.err
    assert [record["kind"] for record in shop.records("r", "slow")] == ["opened", "closed"]
    resumed = shop.agentrun("resume", "r")
    assert resumed.code == 0, resumed
    assert len(shop.tools.asked("/slow")) == 1


def test_a_second_interrupt_kills_and_the_call_is_repeated_with_its_key(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        pid = shop.pid_of("r", "slow")
        run.send(signal.SIGINT)
        until("the word that it waits", lambda: "Ctrl-C again kills" in run.said)
        run.send(signal.SIGINT)
        said = run.end()
    assert said.code == 130, said
    assert "Continue with: agentrun resume r" in said.err
    assert "Traceback" not in said.err
    assert gone(pid), "the driver ended before the step that it killed: asyncio then leaves a traceback"
    release.set()
    resumed = shop.agentrun("resume", "r")
    assert resumed.code == 0, resumed
    first, second = shop.tools.asked("/slow")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_a_killed_driver_leaves_a_step_that_ends_by_itself(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        run.send(signal.SIGKILL)
        run.end()
        found = shop.agentrun("show", "r", "-o", "json").json
        assert {s["name"]: s["state"] for s in found["status"]["steps"]}["slow"] in ("Running", "Pending")
        release.set()
        resumed = shop.agentrun("resume", "r")
    assert resumed.code == 0, resumed
    assert len(shop.tools.asked("/slow")) == 1


def test_one_of_two_drivers_is_told_who_has_the_run(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        refused = shop.agentrun("resume", "r")
        assert refused.code == 2, refused
        assert f"driven by process {run.process.pid}" in refused.err
        run.send(signal.SIGKILL)
        run.end()
    with shop.running("resume", "r") as one, shop.running("resume", "r") as two:
        ended = until("the one that comes second", lambda: [r for r in (one, two) if r.process.poll() is not None])
        assert len(ended) == 1
        loser, winner = (one, two) if ended == [one] else (two, one)
        said = loser.end()
        assert said.code == 2, said
        assert f"is driven by process {winner.process.pid}" in said.err
        release.set()
        assert winner.end().code == 0, winner.said
    assert len(shop.tools.asked("/slow")) == 1
    assert len(shop.tools.asked("/fine")) == 2


def test_a_killed_step_is_started_again(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        os.kill(shop.pid_of("r", "slow"), signal.SIGKILL)
        in_its_call(shop, run, 2)
        release.set()
        said = run.end()
    assert said.code == 0, said
    first, second = shop.tools.asked("/slow")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert [r["attempt"] for r in shop.records("r", "slow") if r["kind"] == "opened"] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "code", "calls", "state"),
    [
        (("--happened", '{"id": 7}'), 0, 1, "Succeeded"),
        (("--retry",), 0, 2, "Succeeded"),
        (("--give-up",), 1, 1, "Failed"),
    ],
)
def test_a_once_call_whose_process_was_killed_is_settled_by_a_person(
    answer: tuple[str, ...], code: int, calls: int, state: str, shop: Shop, release: threading.Event
) -> None:
    with shop.running("run", "once.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        os.kill(shop.pid_of("r", "slow"), signal.SIGKILL)
        said = run.end()
    assert said.code == 3, said
    assert "agentrun resolve r slow --retry" in said.out
    release.set()
    assert shop.agentrun("resume", "r").code == 3
    assert len(shop.tools.asked("/slow")) == 1
    resolved = shop.agentrun("resolve", "r", "slow", *answer)
    assert resolved.code == 0, resolved
    resumed = shop.agentrun("resume", "r", "-o", "json")
    assert resumed.code == code, resumed
    slow = next(step for step in resumed.json["status"]["steps"] if step["name"] == "slow")
    assert slow["state"] == state
    assert slow.get("output") == (
        {"id": 7} if "--happened" in answer else {"ok": True} if state == "Succeeded" else None
    )
    asked = shop.tools.asked("/slow")
    assert len(asked) == calls
    assert len({one.headers["idempotency-key"] for one in asked}) == 1


def test_a_run_that_is_suspended_stops_between_two_steps(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r") as run:
        in_its_call(shop, run)
        suspended = shop.agentrun("suspend", "r")
        assert suspended.code == 0, suspended
        release.set()
        said = run.end()
    assert said.code == 3, said
    assert "agentrun resume r" in said.out
    assert shop.tools.asked("/fine") == []
    assert shop.agentrun("show", "r", "-o", "json").json["status"]["phase"] == "Suspended"
    resumed = shop.agentrun("resume", "r")
    assert resumed.code == 0, resumed
    assert len(shop.tools.asked("/slow")) == 1
    assert len(shop.tools.asked("/fine")) == 2


def test_a_run_that_is_cancelled_is_undone_and_finally_runs(shop: Shop, release: threading.Event) -> None:
    with shop.running("run", "slow.yaml", "--name", "r", "-o", "json") as run:
        in_its_call(shop, run)
        cancelled = shop.agentrun("cancel", "r")
        assert cancelled.code == 0, cancelled
        until("the word to leave", lambda: shop.events("r")[-1]["kind"] == "cancelled")
        release.set()
        said = run.end()
    assert said.code == 1, said
    assert said.json["status"]["phase"] == "Cancelled"
    states = {step["name"]: step["state"] for step in said.json["status"]["steps"]}
    assert states == {
        "slow": "Succeeded", "after": "Cancelled", "note": "Succeeded", "slow.compensate": "Succeeded"
    }  # fmt: skip
    assert len(shop.tools.asked("/fine")) == 2
    again = shop.agentrun("cancel", "r")
    assert again.code == 2, again
