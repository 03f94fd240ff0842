"""How values become text: JSON wherever a model or a person reads one."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentrun as agentrun_package
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.texts import as_text, quoted
from agentrun.cli.terminal.board import described
from agentrun.expressions.templates import Scope, Values, compile_text, compile_value
from agentrun.query.texts import value
from tests.harness.cli_store import PEOPLE, Scene, Type
from tests.harness.planner_world import CALL, PlannerWorld, approval, compiled, step

ORDER: dict[str, Any] = {"id": 7, "note": None, "paid": True, "who": "O'Brien", "rate": 1e16, "tags": ["é", "\u202e"]}
SCOPE = Scope(("inputs",), None)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def rendered(text: str, found: Any) -> Any:
    problems: list[Any] = []
    template = compile_text(text, SCOPE, (), problems)
    assert not problems
    return template.render(Values({"inputs": {"x": found}}))


@given(json_values)
def test_a_value_in_a_field_that_is_a_text_is_json(found: Any) -> None:
    whole = rendered("${inputs.x}", found)
    assert whole == (found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
    assert rendered("<${inputs.x}>", found) == f"<{whole}>"
    assert as_text(found) == whole
    if not isinstance(found, str):
        assert json.loads(whole) == found


@given(json_values)
def test_a_value_in_a_field_that_takes_any_json_keeps_its_type(found: Any) -> None:
    template = compile_value({"a": ["${inputs.x}"]}, SCOPE, (), [])
    assert template.render(Values({"inputs": {"x": found}})) == {"a": [found]}


@pytest.mark.parametrize("field", ["instructions", "prompt"])
def test_a_model_is_sent_json(field: str) -> None:
    """A prompt that was an object whole reached the model as Python writes it: None, True, single quotes."""
    program = compiled({"name": "a", "agent": {"prompt": "-"} | {field: "${inputs.order}"}})
    text = program.step("a").texts[field].render(Values({"inputs": {"order": ORDER}}))
    assert text == json.dumps(ORDER, ensure_ascii=False)


def test_people_are_asked_in_json() -> None:
    asks = approval("ok", subject="${inputs.order}", details="${inputs.order}")
    world = PlannerWorld(compiled(asks), inputs={"order": ORDER})
    world.go()
    [asked] = [event.body["request"] for event in world.events]
    assert asked["subject"] == json.dumps(ORDER, ensure_ascii=False) and asked["details"] == ORDER


@pytest.mark.parametrize("found", [None, True, 7, 1.5, {"a": None}, ["x", False]])
@pytest.mark.parametrize("how", ["duration", "until"])
def test_what_is_no_time_is_named_in_json(how: str, found: Any) -> None:
    world = PlannerWorld(compiled({"name": "w", "wait": {how: "${inputs.x}"}}), inputs={"x": found})
    world.go()
    message = world.ended["failure"]["message"]
    assert quoted(as_text(found)) in message and "is no" in message


@given(json_values)
def test_a_value_in_a_message_is_short_and_on_one_line(found: Any) -> None:
    text = quoted(found, 40)
    assert printable(text) == text and len(text) <= 12 * 40
    if len(json.dumps(found, ensure_ascii=False)) <= 40:
        assert json.loads(text) == found


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("O'Brien", '"O\'Brien"'),
        ("a\nb\u202ec\ud800", '"a\\nb\\u202ec\\ud800"'),
        ("x" * 99, '"' + "x" * 79 + '…"'),
        ({"a": None}, '{"a": null}'),
        ((1, 2), "[1, 2]"),
        (1e16, "1e+16"),
        (Decimal("1.50"), '"1.50"'),
        (datetime(2027, 1, 31, tzinfo=UTC), '"2027-01-31 00:00:00+00:00"'),
    ],
)
def test_how_a_message_names_a_value(found: Any, text: str) -> None:
    assert quoted(found) == text


def test_a_run_is_shown_with_its_values_as_json(scene: Scene, agentrun: Type) -> None:
    run = scene.run("r1", PEOPLE, inputs=ORDER)
    scene.event(run, "signalled", name="shipped", payload=ORDER, by="ana")
    scene.event(run, "settled", step="ask", state="Succeeded", output=ORDER)
    out = agentrun("show", "r1").out
    for line in (line for line in out.splitlines() if "O'Brien" in line):
        assert "null" in line and "true" in line and "None" not in line and "True" not in line, line
    assert sum("O'Brien" in line for line in out.splitlines()) >= 3
    for words in (["list"], ["show", "r1", "-o", "yaml"], ["show", "r1", "-o", "json"]):
        said = agentrun(*words).out
        assert "None" not in said and "': " not in said


@given(json_values)
def test_how_a_step_stands_is_said_in_json(found: Any) -> None:
    text = described({"name": "a", "state": "Waiting", "waitingFor": {"budget": found}})
    assert text == printable(f"Waiting: {value(f'budget: {as_text(found)}', 160)}")


def test_no_message_shows_a_value_as_python_writes_it() -> None:
    """``!r``, ``repr()`` and ``%r`` are for whoever debugs: a message takes ``quoted`` or ``as_text``."""
    found = []
    for path in sorted(Path(agentrun_package.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FormattedValue(conversion=conversion):
                    python = conversion in (ord("r"), ord("a"))
                case ast.Call(func=ast.Name(id=name)):
                    python = name in ("repr", "ascii")
                case ast.Constant(value=str(text)):
                    python = "%r" in text or "!r}" in text
                case _:
                    python = False
            if python:
                found.append(f"{path}:{getattr(node, 'lineno', 0)}")
    assert not found, f"use agentrun.api.texts: {', '.join(found)}"


# -- the last word -----------------------------------------------------------------------------------------------------


def test_the_last_word_says_which_effects_stay_and_why() -> None:
    """Two of three compensations failed, and the run said only why its last step had."""
    world = PlannerWorld(compiled(*(undone(name, *after) for name, after in STEPS)))
    for name in ("a", "b", "c"):
        world.go()
        world.succeed(name)
    world.go()
    world.fail("d", message="HTTP 422")
    world.go()
    world.fail("c.compensate", message="HTTP 400")
    world.go()
    world.fail("b.compensate", message="it is gone")
    world.go()
    world.succeed("a.compensate")
    last = world.go()
    stays = "these effects remain, because they were not undone: "
    assert last.status["message"].startswith(f"d: HTTP 422; {stays}")
    assert {"b (it is gone)", "c (HTTP 400)"} == set(last.status["message"].partition(stays)[2].split(", "))
    assert world.ended["notUndone"] == {"b": "it is gone", "c": "HTTP 400"}
    assert StepKey.parse("a.compensate").label not in world.ended["notUndone"]
    del world.ended["notUndone"]  # as ends were recorded before
    assert world.look().status["message"] == last.status["message"]


STEPS = [("a", ""), ("b", "a"), ("c", "b"), ("d", "c")]


def undone(name: str, *after: str, **more: Any) -> dict[str, Any]:
    """A step that has a compensation, and is tried once."""
    return step(name, *after, compensate=CALL, retry={"limit": 0}, **more)


def test_an_end_with_many_effects_that_stay_is_short() -> None:
    steps = undone("a", forEach={"items": "${inputs.n}"}), undone("z", "a")
    world = PlannerWorld(compiled(*steps), inputs={"n": list(range(40))})
    while world.go() and any(name.startswith("a[") for name in world.running):
        for name in list(world.running):
            world.succeed(name)
    world.fail("z", message="m" * 2000)
    while world.go() and world.running:
        for name in list(world.running):
            world.fail(name, message="w" * 2000)
    message = world.go().status["message"]
    assert len(message) <= 1024 and "and 35 more" in message and len(world.ended["notUndone"]) == 40


@pytest.mark.parametrize(
    ("items", "what"),
    [(None, "null"), ({"a": 1}, "an object"), ("x", "a string"), (7, "a number"), (True, "a boolean")],
)
def test_a_fan_out_over_what_is_no_list_says_what_it_is(items: Any, what: str) -> None:
    world = PlannerWorld(compiled(step("f", forEach={"items": "${inputs.x}"})), inputs={"x": items})
    ended = world.go()
    assert world.ended["failure"]["message"] == f"forEach.items is {what}, not a list"
    [entry] = ended.status["steps"]
    assert described(entry) == f"Failed: forEach.items is {what}, not a list (Invalid)"
