"""docs/reference/ against the code: a field, a bound, a default, a word of an enum, a variable or an option that the
page does not have, or has and the code has not, fails here with the line that is expected."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from agentrun.api import labels, placement, status, tools, values
from agentrun.api.approval import DECIDED, Approval, DecidedReason
from agentrun.api.command import AcceptedReason, AgentCommand
from agentrun.api.facts import StepFact
from agentrun.api.run import AgentRun, AgentWorkflow, ConditionType, Outcome, Reason, StepState
from agentrun.api.tools import Effect
from agentrun.api.workflow import FailureClass
from agentrun.attempt.exit_codes import Exit
from agentrun.cli.main import app
from agentrun.records.manifest import RunManifest
from agentrun.records.run_events import EventKind
from agentrun.records.step_records import Kind
from tests.unit.record_forms import FORMS, check, fields

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

WORDS = {
    values.NAME_PATTERN: "[name](#scalars)",
    values.TOOL_PATTERN: "[tool name](#scalars)",
    values.DURATION_PATTERN: "[duration](#scalars)",
    values.MONEY_PATTERN: "[money](#scalars)",
    values.LABEL_PATTERN: "`STEP` or `STEP[INDEX]`",
    tools.URL_PATTERN: "URL",
    tools.SUBDOMAIN_PATTERN: "name of a Secret",
    tools.DATA_KEY_PATTERN: "key in a Secret",
    values.KEY_PATTERN: "[place](#scalars)",
    values.DIGEST_PATTERN: "[digest](#scalars)",
    values.UID_PATTERN: "[uid](#scalars)",
    placement.SERVICE_ACCOUNT_PATTERN: "name of a ServiceAccount",
    placement.IMAGE_PATTERN: "image",
    placement.QUANTITY_PATTERN: "[quantity](#scalars)",
    placement.LABEL_KEY_PATTERN: "key of a label",
    placement.LABEL_VALUE_PATTERN: "value of a label",
}
PLAIN = {"Subject", "Requestedby"}
"""Texts as long as a template or an expression that are neither."""

ENUMS: dict[str, type[Enum]] = {
    "Effects": Effect,
    "Failure classes": FailureClass,
    "States of a step": StepState,
    "Outcomes": Outcome,
    "Conditions": ConditionType,
    "Reasons": Reason,
    "Records of a step": Kind,
    "Events of a run": EventKind,
}


@cache
def sections() -> dict[str, str]:
    """The text below each heading, up to the next heading of any level."""
    text = "\n".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))
    text = re.sub(r"\]\([a-z]+\.md#", "](#", text)  # the pages are one text here
    parts = re.split(r"^#{1,6} (.+)$", text, flags=re.MULTILINE)
    titles = parts[1::2]
    assert len(set(titles)) == len(titles), "two sections have one title"
    return dict(zip(titles, parts[2::2], strict=True))


def rows(title: str) -> list[list[str]]:
    """The cells of the tables below a heading, without their heads."""
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        for line in sections()[title].splitlines()
        if line.startswith("| ")
    ]


def named(title: str) -> list[str]:
    """What the first cells of the tables below a heading name."""
    return [match[1] for row in rows(title) if (match := re.fullmatch(r"`([^`]+)`", row[0]))]


def definitions() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every type of the resources, by its name."""
    found: dict[str, dict[str, Any]] = {}
    for model in (AgentWorkflow, AgentRun, Approval, AgentCommand):
        schema = model.model_json_schema(by_alias=True)
        found |= schema.pop("$defs")
        found[model.__name__] = schema
    return {name: schema for name, schema in found.items() if "properties" in schema}


def type_of(node: dict[str, Any]) -> str:
    """The type and the bounds in the words of the page."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return "[Effect](#effects)" if name == "Effect" else f"[{name}](#{name.lower()})"
    if "anyOf" in node:
        (some,) = [option for option in node["anyOf"] if option.get("type") != "null"]
        return type_of({"title": node.get("title"), **some})
    if "enum" in node or "const" in node:
        words = node.get("enum", [node.get("const")])
        return ", ".join(f"`{word if isinstance(word, str) else json.dumps(word)}`" for word in words)
    match node.get("type"):
        case "string":
            word, low, high = WORDS.get(node.get("pattern", ""), "text"), node.get("minLength"), node.get("maxLength")
            if word.startswith("["):
                return word
            plain = node.get("title") in PLAIN
            if high == values.EXPRESSION_MAX and not plain:
                return "[expression](#expressions)"
            if node.get("format") == "date-time":
                return "instant, RFC 3339"
            if high == values.TEXT_MAX and not plain:
                word, high = "[template](#templates)", None
            pinned = re.fullmatch(r"\^([\w./]+)\$", node.get("pattern", ""))
            return f"`{pinned[1]}`" if pinned else word + bounds(low, high, "characters")
        case "integer":
            return "whole number" + bounds(node.get("minimum"), node.get("maximum"))
        case "number":
            return "number" + bounds(node.get("minimum"), node.get("maximum"))
        case "boolean":
            return "`true`, `false`"
        case "array":
            return f"list of {type_of(node['items'])}" + bounds(node.get("minItems"), node.get("maxItems"), "entries")
        case "object":
            inner = node.get("additionalProperties")
            of = f" of {type_of(inner)}" if isinstance(inner, dict) else ""
            return f"object{of}" + bounds(None, node.get("maxProperties"), "entries")
        case _:
            return "any JSON"


def bounds(low: float | None, high: float | None, what: str = "") -> str:
    unit = f" {what}" if what else ""
    if low is not None and high is not None:
        return f", {low:,g} to {high:,}{unit}"
    if high is not None:
        return f", at most {high:,}{unit}"
    if low == 1 and what:
        return ", not empty"
    return f", at least {low:,g}{unit}" if low is not None else ""


def default_of(schema: dict[str, Any], field: str) -> str:
    """The default in the words of the page."""
    if field in schema.get("required", ()):
        return "required"
    default = schema["properties"][field].get("default")
    if not default and not isinstance(default, bool):
        return ""
    if isinstance(default, dict) and "$ref" in schema["properties"][field]:
        return "as there"  # the defaults of the type that the row links to
    return f"`{default}`" if isinstance(default, str) else f"`{json.dumps(default)}`"


@pytest.mark.parametrize("name", sorted(definitions()))
def test_every_field_stands_there_with_its_type_bounds_and_default(name: str) -> None:
    schema = definitions()[name]
    there = {row[0]: row for row in rows(name)}
    expected = [
        [f"`{field}`", type_of(node), default_of(schema, field)] for field, node in schema["properties"].items()
    ]
    for row in expected:
        assert there.get(row[0], [])[:3] == row, f"under ### {name}, write | {' | '.join(row)} | what it means |"
        assert len(there[row[0]]) == 4 and there[row[0]][3], f"{name}.{row[0]} has no meaning"
    assert list(there)[1:] == [row[0] for row in expected], "a field that the code does not have, or another order"


@pytest.mark.parametrize("title", ENUMS)
def test_every_word_of_an_enum_stands_there_and_no_other(title: str) -> None:
    assert sorted(named(title)) == sorted(str(member.value) for member in ENUMS[title])


def test_every_exit_of_a_step_process_stands_there_and_no_other() -> None:
    there = {row[0]: row[1] for row in rows("Exit codes of a step's process")[1:]}
    assert there == {str(int(code)): f"`{code.name}`" for code in Exit}


def test_every_field_of_a_status_stands_there_and_no_other() -> None:
    assert named("Status") == list(status.RUN_STATUS["properties"])


def test_every_field_of_an_approvals_status_stands_there_and_no_other() -> None:
    title = "The status of an Approval"
    assert named(title) == list(status.APPROVAL_STATUS["properties"])
    decision = status.APPROVAL_STATUS["properties"]["decisions"]["items"]["properties"]
    assert {*decision, DECIDED} <= set(re.findall(r"`([^`]+)`", sections()[title]))
    assert tuple(named("Reasons of Decided")) == get_args(DecidedReason)
    assert tuple(named("Reasons of Accepted")) == get_args(AcceptedReason)


def test_every_field_of_an_entry_of_steps_stands_there() -> None:
    there = set(re.findall(r"`([^`]+)`", sections()["Status"]))
    entry = status.RUN_STATUS["properties"]["steps"]["items"]["properties"]
    assert {*entry, *entry["waitingFor"]["properties"]} <= there


def test_every_label_and_annotation_stands_there_and_no_other() -> None:
    ours = [value for name, value in vars(labels).items() if name.isupper()]
    assert sorted(named("Labels and annotations")) == sorted(ours)


def test_every_environment_variable_stands_there_and_no_other() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))
    ours = set(re.findall(r"\bAGENTRUN_[A-Z_]*[A-Z]\b", source))
    others = set(re.findall(r"\b(?:OPENAI|AWS)_[A-Z0-9_]*[A-Z0-9]\b", source))
    there = set(named("Environment variables"))
    assert {name for name in there if name.startswith("AGENTRUN_")} == ours
    assert others <= there


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def usage(words: str, command: click.Command) -> str:
    """The verb with its arguments."""
    context = click.Context(command)
    return " ".join([words, *(p.make_metavar(context) for p in command.params if isinstance(p, click.Argument))])


def spelt(option: click.Option, context: click.Context) -> str:
    """The option with what it takes."""
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    return f"`{', '.join(option.opts)}{value}`"


def test_every_verb_stands_there_and_no_other() -> None:
    assert named("Verbs") == [usage(words, command) for words, command in commands(app)]


def test_every_option_stands_there_with_its_verbs_and_no_other() -> None:
    takes: dict[str, list[str]] = {}
    verbs = dict(commands(app))
    for words, command in verbs.items():
        context = click.Context(command)
        for option in command.params:
            if isinstance(option, click.Option):
                takes.setdefault(spelt(option, context), []).append(f"`{words}`")
    expected = {option: "every verb" if len(of) == len(verbs) else ", ".join(of) for option, of in takes.items()}
    there = {row[0]: row[1] for row in rows("Options")[1:]}
    assert there == expected


def test_the_readme_has_the_same_verbs_and_exit_codes() -> None:
    readme = re.sub(r"\]\([\w/]+\.md#", "](#", (ROOT / "README.md").read_text())
    for title in ("Verbs", "Exit codes"):
        for line in sections()[title].splitlines():
            assert not line.startswith("| ") or line in readme, f"README.md lacks {line}"


def written(form: type) -> dict[str, bool]:
    """The fields of a body or a manifest, and whether each is in all of its kind."""
    return {name: required for name, required in fields(form).items() if name != "refused"}


def spelt_out(cell: str) -> dict[str, bool]:
    """The fields that a cell names, and whether each is in all of its kind. What stands in brackets is further in."""
    while (outer := re.sub(r"\([^()]*\)", "", cell)) != cell:
        cell = outer
    rest = re.sub(r"as in `\w+`", "", cell)
    return {name: not optional for name, optional in re.findall(r"`(\w+)(\??)`", rest)}


@pytest.mark.parametrize("kind", [*Kind, *EventKind])
def test_every_field_of_a_recorded_body_stands_there_and_no_other(kind: Kind | EventKind) -> None:
    title = "Records of a step" if isinstance(kind, Kind) else "Events of a run"
    [body] = [row[2] for row in rows(title) if row[0] == f"`{kind}`"]
    assert spelt_out(body) == written(FORMS[kind]), "with ? where it is not in every record of the kind"
    if isinstance(kind, Kind):
        assert not fields(FORMS[kind])["refused"] and "`refused?`" in sections()[title]


def test_every_field_of_a_manifest_stands_there_and_no_other() -> None:
    there = [row[0].strip("`") for row in rows("The pinned run")[1:]]
    expected = [name if required else f"{name}?" for name, required in fields(RunManifest).items()]
    assert there == [*expected, "hash"]


def test_every_field_of_a_termination_message_stands_there_and_no_other() -> None:
    _, _, rest = sections()["The termination message"].partition("standard output: ")
    there = spelt_out(rest.partition(" In a file")[0])
    assert list(there) == [field.name for field in dataclasses.fields(StepFact) if field.name != "size"]


def test_what_was_recorded_fits_the_forms() -> None:
    for recording in (ROOT / "tests" / "replay" / "journals").glob("*.json"):
        for key, text in json.loads(recording.read_text())["objects"].items():
            value = json.loads(text)
            if re.search(r"/(?:steps|events)/", key):
                check(value["kind"], value["body"])
            elif key.endswith("/run.json"):
                known = fields(RunManifest)
                assert {name for name, required in known.items() if required} <= value.keys() <= {*known, "hash"}


def test_the_readme_shows_the_workflow_that_it_runs() -> None:
    _, _, workflow_text = (ROOT / "examples" / "hello" / "hello.yaml").read_text().partition("\n")
    assert f"```yaml\n{workflow_text}```" in (ROOT / "README.md").read_text()
