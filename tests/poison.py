"""The worst objects that one editor of one namespace can write: values by name, and the places that take any value.

Values are texts of JSON, since many of them are none that Python could write. ``objects`` puts each into each place.
What a test does with them: they are refused or quarantined by name, and everything else goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from agentrun.api.workflow import API_VERSION

ETCD: Final = 1_572_864
"""Bytes of a request that etcd takes by default; an object is a little less."""


def lists(depth: int, of: str = "1") -> str:
    """Lists in lists."""
    return "[" * depth + of + "]" * depth


def maps(depth: int, of: str = "1") -> str:
    """Objects in objects, each with one key."""
    return '{"a":' * depth + of + "}" * depth


def mixed(depth: int, of: str = "1") -> str:
    """Objects in lists in objects."""
    return '{"a":[' * (depth // 2) + of + "]}" * (depth // 2)


def comb(depth: int, teeth: int = 1) -> str:
    """Each level has siblings before and after what goes deeper."""
    tooth = "[[]],{}," * teeth
    return f"[{tooth}" * depth + "1" + ',{"b":[]}]' * depth


def many(what: str, size: int) -> str:
    """A list of ``what`` over and over, of some ``size`` bytes."""
    return "[" + f"{what}," * (size // (len(what) + 1)) + "1]"


def keys(count: int) -> str:
    """An object of so many keys."""
    return "{" + ",".join(f'"k{n}":{n}' for n in range(count)) + "}"


def text(size: int, letter: str = "y") -> str:
    """One long text."""
    return '"' + letter * (size // len(letter)) + '"'


ESCAPES: Final = '"' + r"\"\\\/\b\f\n\r\t\u0000\u001f\u007f\u2028\u2029\ud83d\ude00\uffff" + '"'

SHAPES: Final[dict[str, Callable[[int], str]]] = {"lists": lists, "maps": maps, "mixed": mixed, "comb": comb}

VALUES: Final[dict[str, Callable[[], str]]] = {
    **{f"deep-{name}": partial(make, 1500) for name, make in SHAPES.items()},
    **{f"deepest-{name}": partial(make, 4000) for name, make in SHAPES.items()},
    "deep-and-wide": lambda: many(lists(30), 100_000),
    "empty-lists": lambda: many("[]", 1_300_000),
    "empty-objects": lambda: many("{}", 1_300_000),
    "objects": lambda: many('{"a":1}', 1_300_000),
    "keys": lambda: keys(40_000),
    "key-long": lambda: "{" + text(400_000) + ":1}",
    "text": lambda: text(1_300_000),
    "text-escaped": lambda: text(1_200_000, r"\""),
    "text-like-json": lambda: text(1_200_000, r"[{\"a\":"),
    "escapes": lambda: ESCAPES,
    "numbers": lambda: many("-1.7976931348623157e308", 1_000_000),
    "number-long": lambda: "1" * 300,
    "key-twice": lambda: '{"a":1,"a":[2],"a":{"b":3}}',
    "nulls": lambda: many("null", 1_000_000),
}
"""By name: the text of a value. Small enough for etcd wherever they stand."""

_WAIT: Final = {"name": "w", "wait": {"signal": "never"}}
_HTTP: Final = {"url": "http://127.0.0.1:9/x", "method": "POST"}
_HERE: Final = "\0here"


def _workflow(**fields: Any) -> dict[str, Any]:
    return {"steps": [_WAIT], **fields}


def _tool(**fields: Any) -> dict[str, Any]:
    return {"name": "t", "effect": "ReadOnly", "http": _HTTP, **fields}


def _step(**fields: Any) -> dict[str, Any]:
    return {"name": "s", **fields}


WORKFLOWS: Final[dict[str, dict[str, Any]]] = {
    "schema": _workflow(inputs={"type": "object", "default": _HERE}),
    "parameters": _workflow(tools=[_tool(parameters={"type": "object", "default": _HERE})]),
    "body": _workflow(tools=[_tool(http=_HTTP | {"body": _HERE})]),
    "args": _workflow(tools=[_tool()], steps=[_WAIT, _step(tool={"name": "t", "args": {"x": _HERE}})]),
    "items": _workflow(tools=[_tool()], steps=[_WAIT, _step(tool={"name": "t"}, forEach={"items": _HERE})]),
    "details": _workflow(
        steps=[_WAIT, _step(approval={"subject": "?", "details": _HERE, "approvers": {"users": ["ben"]}})]
    ),
    "answer": _workflow(
        models=[{"name": "m", "model": "m", "endpoint": "http://127.0.0.1:9"}],
        steps=[_WAIT, _step(agent={"prompt": "?", "output": {"type": "object", "default": _HERE}})],
    ),
    "output": _workflow(output={"x": _HERE}),
}
"""Every place of a workflow that takes any JSON."""

RUNS: Final[dict[str, dict[str, Any]]] = {
    "inputs": {"inputs": {"x": _HERE}, "workflow": _workflow()},
    **{f"workflow-{name}": {"workflow": workflow} for name, workflow in WORKFLOWS.items()},
}
"""Every place of a run's spec that takes any JSON."""


def commands(run: str) -> dict[str, dict[str, Any]]:
    """Every place of a command's spec that takes any JSON."""
    return {
        "payload": {"run": {"name": run}, "signal": {"name": "never", "payload": _HERE}},
        "result": {"run": {"name": run}, "resolve": {"step": "w", "happened": {"result": _HERE}}},
    }


def written(kind: str, name: str, spec: dict[str, Any], value: str) -> str:
    """The text of an object with ``value`` in its place."""
    obj = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(obj, separators=(",", ":")).replace(json.dumps(_HERE), value)


def objects(run: str = "nobody") -> Iterator[tuple[str, str, str]]:
    """Each value in each place: kind, name and text. ``run``: whom the commands are for."""
    kinds = {"AgentRun": RUNS, "AgentWorkflow": WORKFLOWS, "AgentCommand": commands(run)}
    for kind, places in kinds.items():
        for place, spec in places.items():
            for name, value in VALUES.items():
                yield kind, f"{place}-{name}"[:50].lower(), written(kind, f"{place}-{name}"[:50].lower(), spec, value())


def big(size: int = 1_565_000) -> str:
    """A run of nine hundred steps that etcd stores, and that leaves no room for a status."""
    steps = [{"name": f"s{n}", "wait": {"signal": "never", "timeout": "1h"}} for n in range(900)]
    spec = {"inputs": {"x": _HERE}, "workflow": {"steps": steps}}
    rest = len(written("AgentRun", "big", spec, '""'))
    return written("AgentRun", "big", spec, text(size - rest))


def signals(run: str, count: int, size: int = 60_000) -> Iterator[tuple[str, str, str]]:
    """So many signals that nobody waits for."""
    for n in range(count):
        spec = {"run": {"name": run}, "signal": {"name": "nobody", "payload": _HERE}}
        yield "AgentCommand", f"signal-{n}", written("AgentCommand", f"signal-{n}", spec, text(size))


# -- work ------------------------------------------------------------------------------------------------------------


def _run(name: str, inputs: Any, workflow: dict[str, Any]) -> str:
    return written("AgentRun", name, {"inputs": inputs, "workflow": workflow}, "null")


def _costly(name: str) -> str:
    """Six hundred conditions over a long list, each of which takes long and is false."""
    steps = [
        {"name": f"s{n}", "when": f"inputs.l.map(x, x).size() == {n}", "wait": {"duration": "1h"}} for n in range(600)
    ]
    return _run(name, {"l": list(range(1500))}, {"steps": [_WAIT, *steps]})


def _distinct(name: str) -> str:
    """A thousand conditions that nothing is known of: each is compiled anew."""
    long = "inputs.a == '{}' && ".format("x" * 800)
    steps = [{"name": f"s{n}", "when": f"{long}inputs.n == {n}", "wait": {"duration": "1h"}} for n in range(900)]
    return _run(name, {"a": "", "n": 0}, {"steps": [_WAIT, *steps]})


def _nested(name: str) -> str:
    """Comprehensions in comprehensions, as many as fit."""
    when = "inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, a + b + c >= 0)))"
    steps = [{"name": f"s{n}", "when": when, "wait": {"duration": "1h"}} for n in range(300)]
    return _run(name, {"l": list(range(20))}, {"steps": [_WAIT, *steps]})


def _texts(name: str) -> str:
    """An output of thousands of templates, each of which puts in a long text."""
    output = {f"k{n}": "${inputs.t}-${inputs.t}" for n in range(3000)}
    return _run(name, {"t": "y" * 100_000}, {"steps": [{"name": "w", "wait": {"duration": "1s"}}], "output": output})


def _fan(name: str) -> str:
    """Ten thousand items, each with arguments of its own; no pod is ever made of it, for it is suspended."""
    step = {
        "name": "f",
        "forEach": {"items": "${inputs.l}", "maxParallel": 1},
        "tool": {"name": "t", "args": {"x": "${item}"}},
    }
    spec = {"inputs": {"l": list(range(10_000))}, "suspend": True, "workflow": {"tools": [_tool()], "steps": [step]}}
    return written("AgentRun", name, spec, "null")


def _graph(name: str) -> str:
    """Each step depends on all before it."""
    steps = [
        {"name": f"s{n}", "dependsOn": [f"s{m}" for m in range(n)], "wait": {"signal": "never"}} for n in range(450)
    ]
    return _run(name, {}, {"steps": steps})


def _values(name: str) -> str:
    """Thousands of inputs, none of which is among thousands of values."""
    schema = {"type": "object", "properties": {"l": {"type": "array", "items": {"enum": list(range(9000))}}}}
    return _run(name, {"l": [10_001] * 6000}, {"inputs": schema, "steps": [_WAIT]})


def _unique(name: str) -> str:
    """A long list whose items are compared with each other."""
    items = [{"a": n, "b": [n]} for n in range(40_000)]
    schema = {"type": "object", "properties": {"l": {"type": "array", "uniqueItems": True}}}
    return _run(name, {"l": items}, {"inputs": schema, "steps": [_WAIT]})


def _branches(name: str) -> str:
    """Alternatives in alternatives, by reference, over a value that fits none of them."""
    defs: dict[str, Any] = {
        f"d{n}": {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/d{n + 1}"}} for _ in range(3)]}
        for n in range(8)
    }
    defs["d8"] = {"type": "string"}
    value: Any = 1
    for _ in range(8):
        value = [value, value]
    schema = {"type": "object", "$defs": defs, "properties": {"l": {"$ref": "#/$defs/d0"}}}
    return _run(name, {"l": value}, {"inputs": schema, "steps": [_WAIT]})


def _patterns(name: str) -> str:
    """Patterns with large counts, over a long text."""
    rules = {f"^(a|b){{1,{n}}}c$": {"type": "string"} for n in range(50, 150)}
    schema = {"type": "object", "patternProperties": rules, "properties": {"l": {"pattern": "(x+x+)+y"}}}
    return _run(
        name, {"l": "x" * 500_000, **{"ab" * 70 + str(n): 1 for n in range(500)}}, {"inputs": schema, "steps": [_WAIT]}
    )


WORK: Final[dict[str, Callable[[str], str]]] = {
    "costly": _costly,
    "distinct": _distinct,
    "nested": _nested,
    "texts": _texts,
    "fan": _fan,
    "graph": _graph,
    "values": _values,
    "unique": _unique,
    "branches": _branches,
    "patterns": _patterns,
    "deep": lambda name: written("AgentRun", name, RUNS["inputs"], lists(1500)),
    "flat": lambda name: written("AgentRun", name, RUNS["inputs"], many('{"a":1}', 1_200_000)),
    "big": lambda name: big(1_540_000).replace('"name":"big"', f'"name":"{name}"', 1),
}
"""By name: a run that makes its reader work, as an object of that name."""
