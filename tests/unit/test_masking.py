"""A secret that comes back: every way in which it may be written is found, and nothing else is touched."""

from __future__ import annotations

import base64
import gzip
import html
import json
import quopri
import textwrap
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.runner import masking
from agentrun.runner.escapes import decodings, may_change
from agentrun.runner.masking import Mask, environment_secrets, is_placeholder
from tests.harness.loopback import raw, reply
from tests.harness.tool_bench import AUTH, ToolBench

SECRET = "tok/en+Ab=0123456789&x"
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=60)


def mixed(text: str) -> str:
    """Every second character as an entity, the others as percent escapes."""
    return "".join(f"&#{ord(c)};" if at % 2 else f"%{ord(c):02X}" for at, c in enumerate(text))


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a header": lambda s: f"Bearer {s}",
    "upper case": str.upper,
    "json": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "json, every character": lambda s: "".join(f"\\u{ord(c):04X}" for c in s),
    "json in json": lambda s: json.dumps(json.dumps(s)),
    "javascript": lambda s: "".join(f"\\x{ord(c):02x}" for c in s),
    "octal": lambda s: "".join(f"\\{ord(c):03o}" for c in s),
    "shell": lambda s: "".join(c if c.isalnum() else f"\\{c}" for c in s),
    "url": lambda s: quote(s, safe=""),
    "url, small letters": lambda s: quote(s, safe="").lower() if s.islower() else quote(s, safe=""),
    "url, every character": lambda s: "".join(f"%{ord(c):02x}" for c in s),
    "url twice": lambda s: quote(quote(s, safe=""), safe=""),
    "url three times": lambda s: quote(quote(quote(s, safe=""), safe=""), safe=""),
    "html": html.escape,
    "html, decimal": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "html, hexadecimal": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "html, without semicolons": lambda s: "".join(f"&#{ord(c):07};" for c in s),
    "url of html": lambda s: quote(html.escape(s), safe=""),
    "html of json": lambda s: html.escape(json.dumps(s)),
    "mixed": mixed,
    "quoted printable": lambda s: quopri.encodestring(b"=" * 10 + b"x" * 40 + s.encode()).decode(),
    "quoted printable, every character": lambda s: "".join(f"={ord(c):02X}" for c in s),
    "over lines": lambda s: f"{s[:9]}\n  {s[9:]}",
    "over lines, in json": lambda s: json.dumps(f"{s[:9]}\r\n{s[9:]}"),
    "utf-16 read as latin-1": lambda s: s.encode("utf-16-le").decode("latin-1"),
    "hexadecimal": lambda s: s.encode().hex(),
    "hexadecimal, large": lambda s: s.encode().hex().upper(),
    "hexadecimal with colons": lambda s: s.encode().hex(":"),
    "hexadecimal with blanks": lambda s: s.encode().hex(" "),
    "hexadecimal with 0x": lambda s: ", ".join(f"0x{c:02X}" for c in s.encode()),
    "a list of bytes": lambda s: str(list(s.encode())),
    "base64 of utf-16": lambda s: base64.b64encode(s.encode("utf-16-le")).decode(),
    "base64 over lines": lambda s: "\r\n".join(textwrap.wrap(base64.b64encode(b"x" * 50 + s.encode()).decode(), 76)),
    "base64 over lines, in json": lambda s: json.dumps(base64.encodebytes(b"x" * 50 + s.encode()).decode()),
    "base64 in a url": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
    **{
        f"base64 after {before} and before {after} bytes": (
            lambda s, b=before, a=after: base64.b64encode(b"u" * b + s.encode() + b"z" * a).decode()  # type: ignore[misc]
        )
        for before in range(4)
        for after in range(3)
    },
    "base64 for urls": lambda s: base64.urlsafe_b64encode(b"\xff\xfe" + s.encode()).decode().rstrip("="),
}


def packed(data: bytes | str) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


PACKED: dict[str, Callable[[str], str]] = {
    "a login of a registry, as Kubernetes keeps it": lambda s: packed(
        json.dumps({"auths": {"r": {"auth": packed(s)}}})
    ),
    "base64 three times": lambda s: packed(packed(packed(f"user:{s}"))),
    "base64 twice, after another word": lambda s: f"x-{packed(packed(s))}",
    "base64 twice, over lines": lambda s: "\n".join(textwrap.wrap(packed(packed(s) * 3), 60)),
    "base64 of a url": lambda s: packed("https://example.com/?token=" + quote(s, safe="")),
    "base64 of json, every character": lambda s: packed("".join(f"\\u{ord(c):04x}" for c in s)),
    "base64 of hexadecimal": lambda s: packed(s.encode().hex()),
    "base64 of utf-16, the other way round": lambda s: packed(s.encode("utf-16-be")),
    "base64 of gzip": lambda s: packed(gzip.compress(f"token: {s}".encode())),
    "hexadecimal of base64": lambda s: packed(f"user:{s}").encode().hex(),
    "hexadecimal of utf-16, the other way round": lambda s: s.encode("utf-16-be").hex(),
    "base64 in json in base64 for urls": lambda s: base64.urlsafe_b64encode(json.dumps([packed(s)]).encode()).decode(),
}
FORMS |= PACKED

PARTED: dict[str, Callable[[str], str]] = {
    "base32": lambda s: base64.b32encode(s.encode()).decode(),
    "base32, within more": lambda s: base64.b32encode(f"ab{s}cde".encode()).decode().rstrip("="),
    "a list of characters": lambda s: json.dumps(list(s)),
    "in two texts of a list": lambda s: json.dumps([s[:9], s[9:]]),
    "with soft hyphens": "\u00ad".join,
    "with an invisible blank": lambda s: f"{s[:9]}\u200b{s[9:]}",
    "with marks of direction": lambda s: f"\u202a{s[:9]}\u202c{s[9:]}",
    "with a colour": lambda s: f"{s[:9]}\x1b[31;1m{s[9:]}",
    "with a colour, in json": lambda s: json.dumps(f"{s[:9]}\x1b[31;1m{s[9:]}"),
    "half of it bold": lambda s: f"**{s[:9]}**{s[9:]}",
    "in markdown": lambda s: "".join(c if c.isalnum() else f"\\{c}" for c in s),
}
"""Forms in which short secrets, or those of few letters and digits, are not found."""


MARKS = st.lists(st.sampled_from([*'\\=\n\r\0 \t"{}:xn4A/-', "\x1b[1m", "%4", "&#4", "ab" * 12])).map("".join)


@pytest.mark.parametrize("secret", ["00000000000:", "3D/8f+00112233==", "ab:cd:ef:01:23", "=3D=3D=3D=3D=3D", SECRET])
@pytest.mark.parametrize(
    "form",
    [
        lambda s: f"https://x/?token={quote(s, safe='')}",
        lambda s: quote(f"https://x/?token={quote(s, safe='')}", safe=""),
        lambda s: f"a=1&token={quote(s, safe='').lower()}&b=%20",
        lambda s: json.dumps({"url": f"https://x/?token={quote(s, safe='')}"}).replace("/", "\\/"),
        lambda s: html.escape(f"?a=%26&token={quote(s, safe='')}"),
        lambda s: quopri.encodestring(f"?token={quote(s, safe='')}".encode()).decode(),
        lambda s: packed(f"?token={quote(s, safe='')}"),
    ],
)
def test_the_sign_before_a_parameter_is_not_taken_for_an_escape_of_mail(
    form: Callable[[str], str], secret: str
) -> None:
    text = form(secret)
    hidden = Mask([secret]).text(text)
    assert "***" in hidden
    assert not Mask([secret])._is_in(hidden)


@settings(deadline=None)
@given(MARKS)
def test_a_text_whose_escapes_are_not_decoded_has_none_that_matter(text: str) -> None:
    def seen(view: str) -> tuple[str, list[str]]:
        return masking._letters(view), ["".join(run[0].split()).rstrip("=") for run in masking._RUN.finditer(view)]

    assert may_change(text) or all(seen(view) == seen(text) for view in decodings(text))


@settings(deadline=None)
@given(MARKS | st.text(st.sampled_from("ab+-_=/ \n\r\té\ud800\U0001f600"), min_size=30))
def test_runs_are_those_of_the_pattern(text: str) -> None:
    assert [run.span() for run in masking._runs(text)] == [run.span() for run in masking._RUN.finditer(text)]


def test_only_two_characters_have_a_letter_of_ascii_in_lower_case() -> None:
    others = map(chr, range(128, 0x110000))
    assert [char for char in others if any(part.isascii() for part in char.lower())] == [*masking._LOWER_TO_ASCII]


@pytest.mark.parametrize("secret", ["x0x0X0x00x", "tok\u212aen-\u0130x0", "é" * 9, 'kc0zk_"-I', "0" * 8])
def test_a_secret_is_found_though_a_quick_look_ignores_some_of_its_characters(secret: str) -> None:
    assert Mask([secret]).text(f"a {secret} b") == "a *** b"
    assert Mask([secret]).text(f"a {secret.encode().hex()} b") == "a *** b"
    assert Mask([secret]).value({"a": [secret, 1]}) == {"a": ["***", 1]}


def test_a_secret_in_other_letters_that_are_the_same_in_lower_case() -> None:
    assert Mask(["token-of-kim"]).text("To\u212aen-of-\u212aim") == "***"


def leaks(text: str, secret: str) -> bool:
    """Whether a good part of ``secret`` can be read, in one of the plainest ways."""
    return any(secret[at : at + 8] in text for at in range(len(secret) - 7))


@pytest.mark.parametrize("form", (FORMS | PARTED).values(), ids=(FORMS | PARTED).keys())
def test_a_secret_is_hidden_however_it_is_written(form: Callable[[str], str]) -> None:
    written = form(SECRET)
    hidden = Mask([SECRET]).text(f"before {written} after")
    assert "***" in hidden
    assert hidden.startswith("before ") and hidden.endswith(" after")
    assert len(hidden) < 2 * len("before *** after") + len(written) - len(SECRET)
    assert not leaks(hidden, SECRET)
    assert Mask([SECRET]).value({"a": [{written: written}], "b": 1}) != {"a": [{written: written}], "b": 1}


@settings(deadline=None)
@given(TOKENS, st.sampled_from(sorted(FORMS)))
def test_any_secret_is_hidden(secret: str, form: str) -> None:
    hidden = Mask([secret]).text(FORMS[form](secret))
    assert "***" in hidden
    assert not leaks(hidden, secret) or secret in "".join(chr(c) for c in range(0x21, 0x7F))


@settings(deadline=None)
@given(st.text(), TOKENS)
def test_what_holds_no_secret_stays_as_it_is(text: str, secret: str) -> None:
    if not any(part in text for part in (secret[:4], secret[-4:])):
        assert Mask([secret]).text(text) == text
        assert Mask([secret]).value({"a": [text, 1, None]}) == {"a": [text, 1, None]}


@pytest.mark.parametrize("parts", [[SECRET[:9], SECRET[9:]], list(SECRET)])
def test_a_secret_in_pieces_is_hidden_as_a_whole(parts: list[str]) -> None:
    assert Mask([SECRET]).value({"a": [parts, "b"]}) == {"a": [["***"], "b"]}


def test_of_a_list_of_texts_only_those_with_a_secret_change() -> None:
    assert Mask([SECRET]).value(["a", f"b {SECRET}", "c"]) == ["a", "b ***", "c"]


def test_what_is_packed_without_a_secret_stays_as_it_is() -> None:
    for text in (
        packed(packed("nothing to hide here, for sure")),
        packed(gzip.compress(b"x" * 99)),
        "ab" * 40,
        "A" * 99,
    ):
        assert Mask([SECRET]).text(text) == text


def test_a_small_text_that_unpacks_to_much_is_unpacked_in_part_only() -> None:
    bomb = packed(gzip.compress(bytes(64 * 1024 * 1024)))
    assert Mask([SECRET]).text(bomb) == bomb


def test_what_is_short_is_no_secret() -> None:
    assert not Mask(["", "x", "1234567"])
    assert Mask(["1234567"]).text("1234567") == "1234567"
    assert Mask(["12345678"]).text("a 12345678 b") == "a *** b"


def test_a_value_without_secrets_is_not_copied() -> None:
    value = {"a": ["b"]}
    assert Mask([SECRET]).value(value) is value


def test_lists_of_bytes_are_found_in_values() -> None:
    data = {"type": "Buffer", "data": list(b"x" + SECRET.encode())}
    assert Mask([SECRET]).value(data) == {"type": "Buffer", "data": ["***"]}


@pytest.mark.parametrize("key", ["none", "not-needed", "lm-studio", "ollama", "no key required"])
def test_placeholders_hide_nothing(key: str) -> None:
    assert is_placeholder(key)


def test_the_environments_secrets_are_known_by_their_names() -> None:
    environment = {
        "OPENAI_API_KEY": "sk-0123456789",
        "AWS_SECRET_ACCESS_KEY": "abcdefgh/12345",
        "AWS_SESSION_TOKEN": "session-12345",
        "DB_PASSWORD": " hunter2-12345 \n",
        "HTTPS_PROXY": "http://user:pass-12345@proxy.example:3128",
        "http_proxy": "http://proxy.example:3128",
        "SSL_KEY": "/etc/ssl/key.pem",
        "LOCAL_KEY": "not-needed",
        "PATH": "/usr/bin",
    }
    assert sorted(environment_secrets(environment)) == [
        "abcdefgh/12345",
        "hunter2-12345",
        "pass-12345",
        "session-12345",
        "sk-0123456789",
    ]


# -- of tools --------------------------------------------------------------------------------------------------------

ECHOES = {
    "utf-16": reply(f"{SECRET}".encode("utf-16-le"), content_type="text/plain; charset=utf-16le"),
    "utf-16, not said": reply(SECRET.encode("utf-16-le"), content_type="text/plain"),
    "said to be utf-16": reply(f"x{SECRET}".encode(), content_type="text/plain; charset=utf-16le"),
    "ebcdic": reply(SECRET.encode("cp037"), content_type="text/plain; charset=cp037"),
    "json with a mark": reply(b"\xff\xfe" + json.dumps([SECRET]).encode("utf-16-le")),
    "a key of an object": reply({SECRET: 1}),
    "a header": reply({}, x_echo=base64.b64encode(SECRET.encode()).decode()),
    "a header's name": raw(
        b"HTTP/1.1 200 OK\r\nX-" + SECRET.encode().hex().encode() + b": 1\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "a binary": reply(b"\x89\xff" + SECRET.encode(), content_type="application/octet-stream"),
    "base64 in an error": reply({"sent": base64.b64encode(f"Bearer {SECRET}".encode()).decode()}, status=401),
    "a redirect": reply(status=307, location=f"/login?token={quote(SECRET, safe='')}"),
    "an answer that cannot be used": reply(SECRET.encode("utf-16-le"), content_type="text/plain; charset=utf-16le"),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_what_a_tool_echoes_is_hidden_once_it_is_decoded(shop: ToolBench, name: str) -> None:
    output = "response.body.there.is.none" if name == "an answer that cannot be used" else "[response]"
    found = await shop.call({}, ECHOES[name], auth=AUTH, secret=lambda _: SECRET, output=output)
    whole = json.dumps([found.output, found.text, found.kept], ensure_ascii=False)
    assert Mask([SECRET]).text(whole) == whole
    assert SECRET.encode("utf-16-le").decode("utf-16-be") not in whole


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "cp037"])
async def test_what_a_failing_tool_echoes_is_hidden(shop: ToolBench, encoding: str) -> None:
    answer = reply(f"no: {SECRET}".encode(encoding), status=500, content_type=f"text/plain; charset={encoding}")
    shop.server.then(answer)
    failure: Any = await shop_fails(shop, answer)
    assert "no: ***" in failure.message


async def shop_fails(shop: ToolBench, answer: Any) -> Any:
    return await shop.fails(answer, auth=AUTH, secret=lambda _: SECRET)
