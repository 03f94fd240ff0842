"""The table of step kinds: whole, and the same as the schema's."""

from __future__ import annotations

from typing import get_args

import pytest

from agentrun.api.keys import StepKey
from agentrun.api.tools import ToolCall
from agentrun.api.values import Spec
from agentrun.api.workflow import STEP_KINDS, PodBody, Step, StepBody, WorkflowSpec
from agentrun.workflow.program import compile_program
from agentrun.workflow.step_kinds import KINDS, StepKind, kind_of, secret_refs

ROWS = list(KINDS.items())
IDS = [row.name for row in KINDS.values()]


def test_every_kind_has_a_row_in_both_tables() -> None:
    assert set(KINDS) == set(get_args(StepBody))
    assert list(STEP_KINDS) == IDS


@pytest.mark.parametrize(("body", "row"), ROWS, ids=IDS)
def test_a_row_is_about_the_body_that_its_field_holds(body: type[Spec], row: StepKind[Spec]) -> None:
    assert Step.model_fields[row.name].annotation == body | None
    assert set(row.templates) <= set(body.model_fields)
    assert STEP_KINDS[row.name].holds_pod == (body in get_args(PodBody))


SPEC = WorkflowSpec.model_validate(
    {
        "models": [
            {"name": "main", "model": "m", "credentials": {"secretRef": {"name": "model", "key": "key"}}},
            {"name": "other", "model": "m", "credentials": {"secretRef": {"name": "other", "key": "key"}}},
        ],
        "defaults": {"model": "main"},
        "tools": [
            {
                "name": name,
                "http": {
                    "url": "https://shop.example/",
                    "auth": {"bearer": {"secretRef": {"name": name.replace("_", "-"), "key": "token"}}},
                },
            }
            for name in ("look_up", "pay", "pay_back", "idle")
        ],
        "steps": [
            {"name": "judge", "agent": {"prompt": "Judge.", "tools": ["look_up"]}},
            {"name": "ask", "approval": {"subject": "Pay?", "approvers": {"users": ["eve"]}}},
            {"name": "rest", "wait": {"duration": "1m"}},
            {"name": "pay", "tool": {"name": "pay"}, "compensate": {"name": "pay_back"}},
        ],
    }
)

READS = {
    "judge": ["model", "look-up"],
    "ask": [],
    "rest": [],
    "pay": ["pay"],
}


@pytest.mark.parametrize("name", READS)
def test_a_step_reads_the_secrets_of_its_model_and_of_its_tools(name: str) -> None:
    assert [ref.name for ref in secret_refs(SPEC, compile_program(SPEC).step(name).body)] == READS[name]


def test_an_attempt_that_undoes_a_step_is_a_call() -> None:
    step = compile_program(SPEC).step("pay")
    undone = step.does(StepKey("pay", compensate=True))
    assert isinstance(undone, ToolCall) and kind_of(undone).one_call
    assert [ref.name for ref in secret_refs(SPEC, undone)] == ["pay-back"]


@pytest.mark.parametrize("key", [StepKey("judge", compensate=True), StepKey("ask"), StepKey("rest")])
def test_there_are_attempts_only_at_what_holds_a_pod(key: StepKey) -> None:
    with pytest.raises(ValueError, match="no attempts"):
        compile_program(SPEC).step(key.name).does(key)
