"""Files that cannot be run: one clear message with the place and the remedy, exit code 2, and nothing written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.local import call, run_of, tool, workflow
from tests.e2e.shop import Shop

HEAD = "apiVersion: agentrun.dev/v1alpha1\nkind: AgentWorkflow\nmetadata: {name: made}\nspec:\n"
WAIT = {"name": "pause", "wait": {"duration": "1s"}}
MODEL = {"models": [{"name": "main", "model": "m"}], "defaults": {"model": "main"}}
ASK = {"name": "ask", "agent": {"prompt": "Well?"}}
FINE = tool("fine", "https://tools.example/fine")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@dataclass(frozen=True)
class Bad:
    """A file, what has to be said about it (in one line, in this order), and how many problems it has."""

    content: bytes | str | dict[str, Any]
    says: tuple[str, ...]
    lines: int = 1


def steps(*given: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return workflow(**spec, steps=list(given))


FILES: dict[str, Bad] = {
    "empty": Bad("", ("is empty", "write a document")),
    "blank": Bad("# nothing\n---\n", ("contains no document", "write one")),
    "ten megabytes": Bad(HEAD + "#" * 10_000_000, ("larger than 4 MiB", "split it")),
    "not UTF-8": Bad(HEAD.encode() + b"  description: caf\xe9\n", (":5", "not UTF-8", "iconv")),
    "a NUL": Bad(HEAD + "  description: a\0b\n", (":5", r"U\+0000", "remove it")),
    "a YAML bomb": Bad(BOMB, (":5", "aliases expanded")),
    "deep": Bad("[" * 50_000, ("nested deeper than 64 levels", "flatter")),
    "a key twice": Bad(HEAD + "  steps: []\n  steps: []\n", (":6", "steps", "occurs twice", "keep one")),
    "a tab": Bad(HEAD + "\tsteps: []\n", (":5", "a tab is not allowed", "use spaces")),
    "a tag": Bad(
        HEAD + "  description: !!python/object/apply:os.system [id]\n",
        (":5", "tag !!python/object/apply:os.system", "remove the tag"),
    ),
    "another kind": Bad("apiVersion: v1\nkind: Pod\n", ("apiVersion", "AgentRun or AgentWorkflow")),
    "an unknown field": Bad(steps({**WAIT, "dependOn": []}), (r"spec\.steps\[0\]\.dependOn", "dependsOn")),
    "a cycle": Bad(
        steps({**WAIT, "name": "a", "dependsOn": ["b"]}, {**WAIT, "name": "b", "dependsOn": ["a"]}),
        (r"spec\.steps\[\d\]\.dependsOn", "a cycle", "remove one"),
    ),
    "an unknown step": Bad(
        steps(WAIT, {**WAIT, "name": "b", "dependsOn": ["pauze"]}), (r"dependsOn\[0\]", "did you mean pause")
    ),
    "an unknown tool": Bad(
        steps(call("go", "fin"), tools=[FINE]), (r"spec\.steps\[0\]\.tool\.name", "did you mean fine")
    ),
    "an unknown model": Bad(
        steps({**ASK, "agent": {"prompt": "?", "model": "mian"}}, **MODEL), (r"agent\.model", "did you mean main")
    ),
    "no model": Bad(steps(ASK), (r"agent\.model", "declare one in spec.models")),
    "a wrong type in CEL": Bad(
        steps({**WAIT, "when": "1 + 'a'"}), (r"spec\.steps\[0\]\.when", r"\+ does not take int and string")
    ),
    "no condition": Bad(steps({**WAIT, "when": "1 + 1"}), (r"spec\.steps\[0\]\.when", "true or false")),
    "broken CEL": Bad(
        steps({**WAIT, "when": "inputs.a &&"}), (r"spec\.steps\[0\]\.when", "ends too early", "column 12")
    ),
    "a hyphen": Bad(
        steps({**WAIT, "name": "sign-off"}, {**WAIT, "dependsOn": ["sign-off"], "when": "steps.sign-off.output == 1"}),
        (r"spec\.steps\[1\]\.when", r"steps\['sign-off'\]"),
    ),
    "a step that is no dependency": Bad(
        steps(WAIT, {**WAIT, "name": "b", "when": "steps.pause.state == 'Succeeded'"}),
        (r"steps\[1\]\.when", "no step pause to refer to here"),
    ),
    "two kinds": Bad(steps({**WAIT, **ASK}), (r"spec\.steps\[0\]", "agent and wait: give exactly one")),
    "no kind": Bad(steps({"name": "idle"}), (r"spec\.steps\[0\]", "does nothing: give exactly one")),
    "a name twice": Bad(steps(WAIT, WAIT), (r"spec\.steps\[1\]\.name", r"taken by steps\[0\]", "give another")),
    "no steps": Bad(steps(), (r"spec\.steps", "must not be empty")),
    "no workflow of that name": Bad(
        run_of(steps(WAIT)) | {"spec": {"workflowRef": {"name": "other"}}},
        (r"spec\.workflowRef\.name", 'no AgentWorkflow "other"', "put it into the same file"),
    ),
    "a budget without a price": Bad(
        run_of(steps(ASK, **MODEL), budget={"costUSD": "1"}), (r"spec\.budget\.costUSD", "price of model main")
    ),
    "money as a number": Bad(run_of(steps(ASK, **MODEL), budget={"costUSD": 2.5}), (r"costUSD", "in quotes, such as")),
    "an expression in a host": Bad(
        steps(call("go", "any"), tools=[tool("any", "https://${args.at}/x")]), (r"spec\.tools\[0\]\.http\.url", "host")
    ),
    "a schema that is none": Bad(steps(WAIT, inputs={"type": "objekt"}), (r"spec\.inputs", "objekt")),
    "an input that is missing": Bad(
        steps(WAIT, inputs={"type": "object", "required": ["id"]}), ("spec.inputs", "id", "-i KEY=VALUE")
    ),
    "an input of a wrong type": Bad(
        run_of(
            steps(WAIT, inputs={"type": "object", "properties": {"count": {"type": "integer"}}}), inputs={"count": "x"}
        ),
        (r"spec\.inputs", "count: .*integer", "--inputs FILE"),
    ),
    "a wrong duration": Bad(steps({**WAIT, "wait": {"duration": "soon"}}), (r"wait\.duration", "30s, 10m")),
    "several at once": Bad(
        steps({**WAIT, "when": "1 + 'a'"}, call("go", "none"), {**WAIT, "name": "c", "dependsOn": ["d"]}),
        (r"spec\.steps\[\d\]",),
        3,
    ),
}


def problems(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.strip()]


def check(bad: Bad, lines: list[str], file: str) -> None:
    """The lines that were said about ``file``: as many as it has problems, each with its place, and what was asked."""
    assert len(lines) == bad.lines, lines
    assert all(line.startswith(file) and len(line) < 700 for line in lines), lines
    position = 0
    for pattern in bad.says:
        found = re.search(pattern, lines[0][position:])
        assert found, (pattern, lines)
        position += found.start()


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_before_anything_is_written(name: str, shop: Shop) -> None:
    said = shop.agentrun("run", shop.file(FILES[name].content))
    assert (said.code, said.out) == (2, ""), said
    check(FILES[name], problems(said.err), "flow.yaml")
    assert not shop.store.exists()


ONLY_A_RUN = ("an input that is missing", "no workflow of that name")
"""What is wrong with a run of them, and not with the file."""


def test_validate_says_the_same_of_all_of_them_at_once(shop: Shop) -> None:
    files = {
        name: shop.file(FILES[name].content, f"{n}.yaml") for n, name in enumerate(FILES) if name not in ONLY_A_RUN
    }
    fine = shop.file(steps(WAIT), "fine.yaml")
    said = shop.agentrun("validate", *files.values(), fine)
    assert said.code == 2, said
    for name, file in files.items():
        check(FILES[name], [line for line in problems(said.err) if re.match(rf"{file}[: ]", line)], file)
    assert said.out == "fine.yaml: valid: AgentWorkflow made (1 step)\n"
    assert "Traceback" not in said.err
    assert not shop.store.exists()


def test_validate_of_a_run_whose_workflow_is_elsewhere_says_what_was_not_checked(shop: Shop) -> None:
    document = run_of(steps(WAIT)) | {"spec": {"workflowRef": {"name": "other"}}}
    said = shop.agentrun("validate", shop.file(document))
    assert said.code == 0, said
    assert "AgentWorkflow other is not in this file: inputs were not checked" in said.out + said.err


def test_a_file_that_is_not_there_and_a_folder(shop: Shop) -> None:
    (shop.folder / "folder").mkdir()
    for name, says in (("missing.yaml", "does not exist: check the path"), ("folder", "is a directory")):
        said = shop.agentrun("run", name)
        assert said.code == 2
        assert problems(said.err) == [line for line in problems(said.err) if name in line and says in line]
        assert len(problems(said.err)) == 1
    assert not shop.store.exists()


def test_the_errors_of_inputs_on_the_command_line(shop: Shop) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}, "text": {"type": "string"}}}
    file = shop.file(steps(WAIT, inputs={**schema, "additionalProperties": False}))
    (shop.folder / "list.yaml").write_text("- 1\n")
    for arguments, says in (
        (("-i", "count=seven"), "integer"),
        (("-i", "seven"), "KEY=VALUE"),
        (("-i", "other=1"), "other"),
        (("--inputs", "list.yaml"), "must contain one object"),
        (("--inputs", "none.yaml"), "none.yaml"),
        (("--name", "No Name"), "No Name"),
    ):
        said = shop.agentrun("run", file, *arguments)
        assert said.code == 2, said
        assert says in said.err, said
        assert "Traceback" not in said.err
    assert not shop.store.exists()


def test_secrets_that_are_missing_are_all_named_before_anything_runs(shop: Shop) -> None:
    (shop.folder / "none").mkdir()
    for words, says in (
        ((), "payments"),
        (("--secrets", "none"), "payments"),
        (("--secrets", "nowhere"), "nowhere"),
    ):
        said = shop.agentrun("run", shop.refund(), *words)
        assert said.code == 2, said
        assert said.out == "", said
        assert says in said.err, said
        assert "Traceback" not in said.err
    assert not shop.store.exists()
    assert shop.model.requests == []


def test_a_file_from_standard_input(shop: Shop) -> None:
    said = shop.agentrun("validate", "-", stdin=json.dumps(steps({**WAIT, "dependOn": []})).encode())
    assert said.code == 2
    assert problems(said.err)[0].startswith("standard input:1: spec.steps[0].dependOn")
