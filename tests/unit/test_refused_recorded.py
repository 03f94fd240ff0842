"""What an endpoint refuses is recorded: a resumed attempt, a later step and a fork do not find out again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agentrun.api.facts import REFUSED_MAX, Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.workflow import FailureClass
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.fold import Folded, fold
from agentrun.journal.log import manifest_bytes, read_step
from agentrun.plan.snapshot import Start
from agentrun.records.step_records import Kind
from agentrun.runner.failures import Failure
from agentrun.runner.models import Request, Turn
from agentrun.runner.ports import Ports
from tests.harness import runner_scene as calls
from tests.harness.planner_world import PlannerWorld, compiled, step
from tests.harness.runner_scene import KEY, OVERFLOW, RUN, Scene, said


class Learning(calls.ScriptedModel):
    """A model that learns a word with each question."""

    def __init__(self, words: list[str], *answers: Turn | Exception) -> None:
        super().__init__(*answers)
        self.words = words
        self.known: list[set[str]] = []

    async def ask(self, request: Request) -> Turn:
        self.known.append(set(request.refused))
        request.refused.update(self.words[:1])
        del self.words[:1]
        return await super().ask(request)


@pytest.fixture(autouse=True)
def without_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "preload", lambda self: None)


def learning(words: list[str], *answers: Turn | Exception) -> tuple[Scene, Learning]:
    scene = Scene()
    scene.model = model = Learning(words, *answers)
    return scene, model


def recorded(scene: Scene) -> list[tuple[str, Any]]:
    records = read_step(scene.store, RUN, KEY, whole=True)
    return [(str(record.kind), record.body["refused"]) for record in records if "refused" in record.body]


def test_what_is_learned_stands_in_the_next_record_and_once() -> None:
    scene, model = learning(["store"], said(None, "look"), said(None, "look"), said("done"))
    fact = scene.attempt()
    assert recorded(scene) == [("turn", ["m/store"])]
    assert model.known == [set(), {"store"}, {"store"}]
    assert fact.refused == ("m/store",)
    assert fact.usage.model_calls == 3


def test_an_attempt_that_fails_hands_on_what_it_learned() -> None:
    scene, model = learning(["store", "include"], Failure(FailureClass.PROVIDER, "down", retryable=True), said("done"))
    assert scene.attempt().end == "failed"
    assert scene.attempt().outcome == "Succeeded"
    assert recorded(scene) == [("failed", ["m/store"]), ("turn", ["m/include", "m/store"])]
    assert model.known == [set(), {"store"}]


def test_a_summary_learns_and_knows_as_a_turn_does() -> None:
    scene, model = learning(["store", "include", "strict"], said(None, "look"), OVERFLOW, said("summary"), said("done"))
    assert scene.attempt().outcome == "Succeeded"
    assert recorded(scene) == [("turn", ["m/store"]), ("compacted", ["m/include", "m/store", "m/strict"])]
    assert model.known == [set(), {"store"}, {"store", "include"}, {"store", "include", "strict"}]


def test_what_other_steps_learned_is_known_from_the_start() -> None:
    scene, model = learning([], said("done"))
    start = Start(KEY, 1, {}, (), Allowance(), 60.0, refused=("m/store", "other/include"))
    told = AttemptSpec("memory", RUN, start)
    again = AttemptSpec.from_environment({STEP_VARIABLE: told.to_json()})
    assert again == told
    assert "refused" not in json.loads(replace(told, start=replace(start, refused=())).to_json())
    scene.told = {"refused": start.refused}
    scene.attempt()
    assert model.known == [{"store"}]
    assert recorded(scene) == [("turn", ["m/store"])]


def test_words_of_a_later_version_are_kept_and_not_acted_on() -> None:
    state = Folded(refused=["m/store"])
    assert "refused" not in state.to_json()
    assert state.checkpoint() == {"reason": "checkpoint", "state": state.to_json(), "refused": ["m/store"]}
    assert "refused" not in Folded().checkpoint()
    scene, model = learning([], said("done"))
    scene.told = {"refused": ("m/of-a-later-version", "m/>x", "m/>8192")}
    scene.attempt()
    assert model.known == [{">8192"}]


def test_a_fact_holds_what_is_refused_within_bounds() -> None:
    fact = StepFact(refused=("m/store",))
    assert StepFact.from_json(fact.to_json()) == fact
    assert "refused" not in StepFact().to_json()
    for forged in ({"a": 1}, "text", None, 7, ["x" * 10_000], [1, None, ["a"]]):
        assert StepFact.from_json(StepFact().to_json() | {"refused": forged}).refused == ()
    many = [f"m/{n}" for n in range(10_000)]
    assert len(StepFact.from_json(StepFact().to_json() | {"refused": many}).refused) == REFUSED_MAX


AGENT = {"agent": {"prompt": "go", "model": "m"}}
MODELS = [{"name": "m", "model": "gpt"}, {"name": "other", "model": "x"}]


def starts(world: PlannerWorld) -> dict[str, Start]:
    world.go()
    return {start.key.path: start for start in world.starts}


def test_a_later_step_is_told_of_its_own_model() -> None:
    call = {"tool": {"name": "t", "args": {"a": "1"}}}
    program = compiled(
        step("a", **AGENT),
        step("b", "a", **AGENT),
        step("c", "a", agent={"prompt": "go", "model": "other"}),
        step("d", "a", **call),
        models=MODELS,
    )
    world = PlannerWorld(program)
    assert starts(world)["a"].refused == ()
    key = StepKey("a")
    world.succeed("a")
    world.facts[key] = replace(world.facts[key], refused=("m/include", "m/store", "other/store"))
    found = starts(world)
    assert found["b"].refused == ("m/include", "m/store")
    assert found["c"].refused == ("other/store",)
    assert found["d"].refused == ()


def test_a_record_of_any_kind_may_hold_it() -> None:
    scene = Scene(said("done"))
    scene.attempt()
    records = read_step(scene.store, RUN, KEY, whole=True)
    assert [record.kind for record in records] == [Kind.OPENED, Kind.TURN, Kind.CLOSED]
    marked = [replace(record, body={**record.body, "refused": [f"m/{n}"]}) for n, record in enumerate(records)]
    assert fold(marked).refused == ["m/0", "m/1", "m/2"]
    assert replace(fold(marked), refused=[]) == fold(records)
    for forged in ({"a": 1}, "text", None, 7, ["x" * 10_000], [1, None, ["a"]]):
        assert fold(replace(r, body={**r.body, "refused": forged}) for r in records).refused == []
    many = [replace(r, body={**r.body, "refused": [f"{r.seq}/{n}" for n in range(100)]}) for r in records]
    assert len(fold(many).refused) == REFUSED_MAX


def test_a_step_without_a_model_knows_nothing_of_it() -> None:
    scene = Scene()
    scene.told = {"refused": ("m/store",)}
    workflow = {"tools": calls.TOOLS, "models": [{"name": "m", "model": "gpt"}]}
    workflow["steps"] = [{"name": "a", "tool": {"name": "look", "args": {}}}]
    about = {"v": 1, "name": "r", "namespace": "n", "uid": "0" * 32, "requestedBy": "me", "inputs": {}}
    scene.store.objects[RUN.manifest] = manifest_bytes({**about, "workflow": workflow})
    assert scene.attempt().outcome == "Succeeded"
    assert recorded(scene) == []
