"""What people and API servers write: files and objects, as they are read and checked.

Whatever a file is, it becomes documents or an ``InvalidDocument`` whose every problem has few words, a place and a line
of the file. An object that the CRD's schema let through is answered the same from an API server, from a file
of JSON and from one of YAML.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from agentrun.adapters.objects import run_view
from agentrun.api.bounds import MAX_DEPTH, too_large
from agentrun.api.errors import InvalidDocument
from agentrun.api.workflow import STEP_KINDS
from agentrun.documents.document import NOT_TEXT, Document, from_object, parse
from agentrun.workflow.json_schema import depth
from agentrun.workflow.pinning import check, pin
from tests.fuzz.target import Target
from tests.fuzz.values import JSON, ODD, texts

ROOT = Path(__file__).parents[2]
FILES = tuple(
    (ROOT / name).read_bytes()
    for name in ("examples/refund/refund.yaml", "examples/hello/hello.yaml", "examples/refund/model.yaml")
)


def told(refused: InvalidDocument, lines: int | None = None) -> list[tuple[Any, str]]:
    """Where and what the problems are, once they were looked at."""
    assert refused.problems
    for problem in refused.problems:
        assert 0 < len(problem.message) < 2000, problem.message
    if lines is not None:
        assert all(1 <= line <= lines for line in refused.lines.values()), refused.lines
    str(refused)
    return [(problem.path, problem.message) for problem in refused.problems]


def answer(documents: list[Document]) -> list[tuple[Any, str]]:
    """What is said to documents that were read: nothing, where they can be run."""
    try:
        check(documents, warn=lambda _: None)
        if len(documents) == 1:
            pin(documents, {}, name=None, namespace=None, now=0.0, new_id=lambda: "0" * 32, requested_by=None)
    except InvalidDocument as refused:
        return told(refused)
    return []


# -- files -------------------------------------------------------------------------------------------------------------

PIECES = (
    *(text.encode() for text in ODD),
    *(b"\xff", b"\xfe\xff", b"&a [*a]", b"&a [1, 2]\n", b"*a", b"<<: *a\n", b"!!binary x", b"[" * 70, b"{a: " * 70),
    *(b"? ", b"|\n", b">-\n", b"  ", b"\n  ", b"\n- ", b"kind: ", b"spec: ", b"steps:\n", b"name: a\n", b"${inputs.a}"),
    *(b"when: 1/0\n", b"%TAG ! x\n", b"%YAML 1.1\n", b"1" * 400, b"9" * 20, b"\\ud83d", b"\xed\xa0\x80", b"- " * 90),
    *(b"&a &b ", b"&" + b"a" * 200, b"'''", b"\t", b"!!python/object:x", b"\xe2\x80\xa8"),
)
"""What files are broken with."""


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of the examples or of pieces alone, in which parts were cut, doubled, moved or put in."""
    text = draw(st.sampled_from([b"", *FILES]))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        upto = min(len(text), at + draw(st.sampled_from([0, 0, 1, 5, 40, 400])))
        moved = draw(st.sampled_from([b"", text[at:upto]]))
        new = draw(st.sampled_from(PIECES) | st.binary(max_size=4)) if draw(st.booleans()) else moved + moved
        text = text[:at] + new + text[upto:]
    return text


def check_file(text: bytes) -> None:
    """It is read, or refused in words."""
    try:
        documents = parse(text, "fuzz.yaml")
    except InvalidDocument as refused:
        told(refused, text.count(b"\n") + text.count(b"\r") + text.count(b"\xe2\x80\xa8") + text.count(b"\xc2\x85") + 2)
        return
    for document in documents:
        assert depth(document.raw) <= MAX_DEPTH
        json.dumps(document.raw, allow_nan=False)
    answer(documents)


# -- objects that a CRD let through ------------------------------------------------------------------------------------

WORDS = (
    *("a", "b", "t", "m", "x-y", "1h", "90s", "0.5", "100m", "1Gi", "${inputs.l}", "${steps.a.output}", "true"),
    *("inputs.n == 1", "POST", "Once", "https://tools.example/${args.a}", "2030-01-01T00:00:00Z", "finance", "secret"),
    *("key", "1", "-1s", "1w", "9999-12-31T23:59:59-05:00", "gpt"),
)
"""Texts that some field means something by."""


@cache
def schema_of(kind: str) -> dict[str, Any]:
    """The structural schema of a CRD."""
    crd = yaml.safe_load((ROOT / "crds" / f"{kind}.yaml").read_text())
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def fitting(schema: dict[str, Any], level: int = 0) -> st.SearchStrategy[Any]:
    """Values that a structural schema lets through, but for its patterns and rules, of which some fit."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            required = set(schema.get("required", ()))
            made = {name: fitting(inner, level + 1) for name, inner in schema["properties"].items()}
            return _some(made, required, level)
        case "object" if isinstance(inner := schema.get("additionalProperties"), dict):
            return st.dictionaries(st.sampled_from(WORDS) | texts, fitting(inner, level + 1), max_size=2)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(fitting(schema["items"], level + 1), min_size=least, max_size=least + 2)
        case "string":
            most = schema.get("maxLength", 300)
            return (st.sampled_from(WORDS) | texts).map(lambda text: text[:most])
        case "integer":
            least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
            return st.integers(least, most) | st.sampled_from([least, most])
        case "number":
            return st.floats(0, 100)
        case "boolean":
            return st.booleans()
        case _:
            pass
    return FREE


@cache
def specs(file: str) -> st.SearchStrategy[Any]:
    """What a CRD lets through as a spec."""
    return fitting(schema_of(file)["properties"]["spec"])


@st.composite
def _some(draw: st.DrawFn, made: dict[str, st.SearchStrategy[Any]], required: set[str], level: int) -> dict[str, Any]:
    wanted = set(draw(st.lists(st.sampled_from(sorted(made)), max_size=4))) if made else set()
    return {name: draw(inner) for name, inner in made.items() if name in required or name in wanted}


SCHEMAS = st.recursive(
    st.sampled_from([{}, True, {"type": "integer"}, {"enum": [1, [2]]}, {"pattern": "a.{900}b"}, {"$ref": "#"}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", "string", ["null", "integer"], "any"]),
            "anyOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=2),
            "not": inner,
            "items": inner,
            "prefixItems": st.lists(inner, max_size=2),
            "required": st.lists(st.sampled_from(["l", "s", "a"]), max_size=2),
            "properties": st.dictionaries(st.sampled_from(["l", "s", "a"]), inner, max_size=3),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "$defs": st.dictionaries(st.sampled_from(["l", "s"]), inner, max_size=2),
            "$ref": st.sampled_from(["#/$defs/l", "#/properties/a", "http://x.example/y", "#/nope"]),
            "patternProperties": st.dictionaries(st.sampled_from(["^l", "a{90}", "(", "(x+x+)+y"]), inner, max_size=2),
            "multipleOf": st.sampled_from([2, 0.37, 0, -1]),
            "minLength": st.sampled_from([0, 1, 10**9, -1]),
            "format": st.sampled_from(["uri", "date-time", "regex", "nope"]),
            "uniqueItems": st.booleans(),
            "default": JSON,
        },
    ),
    max_leaves=8,
)
FREE = SCHEMAS | JSON | st.sampled_from(WORDS)


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    """An AgentRun or AgentWorkflow; a step or tool is often of one kind only, as the rules want it."""
    kind, file = draw(st.sampled_from([("AgentRun", "agentruns"), ("AgentWorkflow", "agentworkflows")]))
    spec = draw(specs(file))
    if kind == "AgentRun" and draw(st.booleans()):
        spec.pop("workflowRef", None)
        spec["workflow"] = draw(specs("agentworkflows"))
    workflow = spec.get("workflow") if kind == "AgentRun" else spec
    if isinstance(workflow, dict) and draw(st.integers(0, 3)):
        for number, step in enumerate([*workflow.get("steps", ()), *workflow.get("finally", ())]):
            step["name"] = f"s{number}"
            kinds = [name for name in STEP_KINDS if name in step]
            for name in kinds[1:]:
                del step[name]
            if not kinds:
                step["wait"] = {"duration": "1h"}
    return {"apiVersion": "agentrun.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}


def check_object(obj: dict[str, Any]) -> None:
    """An API server's object, and the same as a file, are answered in the same words."""
    if too_large(obj) is None:
        seen = {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "namespace": "n"}
        run_view({**obj, "metadata": obj["metadata"] | seen})
    found = []
    for ascii_only in (None, True, False):
        try:
            if ascii_only is None:
                documents = [from_object(obj)]
            else:
                documents = parse(json.dumps(obj, ensure_ascii=ascii_only).encode(), "fuzz.json")
        except InvalidDocument as refused:
            found.append(told(refused))
        else:
            assert documents[0].raw == obj
            found.append(answer(documents))
    if not _is_beyond_yaml(obj):
        assert found[0] == found[1] == found[2], found


def _is_beyond_yaml(value: Any) -> bool:
    """Whether a file cannot hold it: integers beyond 64 bits, and letters that no YAML has."""
    text = json.dumps(value, ensure_ascii=False)
    ahead = [value]
    while ahead:
        at = ahead.pop()
        if isinstance(at, int) and not -(2**63) <= at < 2**63:
            return True
        if isinstance(at, dict):
            ahead += at.values()
        elif isinstance(at, list):
            ahead += at
    return bool(NOT_TEXT.search(text))


TARGETS = (Target("files", files(), check_file), Target("objects", objects(), check_object))
