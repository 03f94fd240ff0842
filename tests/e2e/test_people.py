"""What people say to a run by the command line, and what they are told."""

from __future__ import annotations

import signal

from tests.e2e.local import call, tool, workflow
from tests.e2e.shop import Shop, until
from tests.e2e.toolhost import reply


def test_a_signal_is_told_of_and_its_payload_is_the_output(shop: Shop) -> None:
    steps = [
        {"name": "early", "wait": {"signal": "paid"}},
        {"name": "late", "wait": {"signal": "shipped"}, "dependsOn": ["early"]},
    ]
    file = shop.file(workflow(steps=steps, output={"early": "${steps.early.output}", "late": "${steps.late.output}"}))
    asked = shop.agentrun("run", file, "--name", "r", "-o", "json")
    assert asked.code == 3, asked
    assert "agentrun signal r paid [PAYLOAD]" in asked.err
    wrong = shop.agentrun("signal", "r", "payed")
    assert wrong.code == 2, wrong
    assert "its signals: paid, shipped" in wrong.err
    assert shop.agentrun("signal", "r", "shipped", '{"by": ["post", 1]}').code == 0
    assert shop.agentrun("resume", "r").code == 3
    assert shop.agentrun("signal", "r", "paid", "not { JSON").code == 0
    done = shop.agentrun("resume", "r", "-o", "json")
    assert done.code == 0, done
    assert done.json["status"]["output"] == {"early": "not { JSON", "late": {"by": ["post", 1]}}
    over = shop.agentrun("signal", "r", "paid")
    assert over.code == 2, over
    assert "Succeeded" in over.err


def test_two_people_are_two_people(shop: Shop) -> None:
    approval = {"subject": "Launch?", "approvers": {"groups": ["crew"]}, "required": 2}
    file = shop.file(workflow(steps=[{"name": "launch", "approval": approval}]))
    assert shop.agentrun("run", file, "--name", "r").code == 3
    assert shop.agentrun("approve", "r", "--as-group", "crew").code == 0
    before = shop.events("r")
    again = shop.agentrun("approve", "r", "--as-group", "crew")
    assert again.code == 2, again
    assert shop.events("r") == before
    waiting = shop.agentrun("resume", "r")
    assert waiting.code == 3, waiting
    assert shop.agentrun("show", "r", "-o", "json").json["status"]["phase"] == "Waiting"


def test_a_timer_is_waited_for_and_the_wait_can_be_interrupted(shop: Shop) -> None:
    shop.tools.on("/fine", reply({"ok": True}))
    steps = [
        {"name": "pause", "wait": {"duration": "${inputs.pause}"}},
        call("after", "fine", dependsOn=["pause"]),
    ]
    file = shop.file(workflow(tools=[tool("fine", f"{shop.tools.url}/fine")], steps=steps))
    with shop.running("run", file, "--name", "long", "-i", "pause=1h") as run:
        until("the wait", lambda: shop.events("long") or run.process.poll() is not None)
        run.send(signal.SIGINT)
        said = run.end()
    assert said.code == 130, said
    assert "Continue with: agentrun resume long" in said.err
    short = shop.agentrun("run", file, "--name", "short", "-i", "pause=500ms")
    assert short.code == 0, short
    [began, settled, *_] = shop.events("short")
    assert (began["kind"], settled["kind"]) == ("waitStarted", "settled")
    assert settled["at"] >= began["at"]
    assert len(shop.tools.asked("/fine")) == 1


def test_a_word_about_a_run_or_a_step_that_is_not_there_says_what_is(shop: Shop) -> None:
    file = shop.file(workflow(steps=[{"name": "wait", "wait": {"signal": "go"}}]))
    assert shop.agentrun("run", file, "--name", "r").code == 3
    for words, says in (
        (("show", "none"), 'there is no run "none" in namespace default'),
        (("approve", "r"), "does not wait for an approval"),
        (("approve", "r", "none"), "none"),
        (("resolve", "r", "wait", "--retry"), "nothing to resolve"),
        (("fork", "r", "--from", "none"), "none"),
        (("show", "../r"), "not the name of a run"),
        (("show", "r", "-n", "elsewhere"), "namespace elsewhere"),
    ):
        said = shop.agentrun(*words)
        assert said.code == 2, (words, said)
        assert says in said.err, (words, said)
        assert "Traceback" not in said.err, (words, said)
