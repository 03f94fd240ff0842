"""Decodes the bytes of an answer to text, in the encoding that is declared or recognized."""

from __future__ import annotations

import codecs
import re

from agentrun.api.texts import quoted

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Encodings of text. Python also has codecs that are not (idna, unicode_escape), and some whose decoding a sender can
# make slow.
_KNOWN = re.compile(
    r"utf-8|utf-(16|32)(-[bl]e)?|cp(?!65001)\d+|iso8859-\d+|koi8-[rut]|mac-\w+|ptcp154|tis-620|"
    r"shift_jis\w*|euc_\w+|iso2022_\w+|johab|gb\w+|big5\w*|hz"
)

# The encodings that a name stands for in practice (https://encoding.spec.whatwg.org/#names-and-labels).
_MEANT = {
    "ascii": ("utf-8", "cp1252"),
    "iso8859-1": ("cp1252",),
    "iso8859-9": ("cp1254",),
    "iso8859-11": ("cp874",),
    "tis-620": ("cp874",),
    "shift_jis": ("cp932",),
    "euc_kr": ("cp949",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "big5": ("big5hkscs",),
}

_ALIASES = {"sjis": "shift_jis", "windows-31j": "cp932", "unicode-1-1-utf-8": "utf-8"}

_PARAMETER = re.compile(r"(?:^|;)\s*charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_HTML = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


def declared(parameters: str) -> str | None:
    """The charset among the parameters of a Content-Type; None if it names none."""
    found = _PARAMETER.search(parameters)
    return found[1] if found else None


def decoded(content: bytes, charset: str | None, kind: str = "") -> tuple[str, str]:
    """``content`` as text, and what is wrong with it (empty if nothing is).

    The encoding is that of a byte order mark; else ``charset``; else the one that an XML or HTML text declares itself
    (``kind`` says which it is); else UTF-16 or UTF-32 if the first bytes show it; else UTF-8. Invalid bytes are
    replaced, and the second value says so.
    """
    for mark, name in _BOMS:
        if content.startswith(mark):
            return _read(content[len(mark) :], name)
    if charset is None and (found := _own(content, kind)) is not None:
        charset = found.decode("ascii")
    if charset is None:
        return _read(content, _wide(content) or "utf-8")
    known = codec(charset)
    if known is None:
        text, problem = _read(content, "utf-8")
        said = f"its charset {quoted(charset)} is not supported, so it was read as UTF-8"
        return text, f"{said}; {problem}" if problem else said
    if known in ("utf-16", "utf-32"):
        known = _wide(content) or f"{known}-{'le' if content[:1] != bytes(1) else 'be'}"
    return _read(content, known)


def codec(charset: str) -> str | None:
    """Python's name for ``charset``; None if it is unknown or not an encoding of text."""
    plain = re.sub("^x-|-[ie]$", "", charset.lower())
    for form in (charset, _ALIASES.get(plain, plain), re.sub("^(?:windows|ibm|dos)-?", "cp", plain)):
        try:
            name = codecs.lookup(form).name
        except LookupError:
            continue
        if name == "ascii" or _KNOWN.fullmatch(name):
            return name
    return None


def _own(content: bytes, kind: str) -> bytes | None:
    if "xml" in kind:
        found = _XML.match(content[:1024])
    elif "html" in kind:
        found = _HTML.search(content[:2048]) or _XML.match(content[:1024])
    else:
        return None
    # A text in which this pattern was found is not UTF-16 or UTF-32, whatever it declares.
    return None if found is None or found[1].lower().startswith((b"utf-16", b"utf-32")) else found[1]


def _wide(content: bytes) -> str | None:
    """UTF-16 or UTF-32, recognized by the zeros among the first four bytes: such texts begin with ASCII."""
    if 0 not in content[:4]:
        return None
    zeros = tuple(byte == 0 for byte in content[:4])
    return {
        (True, False, True, False): "utf-16-be",
        (False, True, False, True): "utf-16-le",
        (True, True, True, False): "utf-32-be",
        (False, True, True, True): "utf-32-le",
        (True, False): "utf-16-be",
        (False, True): "utf-16-le",
    }.get(zeros)


def _read(content: bytes, name: str) -> tuple[str, str]:
    for form in (*_MEANT.get(name, ()), name):
        try:
            return content.decode(form), ""
        except UnicodeDecodeError:
            pass
    return content.decode(name, "replace"), f"some of it is not {name}, and is shown as \ufffd"


def is_text(content: bytes) -> bool:
    """Whether ``content``, whose type is not known, is text: valid UTF-8 without control characters."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    return re.search("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) is None
