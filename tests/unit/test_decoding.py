"""What an API server sends is read within bounds, and every object keeps its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.adapters.objects import command_view, run_view
from agentrun.api.decoding import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    UNREADABLE,
    Unreadable,
    decode,
    decode_list,
    decode_object,
)
from tests import poison

NOON = "2026-01-01T12:00:00Z"
META = {"name": "r", "namespace": "n", "uid": "u-1", "resourceVersion": "7", "creationTimestamp": NOON}


def obj(value: str, **more: Any) -> str:
    spec = {"cancel": True, "inputs": "HERE", "suspend": True}
    found = {"apiVersion": "v", "kind": "AgentRun", "metadata": META, "spec": spec, "status": {"phase": "Pending"}}
    return json.dumps(found | more).replace('"HERE"', value)


@pytest.mark.parametrize("shape", poison.SHAPES)
def test_the_limit_of_depth_is_met_to_the_level(shape: str) -> None:
    make = poison.SHAPES[shape]
    most = next(n for n in range(MAX_DEPTH + 1, 0, -1) if levels(make(n)) <= MAX_DEPTH)
    assert levels(make(most)) in (MAX_DEPTH, MAX_DEPTH - 1)
    assert decode(make(most).encode()) is not None
    with pytest.raises(Unreadable, match=f"deeper than {MAX_DEPTH} levels: make it flatter"):
        decode(make(most + 2).encode())


def levels(text: str) -> int:
    level = most = 0
    for sign in text:
        level += (sign in "[{") - (sign in "]}")
        most = max(most, level)
    return most


@pytest.mark.parametrize("what", ["[]", "{}", '""', "1", '","', '"[{"'])
def test_values_are_counted_and_not_what_stands_in_texts(what: str) -> None:
    count = MAX_VALUES // (2 if what[0] in "[{" else 1)
    assert len(decode(f"[{','.join([what] * count)}]".encode())) == count
    with pytest.raises(Unreadable, match="more than 250,000 values"):
        decode(f"[{','.join([what] * (count + 1))}]".encode())


def test_bytes_are_bounded() -> None:
    with pytest.raises(Unreadable, match="larger than 8 MiB"):
        decode(b'"' + b"a" * MAX_BYTES + b'"')


@pytest.mark.parametrize("name", poison.VALUES)
def test_an_object_keeps_its_name_whatever_stands_in_it(name: str) -> None:
    text = obj(poison.VALUES[name]()).encode()
    found = decode_object(text)
    assert (found["metadata"], found["status"], found["spec"]["cancel"]) == (META, {"phase": "Pending"}, True)
    assert found["spec"]["suspend"] is True
    view = run_view(found)
    assert (view.ref.name, view.version, view.cancel, view.suspend) == ("r", 7, True, True)
    assert bool(view.problem) is (UNREADABLE in found)
    if UNREADABLE in found:
        assert found[UNREADABLE].startswith("spec.inputs ")
        assert "inputs" not in found["spec"]
        assert view.written is None
    else:
        assert found == json.loads(text)
    event = decode_object(b'{"type":"DELETED","object":' + text + b"}")
    assert (event["type"], event["object"]) == ("DELETED", found)


@pytest.mark.parametrize("name", [name for name in poison.VALUES if name.startswith("deep")])
def test_one_object_of_a_page_is_not_the_end_of_the_others(name: str) -> None:
    good, bad = obj("1"), obj(poison.VALUES[name]())
    items = ",".join([good] * 150 + [bad] + [good] * 49)
    page = f'{{"kind":"List","metadata":{{"resourceVersion":"9","continue":"c"}},"items":[{items}]}}'
    found = decode_list(page.encode())
    assert found["metadata"] == {"resourceVersion": "9", "continue": "c"}
    assert found["items"][:150] == found["items"][151:] + [json.loads(good)] * 101
    assert [item["metadata"]["name"] for item in found["items"]] == ["r"] * 200
    if "wide" not in name:
        assert "nests deeper" in found["items"][150][UNREADABLE]


def test_what_is_deep_everywhere_is_left_out_everywhere() -> None:
    deep = poison.maps(300)
    text = obj(deep, metadata=META | {"managedFields": "HERE"}, status={"phase": "Failed", "output": "HERE"})
    found = decode_object(text.encode())
    assert found["metadata"] == META
    assert found["status"] == {"phase": "Failed"}
    assert [part.split(" ")[0] for part in found[UNREADABLE].split("; ")] == [
        "metadata.managedFields",
        "spec.inputs",
        "status.output",
    ]


def test_a_deep_command_is_refused_by_its_own_words() -> None:
    spec = {"run": {"name": "r"}, "signal": {"name": "s", "payload": "HERE"}}
    view = command_view(decode_object(obj(poison.lists(1500), spec=spec).encode()))
    assert view.command is None
    assert view.problem == f"spec.signal nests deeper than {MAX_DEPTH} levels: make it flatter"
    assert view.run.name == "r"


@pytest.mark.parametrize(
    "text", [b"", b" ", b"[", b"{", b'{"a', b'{"a":', b'{"a":[', b"[]", b"1", b'{"a" 1}', b'{"a":}', b"\xff", b"<html>"]
)
def test_what_is_no_object_is_unreadable(text: bytes) -> None:
    for read in (decode_object, decode_list):
        with pytest.raises(Unreadable):
            read(text)


@pytest.mark.parametrize("rest", ["}", "{}", "x", "\xff", ",1", '{"items":[]}'])
def test_a_list_ends_where_it_ends(rest: str) -> None:
    """What followed a list that had to be read item by item was passed over."""
    deep = f'{{"items":[{obj(poison.lists(300))}]}} \n'
    assert len(decode_list(deep.encode())["items"]) == 1
    with pytest.raises(Unreadable, match="is not JSON"):
        decode_list((deep + rest).encode("latin-1"))


@pytest.mark.parametrize("text", ["1e999", "-1e+400", "1" * 400 + ".5", "1E0999", '{"a":[{"b":1e309}]}'])
def test_a_number_that_becomes_infinite_is_no_json(text: str) -> None:
    with pytest.raises(Unreadable, match="has a number that is too large: write it as a text"):
        decode(text.encode())
    found = decode_object(obj(text).encode())
    assert (found["metadata"], found[UNREADABLE][:12]) == (META, "spec.inputs ")
    assert decode(b'["1e999", 1e308, 1e-999, 12e0]') == ["1e999", 1e308, 0.0, 12.0]


def test_an_empty_list_may_be_null() -> None:
    assert decode_list(b'{"items":null}')["items"] == []
    with pytest.raises(Unreadable):
        decode_list(b'{"items":[1]}')


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@given(JSON, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_every_value_is_read_as_it_was_written(value: Any, ascii_only: bool, indent: int | str | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert decode(text) == value
    whole = b'{"kind":"K", "spec" : {"a": ' + text + b' ,"deep":' + poison.lists(300).encode() + b',"b":2}}'
    assert decode_object(whole) == {
        "kind": "K",
        "spec": {"a": value, "b": 2},
        UNREADABLE: f"spec.deep nests deeper than {MAX_DEPTH} levels: make it flatter",
    }
