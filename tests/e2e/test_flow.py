"""The control flow of runs, seen from outside: what was called, in which order, how often, and how it ended."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentrun.local.driver import End
from tests.e2e.local import LocalRun, agent, call, run_of, tool, workflow
from tests.e2e.shop import Shop, until
from tests.e2e.toolhost import Answer, Handler, reply

MODELS: dict[str, Any] = {
    "models": [{"name": "main", "model": "m", "price": {"input": "1.00", "output": "2.00"}}],
    "defaults": {"model": "main", "retry": {"limit": 0}},
}
NUMBER = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}

RULES = [
    {"match": {"text": "<repaired>", "turn": 0}, "json": {"n": "seven"}},
    {"match": {"text": "<repaired>", "turn": 1}, "text": '```json\n{"n": 7}\n```'},
    {"match": {"text": "<hopeless>"}, "text": "seven"},
    {"match": {"text": "<unparsed>"}, "text": '<tool_call>{"name": "look", "arguments": {}}</tool_call>'},
    {"match": {"text": "<pays>", "turn": 0}, "tool_calls": [{"name": "pay", "args": {"amount": a}} for a in (5, 500)]},
    {"match": {"text": "<pays>", "turn": 1}, "text": "paid"},
    {"match": {"text": "<all at once>", "turn": 0}, "tool_calls": [{"name": "side", "args": {}}] * 3},
    {"match": {"text": "<looks>", "turn": 0}, "tool_calls": [{"name": "look", "args": {}}]},
    {"match": {"text": "<looks>", "turn": 1}, "text": "seen"},
]


@dataclass
class Crowd:
    """An answer that is given when ``size`` requests are there at once, or ``size`` once were; it notes the peak."""

    size: int
    peak: int = 0
    _there: int = 0
    _full: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self) -> Answer:
        def answer(handler: Handler) -> None:
            with self._lock:
                self._there += 1
                self.peak = max(self.peak, self._there)
                if self._there >= self.size:
                    self._full.set()
            self._full.wait(20)
            with self._lock:
                self._there -= 1
            reply({"order": handler.path.rpartition("/")[2]})(handler)

        return answer


CROWD = Crowd(2)


def documents(url: str) -> dict[str, dict[str, Any]]:
    """Every run of this file by its name."""
    pay = tool(
        "pay",
        f"{url}/pay",
        effect="Once",
        approval={"when": "args.amount > 100", "approvers": {"groups": ["finance"]}},
        parameters={"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}},
    )
    look = tool("look", f"{url}/look")
    fine, broken = tool("fine", f"{url}/fine"), tool("broken", f"{url}/broken")
    looks = workflow(**MODELS, tools=[look], steps=[agent("ask", "<looks>", tools=["look"])])
    twice = [call("first", "counted"), call("second", "counted", dependsOn=["first"])]
    return {
        "fan-out": workflow(
            tools=[tool("order", f"{url}/order/${{args.id}}", parameters={"type": "object"})],
            steps=[
                call(
                    "each",
                    "order",
                    {"id": "${item}-${index}"},
                    forEach={"items": "${inputs.orders}", "maxParallel": 2},
                    when="item != 'skip'",
                )
            ],
            output="${steps.each.output}",
        ),
        "backoff": workflow(
            tools=[tool("shaky", f"{url}/shaky", effect="Once")],
            steps=[call("try", "shaky", retry={"limit": 2, "backoff": {"initial": "200ms", "factor": 2}})],
        ),
        "tolerant": workflow(
            tools=[fine, broken],
            steps=[
                call("bad", "broken", continueOnError=True),
                call("good", "fine", dependsOn=["bad"], when="steps.bad.state == 'Failed' && steps.bad.output == null"),
            ],
            output={"bad": "${steps.bad.state}", "good": "${steps.good.output}"},
        ),
        "strict": workflow(
            tools=[fine, broken],
            steps=[
                call("made", "fine", compensate={"name": "fine", "args": {"undo": "${steps.made.output}"}}),
                call("bad", "broken", dependsOn=["made"]),
                call("never", "fine", dependsOn=["bad"]),
            ],
            finally_=[call("note", "fine", {"text": "${run.outcome}: ${steps.bad.state}, ${steps.never.state}"})],
        ),
        "no-output": workflow(
            tools=[fine], steps=[call("good", "fine")], output={"missing": "${steps.good.output.there.is.none}"}
        ),
        "no-args": workflow(tools=[fine], steps=[call("good", "fine", {"id": "${inputs.nothing}"})]),
        "repaired": workflow(
            **MODELS, steps=[agent("ask", "<repaired>", output=NUMBER)], output="${steps.ask.output.n}"
        ),
        "hopeless": workflow(**MODELS, steps=[agent("ask", "<hopeless>", output=NUMBER)]),
        "unparsed": workflow(**MODELS, tools=[look], steps=[agent("ask", "<unparsed>", tools=["look"])]),
        "asks": workflow(**MODELS, tools=[pay], steps=[agent("ask", "<pays>", tools=["pay"])]),
        "waits": workflow(
            tools=[fine],
            steps=[
                {"name": "pause", "wait": {"duration": "${inputs.pause}"}},
                {"name": "past", "wait": {"until": "2020-01-01T00:00:00Z"}},
                {"name": "early", "wait": {"signal": "early"}},
                {"name": "late", "wait": {"signal": "late"}, "dependsOn": ["early"]},
                {"name": "never", "wait": {"signal": "never", "timeout": "300ms"}, "continueOnError": True},
            ],
            output="${steps.late.output}",
        ),
        "model-calls": run_of(looks, budget={"modelCalls": 1}),
        "tokens": run_of(looks, budget={"tokens": 20}),
        "cost": run_of(looks, budget={"costUSD": "0.00001"}),
        "tool-calls": run_of(workflow(tools=[tool("counted", f"{url}/counted")], steps=twice), budget={"toolCalls": 1}),
        "no-tool-calls": run_of(looks, budget={"toolCalls": 0}),
        "side-by-side": run_of(
            workflow(
                **MODELS, tools=[tool("side", f"{url}/side")], steps=[agent("ask", "<all at once>", tools=["side"])]
            ),
            budget={"toolCalls": 2},
        ),
        "refused": run_of(
            workflow(
                tools=[tool("gone", f"{url}/gone")],
                steps=[call("first", "gone", continueOnError=True), call("second", "gone", dependsOn=["first"])],
            ),
            budget={"toolCalls": 1},
        ),
    }


INPUTS: dict[str, dict[str, Any]] = {
    "fan-out": {"orders": ["a", "b", "c", "skip", "e", "f"]},
    "waits": {"pause": "300ms"},
}
ASKED = {
    "asks": 1,
    "repaired": 2,
    "hopeless": 3,
    "unparsed": 3,
    "model-calls": 1,
    "tokens": 0,
    "cost": 0,
    "no-tool-calls": 1,
}
"""How often the model is asked."""


@pytest.fixture(scope="module")
def runs(stage: Shop) -> dict[str, tuple[LocalRun, End]]:
    """Every run, driven side by side until its end or until a person is needed."""
    stage.model.script = {"rules": RULES}
    for path in ("/fine", "/look", "/pay", "/counted", "/side"):
        stage.tools.on(path, reply({"fine": True}))
    stage.tools.on("/broken", reply({"error": "no"}, 422))
    stage.tools.on("/gone", reply({"error": "no"}, 404))
    stage.tools.on("/shaky", reply("oh", 429), reply("oh", 429), reply({"fine": True}))
    for number, item in enumerate(INPUTS["fan-out"]["orders"]):
        stage.tools.on(f"/order/{item}-{number}", CROWD.answer())
    made = {
        name: LocalRun.create(stage.store, document, stage.secrets, INPUTS.get(name))
        for name, document in documents(stage.tools.url).items()
    }
    made["waits"].say("signalled", name="early", payload="so early", by="ana")

    async def drive() -> list[End]:
        return await asyncio.gather(*(run.drive() for run in made.values()))

    return dict(zip(made, zip(made.values(), asyncio.run(drive()), strict=True), strict=True))


def test_a_fan_out_runs_two_at_a_time_and_keeps_the_order(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["fan-out"]
    assert end is End.SUCCEEDED
    assert CROWD.peak == 2
    orders = [
        None if item == "skip" else {"order": f"{item}-{n}"} for n, item in enumerate(INPUTS["fan-out"]["orders"])
    ]
    assert run.status["output"] == orders
    assert run.steps["each"]["items"] == {"Skipped": 1, "Succeeded": 5}
    assert stage.tools.asked("/order/skip-3") == []


def test_a_retry_waits_longer_each_time_and_keeps_the_key(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["backoff"]
    assert end is End.SUCCEEDED
    asked = stage.tools.asked("/shaky")
    assert len(asked) == 3
    assert len({one.headers["idempotency-key"] for one in asked}) == 1
    records = run.records("try")
    failed = [r.at for r in records if r.kind == "failed"]
    opened = [r.at for r in records if r.kind == "opened"]
    assert len(failed) == 2
    for at, after, pause in zip(failed, opened[1:], (0.2, 0.4), strict=True):
        assert after - at >= pause


def test_a_failure_that_is_tolerated_is_seen_by_what_follows(runs: dict[str, tuple[LocalRun, End]]) -> None:
    run, end = runs["tolerant"]
    assert end is End.SUCCEEDED
    assert run.status["output"] == {"bad": "Failed", "good": {"fine": True}}


def test_a_failure_is_compensated_and_finally_hears_of_it(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["strict"]
    assert end is End.FAILED
    states = {name: step["state"] for name, step in run.steps.items()}
    assert states == {
        "made": "Succeeded", "bad": "Failed", "never": "Cancelled", "note": "Succeeded", "made.compensate": "Succeeded"
    }  # fmt: skip
    order = [r.at for step in ("made", "bad", "made.compensate", "note") for r in run.records(step)[-1:]]
    assert order == sorted(order)
    note = run.records("note")[0].body["task"]["args"]["text"]
    assert note == "Failed: Failed, Cancelled"
    assert "422" in run.status["message"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("no-output", "output: steps.good.output.there"), ("no-args", "inputs.nothing")],
)
def test_a_value_that_is_missing_is_an_error_that_names_it(
    name: str, says: str, runs: dict[str, tuple[LocalRun, End]]
) -> None:
    run, end = runs[name]
    assert end is End.FAILED
    assert says in run.status["message"]
    assert run.events[-1].body["failure"]["class"] == "Invalid"


def test_an_answer_that_does_not_fit_is_asked_for_again(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["repaired"]
    assert end is End.SUCCEEDED
    assert run.status["output"] == 7
    _, second = asked(stage, "<repaired>")
    assert "Your last answer cannot be used" in str(second["input"][-1])
    hopeless, end = runs["hopeless"]
    assert end is End.FAILED
    assert hopeless.steps["ask"]["failure"]["class"] == "Invalid"
    assert len(asked(stage, "<hopeless>")) == 3


def test_a_call_that_stays_in_the_text_is_no_answer(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    """The step succeeded with the call as its output, and nothing had been looked up."""
    run, end = runs["unparsed"]
    assert end is End.FAILED
    assert run.steps["ask"]["failure"]["class"] == "Invalid"
    assert "a call of look as text" in run.status["message"] and "--tool-call-parser" in run.status["message"]
    assert len(asked(stage, "<unparsed>")) == 3


def asked(stage: Shop, text: str) -> list[Any]:
    return [body for body in stage.model.requests if text in str(body)]


def test_a_signal_may_come_early_or_late(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["waits"]
    assert end is End.WAITING
    states = {name: step["state"] for name, step in run.steps.items()}
    assert states == {
        "pause": "Succeeded", "past": "Succeeded", "early": "Succeeded", "late": "Waiting", "never": "Failed"
    }  # fmt: skip
    assert run.steps["early"]["output"] == "so early"
    assert run.steps["never"]["failure"]["class"] == "Timeout"
    settled = {r.body["step"]: r.at for r in run.events if r.kind == "settled"}
    due = {r.body["step"]: r.body["until"] for r in run.events if r.kind == "waitStarted" and "until" in r.body}
    assert settled["pause"] >= due["pause"]
    run.say("signalled", name="late", payload={"at": "last"}, by="ana")
    assert asyncio.run(run.drive()) is End.SUCCEEDED
    assert run.status["output"] == {"at": "last"}


def test_a_tool_call_of_an_agent_asks_people_where_its_condition_says(
    runs: dict[str, tuple[LocalRun, End]], stage: Shop
) -> None:
    run, end = runs["asks"]
    assert end is End.WAITING
    assert [one.json for one in stage.tools.asked("/pay")] == [{"amount": 5}]
    waiting = run.steps["ask"]["waitingFor"]
    assert waiting["subjects"] == ['pay({"amount": 500})']
    [request] = run.records("ask")[-1].body["approvals"]
    approved = {"step": "ask", "decision": "Approved", "comment": "ok"}
    run.say("decided", digest="sha256:other", by="ben", groups=["finance"], **approved)
    run.say("decided", digest=request["digest"], by="eve", groups=["sales"], **approved)
    assert asyncio.run(run.drive()) is End.WAITING
    run.say("decided", digest=request["digest"], by="ben", groups=["finance"], **approved)
    assert asyncio.run(run.drive()) is End.SUCCEEDED
    assert [one.json for one in stage.tools.asked("/pay")] == [{"amount": 5}, {"amount": 500}]
    [intent] = [r for r in run.records("ask") if r.kind == "intent" and r.body["args"] == {"amount": 500}]
    assert intent.body["approvedBy"] == ["ben"]
    assert len(asked(stage, "<pays>")) == 2


@pytest.mark.parametrize(
    ("name", "says", "kind", "at"),
    [
        ("model-calls", "modelCalls", "model", "ask"),
        ("tokens", "tokens", "model", "ask"),
        ("cost", "costUSD", "model", "ask"),
        ("tool-calls", "toolCalls", "tool", "second"),
        ("no-tool-calls", "toolCalls", "tool", "ask"),
    ],
)
def test_a_budget_holds_before_the_call_is_made(
    name: str, says: str, kind: str, at: str, runs: dict[str, tuple[LocalRun, End]], stage: Shop
) -> None:
    run, end = runs[name]
    assert end is End.FAILED
    failure = run.steps[at]["failure"]
    assert failure["class"] == "Budget"
    assert failure["message"] == f"the run's budget of {says} does not cover the next call"
    usage = run.status["usage"]
    assert usage["modelCalls"] == ASKED.get(name, 0)
    assert usage["toolCalls"] == (1 if name in ("tool-calls", "model-calls") else 0)


def test_calls_side_by_side_do_not_pass_the_budget_together(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["side-by-side"]
    assert end is End.FAILED
    assert run.steps["ask"]["failure"]["class"] == "Budget"
    assert len(stage.tools.asked("/side")) == run.status["usage"]["toolCalls"] == 2


def test_a_call_that_is_refused_counts(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    run, end = runs["refused"]
    assert end is End.FAILED
    assert run.steps["second"]["failure"]["class"] == "Budget"
    assert len(stage.tools.asked("/gone")) == run.status["usage"]["toolCalls"] == 1


def test_nobody_was_called_beyond_a_budget(runs: dict[str, tuple[LocalRun, End]], stage: Shop) -> None:
    del runs
    assert len(asked(stage, "<looks>")) == ASKED["model-calls"] + ASKED["no-tool-calls"]
    assert len(stage.tools.asked("/look")) == 1
    assert len(stage.tools.asked("/counted")) == 1


BEGINS, NEVER = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-05:00"


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_a_wait_until_either_end_of_the_calendar_is_a_wait(shop: Shop, zone: str) -> None:
    """Written in the file, and computed. "Never", as a database writes it, once ended every verb of the namespace."""

    def waits(name: str, *instants: str) -> list[dict[str, Any]]:
        return [{"name": f"{name}{n}", "wait": {"until": at}} for n, at in enumerate(instants)]

    typed = {"type": "object", "properties": {"at": {"type": "string"}}}
    past, far = waits("p", BEGINS, "${inputs.at}"), waits("f", NEVER, "${inputs.at}")
    shop.file(workflow(inputs=typed, steps=past), "past.yaml")
    shop.file(workflow(inputs=typed, steps=far), "far.yaml")
    env = {"TZ": zone}
    assert shop.agentrun("run", "past.yaml", "--name", "past", "-i", f"at={BEGINS}", env=env).code == 0
    said = shop.agentrun("run", "far.yaml", "--name", "far", "-i", f"at={NEVER}", "--detach", env=env)
    assert said.code == 0, said
    until("both waits", lambda: [e["kind"] for e in shop.events("far")].count("waitStarted") == 2)
    listed = shop.agentrun("list", env=env)
    assert listed.code == 0 and {"past", "far"} <= {line.split()[0] for line in listed.out.splitlines()}, listed
    for words in ("show past", "show far", "logs far", "diff far past", "audit export far", "audit verify far"):
        said = shop.agentrun(*words.split(), env=env)
        assert said.code in (0, 1) and "Traceback" not in said.err, (words, said)
    assert "for ever" in shop.agentrun("show", "far", env=env).out
    assert shop.agentrun("cancel", "far", env=env).code == 0
    until("the end", lambda: shop.events("far")[-1]["kind"] == "ended")
    assert shop.events("far")[-1]["body"]["outcome"] == "Cancelled"
