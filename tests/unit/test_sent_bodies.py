"""A body is written as its Content-Type says, and no value in it adds anything else."""

from __future__ import annotations

import json
import re
from email import message_from_bytes
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.texts import as_text
from agentrun.api.tools import Http
from agentrun.api.values import JSON
from agentrun.runner.http_body import Refused
from agentrun.runner.http_request import prepare
from agentrun.workflow.http import compile_http

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VALUES = st.text(st.characters(exclude_categories=["Cs"]))


def body(args: dict[str, Any], content_type: str, template: Any = None) -> bytes:
    http = Http.model_validate(
        {"url": "http://shop.example/", "headers": {"content-type": content_type}, "body": template}
    )
    found = prepare(http, compile_http(http), {"args": args}).content
    assert found is not None
    return found


@given(VALUES, VALUES)
def test_a_value_adds_no_field_to_a_form(note: str, other: str) -> None:
    for template in (
        "amount=5&note=${args.note}&x=${args.other}",
        {"amount": 5, "note": "${args.note}", "x": "${args.other}"},
    ):
        sent = body({"note": note, "other": other}, FORM["Content-Type"] + "; charset=UTF-8", template)
        assert sent.isascii()
        pairs = parse_qsl(sent.decode(), keep_blank_values=True, strict_parsing=True)
        assert pairs == [("amount", "5"), ("note", note), ("x", other)]


def test_arguments_are_the_form_where_there_is_no_body() -> None:
    args = {"a": "x y", "b": [1, "zwei"], "c": True, "d": None, "e": 1.5, "f[g]": ""}
    assert body(args, FORM["Content-Type"]) == b"a=x%20y&b=1&b=zwei&c=true&e=1.5&f%5Bg%5D="


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ({"a": {"b": "${args.x}"}}, "body.a is an object"),
        ({"a": ["1", ["2"]]}, r"body.a\[1\] is a list"),
        ({"a": "${args.deep}"}, "body.a is an object"),
        (["${args.x}"], "must be an object with a value for each field"),
    ],
)
def test_what_a_form_cannot_hold_is_refused_by_its_place(template: Any, place: str) -> None:
    with pytest.raises(Refused, match=place):
        body({"x": "1", "deep": {"y": 1}}, FORM["Content-Type"], template)


def test_a_form_of_half_a_character_is_refused() -> None:
    for template in ({"a": "${args.x}"}, "a=${args.x}"):
        with pytest.raises(Refused):
            body({"x": "\ud83d"}, FORM["Content-Type"], template)


@given(VALUES)
def test_a_value_adds_no_element_to_xml(value: str) -> None:
    for kind in ("application/xml", "application/soap+xml; charset=utf-8", "text/xml"):
        try:
            sent = body({"x": value, "y": 1}, kind, '<a b="${args.x}"><c>${args.x}</c><d>${args.y}</d></a>')
        except Refused:
            assert not value.isprintable()
            continue
        root = ElementTree.fromstring(sent)
        assert [child.tag for child in root] == ["c", "d"]
        lines = value.replace("\r\n", "\n").replace("\r", "\n")
        assert root[0].text == (lines or None)


@given(VALUES)
def test_a_value_stays_within_its_quotes_in_lines_of_json(value: str) -> None:
    sent = body({"x": value}, "application/x-ndjson", '{"a": "${args.x}"}\n{"b": 1}')
    assert [json.loads(line) for line in sent.decode().split("\n")] == [{"a": value}, {"b": 1}]


@given(VALUES)
def test_a_text_under_json_is_a_json_text(value: str) -> None:
    assert json.loads(body({"x": value}, "application/json", "a: ${args.x}")) == f"a: {value}"


@pytest.mark.parametrize(
    "value", ["", '"', "\\", '}, "b": {', "日本 🦊\n", "${x}", 1, 2.5, None, True, {"a": ['"', None]}]
)
def test_a_text_that_is_json_around_its_values_is_that_json(value: JSON) -> None:
    """As people copy a body from somewhere: no value adds a field, and each keeps its type."""
    template = '{"a": "x ${args.x}", "b": ${args.x}, "c": [${args.x}, "${args.x}"], "d": "\\"$${x}",\n"e": 1}'
    text = as_text(value)
    assert json.loads(body({"x": value}, "application/json", template)) == {
        "a": f"x {text}", "b": value, "c": [value, value], "d": '"${x}', "e": 1,
    }  # fmt: skip


@pytest.mark.parametrize("template", ['{"a": ${args.x}', "{'a': '${args.x}'}", '{"${args.x}": 1}', "[${args.x}]]", "{"])
def test_a_text_that_is_no_json_is_a_json_text(template: str) -> None:
    found = json.loads(body({"x": "v"}, "application/json", template))
    assert found == template.replace("${args.x}", "v")


@pytest.mark.parametrize(
    ("kind", "template", "sent"),
    [
        ("text/plain; charset=iso-8859-1", "é ${args.x}", "é ü".encode("latin-1")),
        ("text/plain; charset=utf-16le", "${args.x}!", "ü!".encode("utf-16-le")),
        ("text/plain; charset=UTF-16", "${args.x}", "ü".encode("utf-16")),
        ("text/xml; charset=iso-8859-1", "<a>€ ${args.x}</a>", b"<a>&#8364; \xfc</a>"),
        ("text/plain; charset=gbk", "你${args.y}", "你好".encode("gbk")),
        ("application/json; charset=iso-8859-1", {"a": "${args.y}"}, b'{"a": "\\u597d"}'),
        ("application/x-www-form-urlencoded; charset=iso-8859-1", {"a": "${args.x}"}, b"a=%FC"),
        ("application/x-www-form-urlencoded; charset=iso-8859-1", "a=${args.x}", b"a=%FC"),
        ("application/x-ndjson", ["${args.x}", {"b": [1]}], '"ü"\n{"b": [1]}\n'.encode()),
        ("application/jsonl", {"b": "${args.x}"}, '{"b": "ü"}\n'.encode()),
    ],
)
def test_a_body_is_written_in_the_charset_and_form_that_its_type_names(kind: str, template: Any, sent: bytes) -> None:
    assert body({"x": "ü", "y": "好"}, kind, template) == sent


@pytest.mark.parametrize(
    ("kind", "template", "words"),
    [
        ("text/plain; charset=iso-8859-1", "${args.y}", 'contains "好", which its charset iso8859-1'),
        ("application/x-www-form-urlencoded; charset=iso-8859-1", {"a": "${args.y}"}, "cannot encode"),
        ("text/plain; charset=klingon", "${args.y}", 'charset "klingon"'),
        ("application/xml", {"a": "${args.y}"}, "of type application/xml must be a text"),
        ("text/html", ["${args.y}"], "of type text/html must be a text"),
        ("multipart/mixed", {"a": 1}, "of type multipart/mixed must be a text"),
        ("multipart/form-data", "--x\r\n${args.y}", "names no boundary"),
        ("multipart/form-data", {"a": {"b": 1}}, "body.a is an object"),
        ("multipart/form-data; boundary=abc", {"a": "abc"}, "boundary"),
    ],
)
def test_what_a_type_cannot_hold_is_refused_before_anything_is_sent(kind: str, template: Any, words: str) -> None:
    with pytest.raises(Refused, match=re.escape(words)):
        body({"y": "好"}, kind, template)


def test_an_object_becomes_a_multipart_form() -> None:
    """Its boundary is made from its fields: the same call is the same bytes, and no value ends its part."""
    tool = Http.model_validate({
        "url": "http://x/y", "headers": {"content-type": "multipart/form-data"},
        "body": {"a": "${args.x}", 'b"\r\n': [1, "ü"], "none": None},
    })  # fmt: skip
    made = [prepare(tool, compile_http(tool), {"args": {"x": x}}) for x in ("v\r\n--x", "v\r\n--x", "w")]
    assert made[0] == made[1] and made[0].headers != made[2].headers
    content = made[0].content
    assert content is not None
    parsed = message_from_bytes(f"Content-Type: {made[0].headers['content-type']}\r\n\r\n".encode() + content)
    parts = [(part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
             for part in parsed.get_payload() if isinstance(part, Message)]  # fmt: skip
    assert parts == [("a", b"v\r\n--x"), ("b%22%0D%0A", b"1"), ("b%22%0D%0A", "ü".encode())]


def test_a_value_ends_no_part_of_a_multipart_body() -> None:
    template = '--cut\r\nContent-Disposition: form-data; name="a"\r\n\r\n${args.x}\r\n--cut--\r\n'
    assert b"hello" in body({"x": "hello"}, "multipart/form-data; boundary=cut", template)
    with pytest.raises(Refused, match="boundary"):
        body({"x": "\r\n--cut\r\n"}, "multipart/form-data; boundary=cut", template)


def test_a_body_that_is_one_value_whole_stands_as_it_is() -> None:
    assert body({"x": "<a/>"}, "application/xml", "${args.x}") == b"<a/>"
    assert body({"x": {"a": 1}}, FORM["Content-Type"], "${args.x}") == b"a=1"
