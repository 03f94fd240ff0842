"""A record: what its hash covers, what it can carry, and how a damaged one is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.canonical import canonical, sha256
from agentrun.journal.records import SCHEMA, Damaged, Record, parse

KEY = "support/refund-4711/steps/triage/00000007.json"
RECORD = Record("support/refund-4711", "triage", 2, 7, 1700000000.123456, "turn", {"a": 1}, "sha256:before")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def content() -> dict[str, Any]:
    """The fields of a sealed record."""
    found: dict[str, Any] = json.loads(RECORD.sealed()[1])
    return found


def test_what_was_sealed_is_read() -> None:
    sealed, data = RECORD.sealed()
    assert parse(data, KEY) == sealed
    assert sealed == replace(RECORD, hash=sealed.hash)


CHANGES = {
    "v": 0,
    "run": "support/refund-4712",
    "step": "other",
    "attempt": 3,
    "seq": 8,
    "at": "2023-11-14T22:13:20.123457Z",
    "kind": "result",
    "body": {"a": 2},
    "prev": "sha256:other",
    "hash": "sha256:other",
}


def test_every_field_has_a_change() -> None:
    assert content().keys() == CHANGES.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_the_hash_covers_every_field(field: str) -> None:
    changed = content() | {field: CHANGES[field]}
    assert changed != content()
    with pytest.raises(Damaged, match=KEY):
        parse(canonical(changed), KEY)


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_is_missing_is_damage(field: str) -> None:
    without = {name: value for name, value in content().items() if name != field}
    with pytest.raises(Damaged, match=KEY):
        parse(canonical(without), KEY)


def test_a_field_more_is_damage() -> None:
    with pytest.raises(Damaged, match="does not match its hash"):
        parse(canonical(content() | {"note": "mine"}), KEY)


def test_the_bytes_are_sorted_ascii_without_spaces() -> None:
    data = replace(RECORD, body={"b": "é \ud800", "a": [1, 1.5, None]}).sealed()[1]
    assert data.isascii()
    assert data.startswith(
        b'{"at":"2023-11-14T22:13:20.123456Z","attempt":2,"body":{"a":[1,1.5,null],"b":"\\u00e9 \\ud800"}'
    )


@given(json_values)
def test_any_json_survives(value: Any) -> None:
    sealed, data = replace(RECORD, body={"value": value}).sealed()
    read = parse(data, KEY)
    assert canonical(read.body) == canonical({"value": value})
    assert read.hash == sealed.hash
    assert read.sealed()[1] == data


@pytest.mark.parametrize(
    "text",
    ["\ud800", "\udfff\ud800", "\x00", "\u2028", "</script>", '"', "\\", "😀", "\ufeff", "a" * 100_000],
)
def test_hostile_texts_survive(text: str) -> None:
    data = replace(RECORD, body={text: text}).sealed()[1]
    assert parse(data, KEY).body == {text: text}


@pytest.mark.parametrize("number", [2**63, -(2**200), 10**4000, 0.1, -0.0, 5e-324, 1.7976931348623157e308])
def test_numbers_survive(number: float) -> None:
    data = replace(RECORD, body={"n": number}).sealed()[1]
    assert repr(parse(data, KEY).body["n"]) == repr(number)


@given(st.floats(0, 253402300799).map(lambda at: round(at, 6)))
def test_an_instant_in_microseconds_survives(at: float) -> None:
    sealed, data = replace(RECORD, at=at).sealed()
    assert parse(data, KEY).at == pytest.approx(at, abs=1e-6)
    assert parse(data, KEY).sealed() == (parse(data, KEY), data)
    assert sealed.hash == parse(data, KEY).hash


def test_a_newer_form_is_not_guessed_at() -> None:
    """Where a field was missing too, it was called damaged, which sends people to look for a culprit."""
    for newer in (content() | {"v": SCHEMA + 1}, {"v": SCHEMA + 1, "all": "new"}):
        with pytest.raises(Damaged, match=f"schema version {SCHEMA + 1}.*upgrade"):
            parse(canonical(newer), KEY)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'"text"',
        b"[" * 100_000,
        b'{"v":1,"hash":"x","body":NaN}',
        b'{"v":1,"hash":"x","body":{"n":1e999}}',
        b'{"v":true,"hash":"x"}',
        b'{"v":"1","hash":"x"}',
        b'{"v":1,"n":' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_is_no_record_is_damage_and_named(data: bytes) -> None:
    """NaN and deep nesting came out as ValueError and RecursionError."""
    with pytest.raises(Damaged, match=KEY):
        parse(data, KEY)


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    sealed, good = RECORD.sealed()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[place]))
    try:
        read = parse(bytes(bad), KEY)
    except Damaged:
        return
    assert read == sealed  # as `"\\u00E9"` for `"\\u00e9"`: other bytes, the same record


def test_a_hash_is_of_the_content_in_canonical_form() -> None:
    fields = content()
    digest = fields.pop("hash")
    assert digest == sha256(canonical(fields))
