"""The decoder of what an API server sends, and the views that the operator keeps of it.

Whatever a text is, it is a value within the bounds or ``Unreadable``; an object keeps its name, and the others of its
list come through; and no view of an object raises, whatever stands where the schema of another version let it stand.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from agentrun.adapters.objects import approval_view, command_view, run_view
from agentrun.adapters.pod_status import pod_view
from agentrun.api.decoding import MAX_DEPTH, UNREADABLE, Unreadable, decode, decode_list, decode_object
from agentrun.api.footprint import footprint
from agentrun.workflow.json_schema import depth
from tests import poison
from tests.fuzz.target import Target
from tests.fuzz.values import JSON, texts

NOON = "2026-01-01T12:00:00Z"
METADATA = {"name": "r", "namespace": "n", "uid": "u-1", "resourceVersion": "7", "creationTimestamp": NOON}
"""What an API server itself writes of an object."""

PIECES = (
    b"[", b"]", b"{", b"}", b",", b":", b'"', b'"a"', b"\\", b"1", b"-", b"e9", b"null", b" ", b"\x00", b"\xff",
    b'"metadata":', b'"spec":', b'"status":', b'"object":', b'"items":', b"[" * 300, b"]" * 300, b'{"a":' * 250,
    b"}" * 250, b'"\\u0000"', b'"\\ud800"', b'"\xed\xa0\x80"', b"1" * 5000, b"1e999", b"-0", b"NaN", b"[]," * 99,
)  # fmt: skip
"""What texts are broken with."""


# -- any bytes ---------------------------------------------------------------------------------------------------------

BROKEN = st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=40).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good text of an object, a watch event or a list, in which something was cut, put in or replaced."""
    kind = draw(st.sampled_from([obj, event, page]))
    text = kind(json.dumps(draw(JSON)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        upto = min(len(text), at + draw(st.integers(0, 8)))
        text = text[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + text[upto:]
    return text


def obj(value: str, place: str = "inputs") -> bytes:
    """A run with a value in its spec."""
    return (
        f'{{"apiVersion":"v","kind":"AgentRun","metadata":{json.dumps(METADATA)},'
        f'"spec":{{"cancel":true,{json.dumps(place)}:{value}}},"status":{{"phase":"Pending"}}}}'
    ).encode(errors="surrogatepass")


def event(value: str) -> bytes:
    """A line of a watch."""
    return b'{"type":"MODIFIED","object":' + obj(value) + b"}"


def page(value: str) -> bytes:
    """A list of three."""
    return (
        b'{"kind":"List","metadata":{"resourceVersion":"9"},"items":[' + b",".join([obj("1"), obj(value)] * 2) + b"]}"
    )


def check_bytes(text: bytes) -> None:
    """A value within the bounds, the one that Python reads; or one error, in few words."""
    for read in (decode, decode_object, decode_list):
        try:
            found = read(text)
        except Unreadable:
            continue
        assert depth(found) <= MAX_DEPTH
        json.dumps(found, allow_nan=False)
        if UNREADABLE not in json.dumps(found) and len(text) < 100_000:
            assert same(found, json.loads(text)) or read is decode_list


def same(one: Any, other: Any) -> bool:
    """Whether both are the same value, 1 and 1.0 and true being others."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# -- objects with one bad part -----------------------------------------------------------------------------------------

# Not at the bound itself: a list and a watch event have some levels of their own.
DEPTHS = st.integers(1, MAX_DEPTH - 20) | st.integers(MAX_DEPTH + 2, 2_000)
BAD = st.sampled_from(sorted(poison.SHAPES)).flatmap(lambda shape: DEPTHS.map(poison.SHAPES[shape]))


@st.composite
def with_a_bad_part(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A key of the spec, the text of a value that may be beyond the bounds, and good ones."""
    goods = draw(st.lists(JSON.map(json.dumps), min_size=1, max_size=4))
    return draw(texts), draw(BAD), goods


def check_part(given: tuple[str, str, list[str]]) -> None:
    """The object keeps its name and all that can be read; the others of its page are as they are alone."""
    place, bad, goods = given
    alone = [decode_object(obj(good)) for good in goods]
    found = decode_object(obj(bad, place))
    assert (found["metadata"], found["status"]) == (METADATA, {"phase": "Pending"})
    if UNREADABLE in found:
        assert place not in found["spec"] or place == "cancel"
        assert len(found[UNREADABLE]) < 1000
    text = b'{"items":[' + b",".join([*map(obj, goods), obj(bad, place)]) + b"]}"
    assert decode_list(text)["items"] == [*alone, found]
    assert decode_object(b'{"type":"ADDED","object":' + obj(bad, place) + b"}")["object"] == found
    view = run_view(found)
    assert (view.ref.name, bool(view.problem)) == ("r", UNREADABLE in found)


# -- what is kept of them ----------------------------------------------------------------------------------------------

FIELDS = st.sampled_from(
    """annotations labels ownerReferences managedFields generation deletionTimestamp deletionGracePeriodSeconds phase
    workflow workflowRef inputs suspend cancel name uid run signal resume resolve payload happened result retry giveUp
    step digest required expiresAt askedAt decisions by decision comment at time fieldsV1 f:status f:decisions
    conditions type status reason message completionTime observedGeneration journal ttlSecondsAfterFinished source
    subresource k:{"by":"ana"}""".split()
)
GUESSES = st.recursive(
    JSON
    | st.sampled_from([NOON, "True", "False", "Approved", "sha256:" + "0" * 64, "Succeeded", "Decided", 2**70, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)
VIEWED = st.fixed_dictionaries(
    {"spec": GUESSES, "status": GUESSES},
    optional={"kind": texts, UNREADABLE: texts},
)
NOTES = st.dictionaries(FIELDS | texts, texts, max_size=3)


def check_views(given: tuple[dict[str, Any], dict[str, str], Any]) -> None:
    """No view raises, and what is kept of a run is small."""
    found, notes, fields = given
    found = found | {"metadata": METADATA | {"annotations": notes, "labels": notes, "managedFields": fields}}
    view = run_view(found)
    assert footprint(view.written or b"", 10**6) < 10**6
    command = command_view(found)
    assert (command.command is None) or not command.problem
    for decision in approval_view(found, 1e9).decisions:
        assert decision.at <= 1e9
    status = {"containerStatuses": [{"name": "step", "state": {"terminated": {"message": json.dumps(found["spec"])}}}]}
    pod_view({**found, "spec": {}, "status": status})


VIEWS = st.tuples(VIEWED, NOTES, st.lists(GUESSES, max_size=3) | GUESSES)

TARGETS = (
    Target("bytes", BROKEN | damaged(), check_bytes),
    Target("parts", with_a_bad_part(), check_part),
    Target("views", VIEWS, check_views),
)
