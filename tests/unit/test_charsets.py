"""Answers in every encoding and of every type."""

from __future__ import annotations

import base64
import codecs
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.runner.charsets import declared, decoded
from agentrun.workflow.http import is_json
from agentrun.workflow.integers import with_integers
from tests.harness.loopback import reply
from tests.harness.tool_bench import ToolBench

TEXTS = {
    "iso-8859-1": "José",
    "ISO-8859-15": "12 €",
    "windows-1252": "“Zoë”",
    "latin1": "Zoë",
    "utf-8": "日本 🦊",
    "utf8": "日本",
    "UTF-16": "日本 🦊",
    "utf-16le": "日本 {",
    "utf-16be": "日本 {",
    "utf-32": "日本 {",
    "shift_jis": "日本",
    "x-sjis": "日本",
    "windows-31j": "①日本",
    "euc-jp": "日本",
    "iso-2022-jp": "日本",
    "gbk": "中国",
    "gb2312": "中国",
    "gb18030": "中国 🦊",
    "big5": "台灣",
    "euc-kr": "한국",
    "windows-1251": "Москва",
    "koi8-r": "Москва",
    "iso-8859-5": "Москва",
    "iso-8859-7": "Αθήνα",
    "iso-8859-8": "שלום",
    "windows-1256": "سلام",
    "tis-620": "ไทย",
    "macintosh": "Zoë",
    "cp437": "Zoë",
    "us-ascii": "plain",
}
PYTHON = {"x-sjis": "shift_jis", "macintosh": "mac-roman", "windows-31j": "cp932"}


@pytest.mark.parametrize(("charset", "text"), TEXTS.items())
@pytest.mark.parametrize("kind", ["application/json", "application/x-amz-json-1.1", "application/problem+json"])
async def test_json_is_read_in_the_charset_that_it_is_announced_in(
    shop: ToolBench, charset: str, text: str, kind: str
) -> None:
    content = json.dumps({"name": text}, ensure_ascii=False).encode(PYTHON.get(charset, charset))
    found = await shop.call(
        {}, reply(content, content_type=f'{kind}; charset="{charset}"'), output="response.body.name"
    )
    assert found.output == text


@pytest.mark.parametrize(("charset", "text"), TEXTS.items())
@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/vnd.own"])
async def test_a_text_is_read_in_its_charset(shop: ToolBench, charset: str, text: str, kind: str) -> None:
    content = text.encode(PYTHON.get(charset, charset))
    assert (await shop.call({}, reply(content, content_type=f"{kind};charset={charset}"))).output == text


@pytest.mark.parametrize(
    ("content", "charset", "kind", "text"),
    [
        (codecs.BOM_UTF8 + "ü".encode(), "iso-8859-1", "", "ü"),  # a byte order mark comes first
        (codecs.BOM_UTF16_LE + "[1]".encode("utf-16-le"), "utf-8", "", "[1]"),
        (codecs.BOM_UTF16_BE + "[1]".encode("utf-16-be"), None, "", "[1]"),
        (codecs.BOM_UTF32_LE + "[1]".encode("utf-32-le"), None, "", "[1]"),
        ("[1]".encode("utf-16-be"), None, "", "[1]"),
        ("{}".encode("utf-16-le"), None, "", "{}"),
        ("[1]".encode("utf-16-be"), "utf-16", "", "[1]"),
        ('<?xml version="1.0" encoding="iso-8859-1"?><a>ü</a>'.encode("latin-1"), None, "text/xml", "ü"),
        ('<?xml version="1.0" encoding="iso-8859-1"?><a>ü</a>'.encode(), "utf-8", "text/xml", "ü"),
        ('<?xml version="1.0" encoding="utf-16"?><a>ü</a>'.encode(), None, "text/xml", "ü"),
        ('<html><meta charset="windows-1251">Ж'.encode("cp1251"), None, "text/html", "Ж"),
        ('<meta http-equiv=x content="text/html; charset=big5">台'.encode("big5"), None, "text/html", "台"),
        (b"\x93hi\x94", "iso-8859-1", "", "“hi”"),  # as everybody means it
        (b"\x81", "iso-8859-1", "", "\x81"),
        ("ü".encode(), "us-ascii", "", "ü"),
        (b"\xfc", "us-ascii", "", "ü"),
    ],
)
def test_what_says_the_encoding(content: bytes, charset: str | None, kind: str, text: str) -> None:
    found, problem = decoded(content, charset, kind)
    assert text in found
    assert problem == ""


@pytest.mark.parametrize(
    "charset", ["nonsense", "idna", "unicode_escape", "rot13", "zlib", "base64", "utf-7", "undefined"]
)
def test_a_charset_that_is_none_is_said(charset: str) -> None:
    text, problem = decoded("ü".encode(), charset)
    assert text == "ü"
    assert f'"{charset}"' in problem


def test_what_does_not_fit_its_encoding_is_said() -> None:
    assert decoded(b"\xe4", None) == ("\ufffd", "some of it is not utf-8, and is shown as \ufffd")


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain; charset=utf-8", "utf-8"),
        ("text/plain;CHARSET='utf-8'", "utf-8"),
        ('text/plain; format=flowed; charset = "utf-8"', "utf-8"),
        ("text/plain; mycharset=x", None),
        ("text/plain", None),
    ],
)
def test_the_charset_of_a_content_type(content_type: str, charset: str | None) -> None:
    assert declared(content_type) == charset


@given(
    st.binary(max_size=40), st.sampled_from([None, "nonsense", *TEXTS]), st.sampled_from(["", "text/xml", "text/html"])
)
def test_any_bytes_are_some_text(content: bytes, charset: str | None, kind: str) -> None:
    text, _ = decoded(content, charset, kind)
    text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "kind",
    "application/json text/json application/x-json text/x-json application/x-amz-json-1.0 application/x-amz-json-1.1 "
    "application/problem+json application/vnd.api+json application/hal+json application/json-rpc application/ld+json "
    "application/jsonrequest model/gltf+json application/merge-patch+json".split(),
)
async def test_types_of_json(shop: ToolBench, kind: str) -> None:
    assert is_json(kind)
    assert (await shop.call({}, reply({"a": 1}, content_type=kind.upper()))).output == {"a": 1}


@pytest.mark.parametrize(
    "kind",
    "application/x-ndjson application/jsonl application/json-seq application/json-lines application/graphql text/csv "
    "application/sql application/octet-stream application/vnd.own application/yaml message/http image/svg+xml".split(),
)
async def test_what_is_no_json_and_is_text_is_kept_as_text(shop: ToolBench, kind: str) -> None:
    assert not is_json(kind)
    assert (await shop.call({}, reply(b'{"a": "\xc3\xbc"}\n[2]', content_type=kind))).output == '{"a": "ü"}\n[2]'


async def test_a_binary_is_there_for_a_tool_that_wants_it(shop: ToolBench) -> None:
    answer = reply(b"\x89PNG\x00", content_type="image/png")
    assert (await shop.call({}, answer)).output == {"contentType": "image/png", "bytes": 5}
    wanted = await shop.call({}, answer, output="response.body.base64")
    assert base64.b64decode(str(wanted.output)) == b"\x89PNG\x00"


# -- whole numbers ---------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "integer": {"type": "integer"},
        "nullable": {"type": ["integer", "null"]},
        "number": {"type": "number"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        "optional": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "all": {"allOf": [{"type": "integer"}, {"minimum": 0}]},
        "list": {"type": "array", "items": {"$ref": "#/$defs/count"}},
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}]},
        "chosen": {"enum": [1, 2]},
        "inner": {"$ref": "#"},
        "any": {},
        "one": {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}},
                {"properties": {"kind": {"const": "b"}, "n": {"type": "number"}, "m": {"type": "integer"}}},
            ]
        },
    },
    "additionalProperties": {"type": "integer"},
    "$defs": {"count": {"type": "integer"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"integer": 2.0}, {"integer": 2}),
        ({"nullable": 2.0}, {"nullable": 2}),
        ({"number": 2.0}, {"number": 2.0}),
        ({"either": 2.0}, {"either": 2.0}),
        ({"optional": -2.0}, {"optional": -2}),
        ({"all": 2.0}, {"all": 2}),
        ({"list": [1.0, 2, 3.0]}, {"list": [1, 2, 3]}),
        ({"pair": [1.0, 1.0]}, {"pair": [1, 1.0]}),
        ({"chosen": 2.0}, {"chosen": 2}),
        ({"inner": {"inner": {"integer": 0.0}}}, {"inner": {"inner": {"integer": 0}}}),
        ({"any": 2.0}, {"any": 2.0}),
        ({"else": 2.0}, {"else": 2}),
        ({"one": {"kind": "b", "n": 2.0, "m": 2.0}}, {"one": {"kind": "b", "n": 2.0, "m": 2}}),
        ({"integer": 1e300}, {"integer": 1e300}),
        ({"integer": True}, {"integer": True}),
    ],
)
def test_a_whole_number_is_an_integer_where_the_schema_asks_for_one(value: Any, meant: Any) -> None:
    assert json.dumps(with_integers(SCHEMA, value)) == json.dumps(meant)
