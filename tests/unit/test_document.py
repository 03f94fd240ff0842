"""A user's file: every bad one ends in one clear message, every good one in checked objects."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agentrun.api import bounds
from agentrun.api.approval import Approval
from agentrun.api.command import AgentCommand
from agentrun.api.errors import InvalidDocument
from agentrun.api.printable import printable
from agentrun.api.run import AgentRun, AgentWorkflow, cluster_only
from agentrun.documents import yaml_reader
from agentrun.documents.document import MAX_BYTES, NOT_TEXT, from_object, load, parse
from agentrun.documents.problems import FORMS, MAX_PROBLEMS

HEAD = "apiVersion: agentrun.dev/v1alpha1\nkind: AgentWorkflow\nmetadata: {name: refund}\n"
STEPS = HEAD + "spec:\n  steps:\n    - name: a\n      agent: {prompt: hello}\n"
RUN = "apiVersion: agentrun.dev/v1alpha1\nkind: AgentRun\nmetadata: {name: refund-1}\nspec:\n"
AGENT = "{prompt: hello}"


def refused(data: str | bytes, capsys: pytest.CaptureFixture[str] | None = None) -> str:
    """What the refusal of ``data`` says; nothing else may be printed."""
    with pytest.raises(InvalidDocument) as caught:
        parse(data if isinstance(data, bytes) else data.encode(), "wf.yaml")
    if capsys is not None:
        assert capsys.readouterr() == ("", "")
    return str(caught.value)


def step(text: str) -> str:
    """A workflow whose first step is ``text``, on line 6."""
    return f"{HEAD}spec:\n  steps:\n    - {text}\n"


def model(text: str) -> str:
    return f"{STEPS}  models:\n    - {text}\n"


def laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [" + ", ".join([f"*{a}"] * 9) + "]" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)]
    return "\n".join(lines)


FILES = {
    "empty": (b"", "wf.yaml: is empty: write a document (AgentRun or AgentWorkflow of agentrun.dev/v1alpha1)"),
    "comments": ("# nothing\n---\n# more\n", "wf.yaml: contains no document, only white space or comments: write one"),
    "10 MB": (b"a" * 10_000_000, "wf.yaml: is larger than 4 MiB: keep data out of it, or split it"),
    "UTF-16": (HEAD.encode("utf-16"), "wf.yaml: is UTF-16, not UTF-8: convert it with iconv -f UTF-16 -t UTF-8 FILE"),
    "UTF-16 BE": (b"\xfe\xff\0a", "wf.yaml: is UTF-16, not UTF-8: convert it"),
    "UTF-32": (b"\xff\xfe\0\0a\0\0\0", "wf.yaml: is UTF-32, not UTF-8: convert it"),
    "Latin-1": (
        b"a: b\nc: caf\xe9\n",
        "wf.yaml:2: is not UTF-8 (byte 0xe9 at line 2): save it as UTF-8, or convert it",
    ),
    "NUL": (b"a: b\nc: \0\n", "wf.yaml:2: contains the control character U+0000 at line 2, column 4: remove it"),
    "escape": (b"a: \x1b[31m\n", "wf.yaml:1: contains the control character U+001B at line 1, column 4: remove it"),
    "list": ("- a\n", "wf.yaml:1: is a list, not an object with apiVersion, kind, metadata and spec"),
    "text": ("hello\n", "wf.yaml:1: is text, not an object"),
    "tab": (
        HEAD + "spec:\n\tsteps: []\n",
        "wf.yaml:5: not valid YAML at line 5, column 1: a tab is not allowed as inden",
    ),
    "colon": (HEAD + "spec: a: b\n", "wf.yaml:4: not valid YAML at line 4, column 8: a colon is not allowed here"),
    "at": (HEAD + "spec: @b\n", "wf.yaml:4: not valid YAML at line 4, column 7: the character @ cannot begin a value"),
    "bracket": (HEAD + "spec: [a\n", "wf.yaml:5: not valid YAML at line 5, column 1: a , or ] is expected here"),
    "brace": (HEAD + "spec: {a: [b}\n", "wf.yaml:4: not valid YAML at line 4, column 13: a , or ] is expected here"),
    "quote": (
        HEAD + "spec: 'a\n",
        "wf.yaml:4: not valid YAML at line 4, column 7: the quotes that open here are not closed: close them",
    ),
    "indentation": (
        HEAD + "  a: b\n",
        "wf.yaml:4: not valid YAML at line 4, column 3: a key is expected here: check the indentation",
    ),
    "key twice": (HEAD + "kind: b\n", "wf.yaml:4: kind: the key occurs twice (lines 2 and 4): keep one"),
    "inner key twice": (step("{name: a, name: b}"), "wf.yaml:6: spec.steps[0].name: the key occurs twice (line 6)"),
    "merge twice": ("a: &a {b: c}\nd: {<<: *a, <<: *a}\n", "wf.yaml:2: d: the key << occurs twice: merge a list"),
    "merge of text": ("a: &a b\nc: {<<: *a}\n", "wf.yaml:2: c.<<: << merges objects only"),
    "self": (
        "a: &a [*a]\n",
        "wf.yaml:1: a[0]: the alias *a is inside the value that it refers to: a value cannot contain itself",
    ),
    "no anchor": ("a: *b\n", "wf.yaml:1: a: the alias *b has no anchor &b before it in this document"),
    "other document": ("a: &b c\n---\nd: *b\n", "wf.yaml:3: d: the alias *b has no anchor"),
    "laughs": (laughs(), "wf.yaml:6: more than 100,000 values, aliases expanded: split the file or shorten it"),
    "long laughs": (
        f"a: &a {'x' * 10**6}\nb: [*a, *a, *a, *a, *a]\n",
        "wf.yaml:2: more than 4,194,304 characters, alia",
    ),
    "values": ("[" + "1," * 200_000 + "]", "wf.yaml:1: more than 100,000 values"),
    "deep": ("[" * 4_000_000, "[0][0][0][0][0][0][0][0]: nested deeper than 64 levels: make it flatter"),
    "deep blocks": ("- " * 2_000_000, "nested deeper than 64 levels: make it flatter"),
    "deep objects": ("{a: " * 1_000_000, "a.a.a.a.a.a.a.a: nested deeper than 64 levels"),
    "deep aliases": (
        "a: &a [x]\n" + "".join(f"{b}: &{b} {'[' * 20}*{a}{']' * 20}\n" for a, b in zip("abcd", "bcde", strict=True)),
        "wf.yaml:5: e[0][0][0][0][0][0][0]: the alias *d nests deeper than 64 levels",
    ),
    "number as key": ("a: {1: b}\n", 'wf.yaml:1: a: the key 1 is not a text: write it in quotes, "1"'),
    "boolean as key": ("true: b\n", 'wf.yaml:1: the key true is not a text: write it in quotes, "true"'),
    "nothing as key": ("?\n: b\n", "wf.yaml:1: the key (nothing) is not a text"),
    "list as key": ("? [a]\n: b\n", "wf.yaml:1: a list or an object cannot be a key: write a text"),
    "alias as key": ("a: &a b\n*a : c\n", "wf.yaml:2: an alias cannot be a key: write a text"),
    "python": ("a: !!python/object/apply:os.system [x]\n", "a: the tag !!python/object/apply:os.system is not allowed"),
    "own tag": (
        "a: !secret b\n",
        "wf.yaml:1: a: the tag !secret is not allowed: only plain values are supported; remove",
    ),
    "tags": ("%TAG ! a\n" * 300_000, "wf.yaml:1: the directive %TAG is not allowed: remove it"),
    "NaN": ("a: .NaN\n", "wf.yaml:1: a: .NaN is not a number in JSON: use a finite number"),
    "infinity": ("a: [b, -.inf]\n", "wf.yaml:1: a[1]: -.inf is not a number in JSON"),
    "octal": (
        "a: 0123\n",
        "wf.yaml:1: a: YAML parsers disagree about 0123: write a plain decimal number, or put it in q",
    ),
    "hexadecimal": ("a: 0x1F\n", "wf.yaml:1: a: YAML parsers disagree about 0x1F"),
    "underscores": ("a: 1_000\n", "wf.yaml:1: a: YAML parsers disagree about 1_000"),
    "64 bits": ("a: 9223372036854775808\n", "wf.yaml:1: a: this whole number does not fit 64 bits: write it in quotes"),
    "overflow": ("a: 1e999\n", "wf.yaml:1: a: this number is too large or too long: write it in quotes"),
    "digits": (f"a: 1.{'1' * 100_000}\n", "wf.yaml:1: a: this number is too large or too long"),
    "no apiVersion": (
        "kind: AgentRun\n",
        "wf.yaml:1: apiVersion: is missing: use AgentRun or AgentWorkflow of age",
    ),
    "apiVersion": (HEAD.replace("v1alpha1", "v1"), 'wf.yaml:1: apiVersion: "agentrun.dev/v1" is not supported: use'),
    "no kind": (
        "apiVersion: agentrun.dev/v1alpha1\n",
        "wf.yaml:1: kind: is missing: use AgentRun or AgentWorkfl",
    ),
    "kind": (HEAD.replace("AgentWorkflow", "agentRun"), 'kind: "agentRun" is not supported: did you mean AgentRun?'),
    "other kind": (HEAD.replace("AgentWorkflow", "Pod"), 'wf.yaml:2: kind: "Pod" is not supported: use AgentRun or'),
    "kind of number": (
        HEAD.replace("AgentWorkflow", "3"),
        "wf.yaml:2: kind: must be text, found the number 3: use Ag",
    ),
    "approval": (
        HEAD.replace("AgentWorkflow", "Approval"),
        "wf.yaml:2: kind: an Approval is created while a run waits, never from a file: decide with agentrun approve or "
        "agentrun reject",
    ),
    "command": (
        HEAD.replace("AgentWorkflow", "AgentCommand"),
        "wf.yaml:2: kind: an AgentCommand is created by agentrun signal, resume or resolve, never from a file",
    ),
    "policy": (HEAD.replace("AgentWorkflow", "AgentPolicy"), "kind: AgentPolicy is not supported by this version"),
    "no spec": (HEAD, "wf.yaml:1: spec: is missing"),
    "null spec": (HEAD + "spec:\n", "wf.yaml:4: spec: must be an object, found nothing (null)"),
    "second document": (STEPS + "---\n" + HEAD, "wf.yaml:9: spec: is missing"),
}


@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES.keys())
def test_a_bad_file_is_refused_with_one_message(
    data: str | bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(data, capsys)
    assert message in said
    assert said.startswith("wf.yaml:")
    assert "\n" not in said
    assert len(said) < 300


FIELDS = {
    "unknown": (
        step(f"{{name: a, dependOn: [b], agent: {AGENT}}}"),
        'dependOn: unknown field "dependOn": did you mean depe',
    ),
    "snake": (
        step(f"{{name: a, depends_on: [b], agent: {AGENT}}}"),
        'unknown field "depends_on": did you mean dependsOn?',
    ),
    "strange": (step("{name: a, wait: {duration: 1h, zzz: 1}}"), "known fields: duration, until, signal, timeout"),
    "missing": (step("{name: a, agent: {}}"), "wf.yaml:6: spec.steps[0].agent.prompt: is missing"),
    "number for text": (
        step("{name: a, agent: {prompt: 3}}"),
        "prompt: must be text, found the number 3: put it in quot",
    ),
    "list for object": (step("{name: a, agent: [x]}"), "spec.steps[0].agent: must be an object, found a list"),
    "text for list": (step(f"{{name: a, agent: {AGENT}, dependsOn: b}}"), 'dependsOn: must be a list, found "b"'),
    "text for number": (step("{name: a, agent: {prompt: x, maxTurns: '3'}}"), 'must be a whole number, found "3"'),
    "float for number": (
        step("{name: a, agent: {prompt: x, maxTurns: 3.5}}"),
        "must be a whole number, found the number 3.",
    ),
    "yes for boolean": (
        RUN + "  workflowRef: {name: a}\n  suspend: maybe\n",
        'spec.suspend: must be true or false, found "maybe"',
    ),
    "small": (step("{name: a, agent: {prompt: x, maxTurns: 0}}"), "maxTurns: must be at least 1, found the number 0"),
    "large": (step("{name: a, agent: {prompt: x, maxTurns: 20000}}"), "must be at most 10,000, found the number 20000"),
    "factor": (
        step(f"{{name: a, agent: {AGENT}, retry: {{backoff: {{factor: 11}}}}}}"),
        "must be at most 10, found the nu",
    ),
    "empty": (step("{name: a, agent: {prompt: ''}}"), "prompt: must not be empty"),
    "empty steps": (HEAD + "spec: {steps: []}\n", "spec.steps: must not be empty"),
    "short url": (STEPS + "  tools:\n    - {name: t, http: {url: 'http:'}}\n", "tools[0].http.url: must "),
    "long": (
        step(f"{{name: a, agent: {AGENT}, when: {'x' * 1025}}}"),
        "when: has 1,025 characters: at most 1,024 are allow",
    ),
    "many": (
        step(f"{{name: a, agent: {{prompt: x, tools: [{'t, ' * 101}]}}}}"),
        "agent.tools: has 101 entries: at most 100 are allowed",
    ),
    "many arguments": (
        step("{name: a, tool: {name: t, args: {" + ", ".join(f"k{n}: 1" for n in range(101)) + "}}}"),
        "tool.args: has 101 entries: at most 100 are allowed",
    ),
    "name": (
        step(f"{{name: A b, agent: {AGENT}}}"),
        'a name of lower-case letters, digits and hyphens, such as "look-up-order"',
    ),
    "tool name": (step("{name: a, tool: {name: a.b}}"), 'begins with a letter, such as "look_up_order", found "a.b"'),
    "duration": (
        step(f"{{name: a, agent: {AGENT}, timeout: 3 hours}}"),
        "a duration such as 30s, 10m, 1h30m or 7d, found",
    ),
    "number for duration": (
        step(f"{{name: a, agent: {AGENT}, timeout: 30}}"),
        "a duration such as 30s, 10m, 1h30m or 7d, f",
    ),
    "money": (
        RUN + "  workflowRef: {name: a}\n  budget: {costUSD: 2.5}\n",
        'USD in quotes, such as "2.50", found the num',
    ),
    "choice": (
        step(f"{{name: a, agent: {AGENT}, retry: {{classes: [Tol]}}}}"),
        'Infrastructure, found "Tol": did you mean Tool?',
    ),
    "effect": (STEPS + "  tools:\n    - {name: t, effect: once, http: {url: 'http://a'}}\n", "did you mean Once?"),
    "terminal": (step(f'{{name: "\\e[31m\\u202e", agent: {AGENT}}}'), 'found "\\u001b[31m\\u202e"'),
    "terminal key": (
        step(f'{{"\\e[2J": 1, name: a, agent: {AGENT}}}'),
        'spec.steps[0].\\u001b[2J: unknown field "\\u001b[2J"',
    ),
    "two kinds": (
        step(f"{{name: a, agent: {AGENT}, tool: {{name: t}}}}"),
        "spec.steps[0]: has agent and tool: give exactl",
    ),
    "no kind": (
        step("{name: a}"),
        "wf.yaml:6: spec.steps[0]: does nothing: give exactly one of agent, tool, approval and wait",
    ),
    "for each": (
        step("{name: a, wait: {duration: 1h}, forEach: {items: [1]}}"),
        "forEach applies to agent and tool only",
    ),
    "pod of an approval": (
        step("{name: a, approval: {subject: x, approvers: {users: [b]}}, image: c}"),
        "spec.steps[0]: identity, image, resources, nodeSelector and tolerations apply to agent and tool only: a step",
    ),
    "resource": (
        step(f"{{name: a, agent: {AGENT}, resources: {{requests: {{memry: 1Gi}}}}}}"),
        "resources.requests: has a resource that no node offers: use cpu, memory, ephemeral-storage, or a name",
    ),
    "quantity": (
        step(f"{{name: a, agent: {AGENT}, resources: {{limits: {{cpu: 2}}}}}}"),
        'limits.cpu: must be a quantity as in Kubernetes, in quotes, such as "500m", "2" or "1Gi", found the n',
    ),
    "label": (
        step(f"{{name: a, agent: {AGENT}, nodeSelector: {{'a b': c}}}}"),
        "nodeSelector: has a key that cannot be the label of a node: write one such as disktype or example.com/pool",
    ),
    "default label": (
        f"{STEPS}  defaults: {{nodeSelector: {{-a: c}}}}\n",
        "spec.defaults.nodeSelector: has a key that cannot be the label of a node",
    ),
    "toleration": (
        step(f"{{name: a, agent: {AGENT}, tolerations: [{{key: b, value: c, operator: Exists}}]}}"),
        "tolerations[0]: value is allowed with operator Equal only",
    ),
    "service account": (
        RUN + "  workflowRef: {name: a}\n  identity: {serviceAccountName: Ana}\n",
        "serviceAccountName: must be the name of a ServiceAccount: lower-case letters, digits, hyphens and dots, such "
        "as",
    ),
    "two waits": (
        step("{name: a, wait: {duration: 1h, signal: b}}"),
        "wait: give exactly one of duration, until and signal",
    ),
    "no wait": (step("{name: a, wait: {}}"), "spec.steps[0].wait: give exactly one of duration, until and signal"),
    "wait timeout": (step("{name: a, wait: {duration: 1h, timeout: 2h}}"), "wait: timeout applies to signal only"),
    "nobody": (step("{name: a, approval: {subject: x, approvers: {}}}"), "approvers: give at least one user or group"),
    "class twice": (
        step(f"{{name: a, agent: {AGENT}, retry: {{classes: [Tool, Tool]}}}}"),
        "retry.classes: lists Tool twice: keep on",
    ),
    "no workflow": (RUN + "  inputs: {}\n", "wf.yaml:4: spec: give exactly one of workflowRef and workflow"),
    "step twice": (
        f"{STEPS}    - {{name: a, agent: {AGENT}}}\n",
        "wf.yaml:8: spec.steps[1].name: the name a is taken by steps[0]: give another",
    ),
    "finally": (
        f"{STEPS}  finally:\n    - name: b\n      agent: {AGENT}\n    - agent: {AGENT}\n      name: a\n",
        "wf.yaml:12: spec.finally[1].name: the name a is taken by steps[0]: give another",
    ),
    "model twice": (
        model("{name: m, model: x}\n    - {name: m, model: x}"),
        "wf.yaml:10: spec.models[1].name: the name m is taken by models[0]: give another",
    ),
    "tool twice": (
        STEPS + "  tools:\n    - {name: t, http: {url: 'http://a'}}\n    - {name: t, http: {url: 'http://b'}}\n",
        "wf.yaml:10: spec.tools[1].name: the name t is taken by tools[0]: give another",
    ),
}


@pytest.mark.parametrize(("data", "message"), FIELDS.values(), ids=FIELDS.keys())
def test_a_bad_field_is_refused_with_its_path_line_and_form(data: str, message: str) -> None:
    said = refused(data)
    assert message in said
    assert "\n" not in said
    assert printable(said) == said


def test_all_problems_of_a_document_come_together_with_their_lines() -> None:
    said = refused(
        f"{STEPS}      timeot: 3m\n    - name: b\n      agent: {{promt: x}}\n      retry:\n        limit: -1\n"
    ).splitlines()
    assert [line.split(": ")[:2] for line in said] == [
        ["wf.yaml:8", "spec.steps[0].timeot"],
        ["wf.yaml:10", "spec.steps[1].agent.prompt"],
        ["wf.yaml:10", "spec.steps[1].agent.promt"],
        ["wf.yaml:12", "spec.steps[1].retry.limit"],
    ]


def test_problems_beyond_a_screenful_are_counted() -> None:
    said = refused(STEPS + "".join(f"      f{n}: 1\n" for n in range(9000))).splitlines()
    assert len(said) == MAX_PROBLEMS + 1
    assert said[-1] == "wf.yaml: 8950 more problems are not listed: correct these first"


@pytest.mark.parametrize(
    "text",
    [
        model("{name: m, model: x, credentials: sk-hunter2}"),
        model("{name: m, model: x, credentials: {secretRef: sk-hunter2}}"),
        model("{name: m, model: x, credentials: {secretRef: {name: a, key: 'sk hunter2'}}}"),
        model("{name: m, model: x, endpoint: 'ftp://user:hunter2@host'}"),
        model("{name: m, model: x, apiKey: hunter2}"),
        STEPS + "  tools:\n    - {name: t, http: {url: 'https://a/', auth: {bearer: hunter2}}}\n",
        STEPS + "  tools:\n    - {name: t, http: {url: 'https://a/', headers: [hunter2]}}\n",
        STEPS + "  tools:\n    - {name: t, http: {url: 'https://a/', headers: {Authorization: [hunter2]}}}\n",
        STEPS + "  tools:\n    - {name: t, http: {url: 'https://u:hunter2@a/ b'}}\n",
    ],
)
def test_a_value_where_secrets_stand_is_never_shown(text: str) -> None:
    assert "hunter2" not in refused(text)


def test_laughs_are_refused_in_little_memory() -> None:
    text = laughs()
    tracemalloc.start()
    try:
        refused(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


def test_the_models_patterns_all_have_words() -> None:
    patterns: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            patterns.update(value for key, value in node.items() if key == "pattern" and isinstance(value, str))
            node = list(node.values())
        for child in node if isinstance(node, list) else ():
            visit(child)

    for document in (AgentRun, AgentWorkflow, Approval, AgentCommand):
        visit(document.model_json_schema()["$defs"])
    assert patterns == set(FORMS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "does not exist: check the path"),
        (".", "is a directory: name a file in it"),
        ("file/below", "cannot be read: Not a directory"),
    ],
)
def test_a_file_that_cannot_be_read(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidDocument) as caught:
        load(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message}"
    assert capsys.readouterr() == ("", "")


def test_load_reads_no_more_than_it_accepts(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidDocument, match="is larger than 4 MiB"):
        load(path)


def test_load_gives_the_documents_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        f"\ufeff---\n{STEPS}---\n---\n{RUN}  workflowRef: {{name: refund}}\n  inputs: {{orderId: '4711'}}\n"
    )
    workflow, run = load(path)
    assert (workflow.kind, workflow.source, workflow.metadata.name) == ("AgentWorkflow", str(path), "refund")
    assert isinstance(workflow.model, AgentWorkflow)
    assert isinstance(run.model, AgentRun)
    assert run.model.spec.inputs == {"orderId": "4711"}
    assert run.raw["spec"] == {"workflowRef": {"name": "refund"}, "inputs": {"orderId": "4711"}}
    assert workflow.lines[()] == 2
    assert workflow.lines[("spec", "steps", 0, "agent", "prompt")] == 8
    assert run.lines[("spec", "inputs")] == 16


def test_load_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(STEPS.encode())))
    (document,) = load("-")
    assert document.source == "standard input"


def read(text: str) -> Any:
    (node,) = yaml_reader.read(text, "wf.yaml")
    return node.value


def test_scalars_are_those_of_yaml_1_2() -> None:
    assert read('["yes", "y", "n", onward]') == ["yes", "y", "n", "onward"]
    assert read("[true, True, FALSE, tRue, 'true']") == [True, True, False, "tRue", "true"]
    assert read("[null, ~, Null, '', nil, '~']") == [None, None, None, "", "nil", "~"]
    assert read("[2026-01-02, 2026-01-02T03:04:05Z, 1:30, 1.2.3]") == [
        "2026-01-02",
        "2026-01-02T03:04:05Z",
        "1:30",
        "1.2.3",
    ]
    assert read("[0, -1, 12, 1.5, -0.25, 1e3, 1.0, '1', NaN, -, +x]") == [
        0,
        -1,
        12,
        1.5,
        -0.25,
        1e3,
        1.0,
        "1",
        "NaN",
        "-",
        "+x",
    ]
    assert isinstance(read("1.0"), float)


@pytest.mark.parametrize("text", ["{on: 1}", "[yes]", "a: No", "{a: OFF}"])
def test_words_that_kubectl_reads_as_booleans_are_refused(text: str) -> None:
    with pytest.raises(InvalidDocument, match="some YAML parsers read"):
        read(text)


def test_a_letter_is_a_text_and_kubectl_reads_another_value() -> None:
    (document,) = parse(step("{name: a, tool: {name: t, args: {n: 1, answer: Y, 'y': n}}}").encode(), "wf.yaml")
    assert isinstance(document.model, AgentWorkflow)
    call = document.model.spec.steps[0].tool
    assert call is not None
    assert call.args == {"n": 1, "answer": "Y", "y": "n"}
    args = ("spec", "steps", 0, "tool", "args")
    assert {doubt.path for doubt in document.node.doubts} == {(*args, "n"), (*args, "answer")}
    assert "kubectl reads an unquoted n as false" in document.node.doubts[0].message


def test_the_classes_of_retry() -> None:
    (document,) = parse(step(f"{{name: a, agent: {AGENT}, retry: {{classes: [RateLimited]}}}}").encode(), "wf.yaml")
    assert isinstance(document.model, AgentWorkflow)
    retry = document.model.spec.steps[0].retry
    assert retry is not None
    assert retry.classes == ["RateLimited"]


def test_aliases_and_merges_give_values_of_their_own() -> None:
    text = "a: &a {b: [1], c: 2}\nd: *a\ne: {<<: *a, c: 3}\nf: {c: 4, <<: [{g: 5, c: 6}, *a, {g: 7}]}\n"
    assert read(text) == {
        "a": {"b": [1], "c": 2},
        "d": {"b": [1], "c": 2},
        "e": {"b": [1], "c": 3},
        "f": {"b": [1], "c": 4, "g": 5},
    }
    assert read('{"<<": 1}') == {"<<": 1}
    shared = "    - &s {name: a, tool: {name: t, args: &x {k: [1]}}}\n    - {<<: *s, name: b}\n"
    (document,) = parse(f"{HEAD}spec:\n  steps:\n{shared}".encode(), "wf.yaml")
    first, second = document.raw["spec"]["steps"]
    assert first["tool"]["args"] == second["tool"]["args"]
    assert first["tool"]["args"]["k"] is not second["tool"]["args"]["k"]
    assert document.lines[("spec", "steps", 1)] == 7
    assert document.lines[("spec", "steps", 1, "tool")] == 6


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=50), values, max_size=4),
    max_leaves=20,
)


@given(plain_json, st.booleans(), st.sampled_from([None, 2, "\t"]))
@example({"a": "\U0001f600", "\\ud83d\\ude00": "\\\U0001f600"}, True, None)
@example({"\x85": "\u2028\u2029"}, False, None)
def test_json_is_read_as_json(value: Any, ascii_only: bool, indent: int | str | None) -> None:
    """JSON is YAML, with each way of writing it that Python's encoder has."""
    text = json.dumps([value], ensure_ascii=ascii_only, indent=indent)
    assume(not NOT_TEXT.search(text))
    found = read(text)
    assert found == [value]
    assert json.dumps(found) == json.dumps([value])


pieces = st.sampled_from(
    [
        *("apiVersion: agentrun.dev/v1alpha1\n", "kind: AgentRun\n", "kind: AgentWorkflow\n", "metadata: {name: a}\n"),
        *("spec:\n", "  steps:\n", "    - name: a\n", "      agent: {prompt: b}\n", "  workflowRef: {name: a}\n"),
        *("- ", "? ", ": ", "a: ", "a", "&a ", "*a", "<<: ", "!!str ", "!x ", "%YAML 1.2\n", "---\n", "...\n", "|\n"),
        *(
            "[",
            "]",
            "{",
            "}",
            ",",
            '"',
            "'",
            "\n",
            "  ",
            "\t",
            "#",
            "\\",
            "1",
            "0x",
            "1e9",
            ".inf",
            "~",
            "true",
            "é",
            "\0",
        ),
    ]
)


@given(st.lists(pieces, max_size=40).map("".join) | st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    survive(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    survive(data)


@given(
    plain_json, st.sampled_from(["AgentRun", "AgentWorkflow"]), st.sampled_from(["spec", "steps", "step", "metadata"])
)
def test_no_value_raises_anything_else(value: Any, kind: str, place: str) -> None:
    spec = {"spec": value, "steps": {"steps": value}, "step": {"steps": [value]}, "metadata": {}}[place]
    document = {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    survive(json.dumps(document | ({"metadata": value} if place == "metadata" else {})).encode())


def survive(data: bytes) -> None:
    """``data`` is read, or refused with text that a terminal can show."""
    said: list[str] = ["fine"]
    try:
        parse(data, "wf.yaml")
    except InvalidDocument as error:
        said = error.describe()
    assert said
    assert all(printable(line) == line for line in said)


def from_server(spec: Any, kind: str = "AgentRun", **more: Any) -> dict[str, Any]:
    metadata = {
        "name": "refund-1",
        "namespace": "support",
        "uid": "ad6d",
        "resourceVersion": "7",
        "managedFields": [{}],
    }
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata | {"labels": {"team": "a"}},
        "spec": spec,
        "status": {"phase": "Running"},
        **more,
    }


def test_an_object_of_an_api_server_is_read_as_a_file_is() -> None:
    obj = from_server({"workflowRef": {"name": "refund"}, "inputs": {"a": None}})
    read = from_object(obj)
    assert isinstance(read.model, AgentRun)
    assert (read.source, read.kind, read.metadata.name, read.metadata.namespace) == (
        *("AgentRun refund-1", "AgentRun", "refund-1", "support"),
    )
    assert read.metadata.labels == {"team": "a"}
    assert read.raw["spec"] == obj["spec"]
    assert "status" in obj
    assert isinstance(
        from_object(from_server({"steps": [{"name": "a", "wait": {"signal": "b"}}]}, "AgentWorkflow")).model,
        AgentWorkflow,
    )


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (from_server({}), "AgentRun refund-1: spec: give exactly one of workflowRef and workflow"),
        (
            from_server({"workflowRef": {"name": "a"}, "x": 1}),
            'AgentRun refund-1: spec.x: unknown field "x": known fields: wo',
        ),
        (from_server({}, "Pod"), 'Pod refund-1: kind: "Pod" is not supported'),
        (from_server({}, metadata=None), "AgentRun None: metadata: must be an object, found nothing (null)"),
        (from_server({"workflowRef": {"name": "a"}}, extra=1), 'AgentRun refund-1: extra: unknown field "extra"'),
        (from_server({"inputs": [0] * 100_001}), "AgentRun refund-1: more than 100,000 values: shorten it"),
        ({}, "None None: apiVersion: is missing"),
    ],
    ids=["rule", "field", "kind", "metadata", "extra", "large", "nothing"],
)
def test_an_object_of_an_api_server_is_refused_in_the_same_words(obj: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        from_object(obj)
    assert str(caught.value).startswith(message)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth_of_an_object_has_the_bound_of_a_file() -> None:
    deepest = bounds.MAX_DEPTH - 3  # below the object itself, spec and inputs
    for levels, fine in ((deepest, True), (deepest + 1, False), (100_000, False)):
        obj = from_server({"workflowRef": {"name": "a"}, "inputs": {"a": nested(levels)}})
        if fine:
            from_object(obj)
            parse(
                json.dumps(obj | {"metadata": {"name": "a"}, "status": None}).replace(', "status": null', "").encode(),
                "f",
            )
        else:
            with pytest.raises(
                InvalidDocument, match="AgentRun refund-1: nested deeper than 64 levels: make it flatter"
            ):
                from_object(obj)


def test_what_only_a_cluster_obeys_is_named_once() -> None:
    text = f"""{RUN}  identity: {{serviceAccountName: a}}
  ttlSecondsAfterFinished: 0
  workflow:
    defaults: {{resources: {{}}}}
    steps:
      - {{name: a, agent: {AGENT}, image: x, identity: {{serviceAccountName: b}}}}
      - {{name: b, agent: {AGENT}, image: x}}
    finally:
      - {{name: c, agent: {AGENT}, nodeSelector: {{}}}}
"""
    (document,) = parse(text.encode(), "wf.yaml")
    assert isinstance(document.model, AgentRun)
    expected = ["identity", "image", "nodeSelector", "resources", "ttlSecondsAfterFinished"]
    assert cluster_only(document.model.spec) == expected
    assert document.model.spec.workflow is not None
    assert cluster_only(document.model.spec.workflow, document.model.spec.workflow) == expected[:-1]
    (plain,) = parse(STEPS.encode(), "wf.yaml")
    assert isinstance(plain.model, AgentWorkflow)
    assert cluster_only(plain.model.spec) == []


@pytest.mark.parametrize("text", ["{{ .Values.prompt }}", "{{inputs.parameters.x}}", "{ {a: 1}: 2}"])
def test_two_braces_where_a_text_is_meant(text: str) -> None:
    with pytest.raises(InvalidDocument, match=r"to write \{\{ … \}\} in a text, put the whole text in quotes"):
        parse(f"a: {text}\n".encode(), "f.yaml")


def test_a_list_as_a_key_is_no_text_in_braces() -> None:
    with pytest.raises(InvalidDocument, match=r"cannot be a key: write a text$"):
        parse(b"? [a]\n: 1\n", "f.yaml")
