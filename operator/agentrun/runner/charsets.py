"""From the bytes of an answer to text: which encoding they are in, by what is known about it."""

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

# Encodings of text. Python knows others that are none (idna, unicode_escape), or that let a sender choose how long
# decoding takes.
_KNOWN = re.compile(
    r"utf-8|utf-(16|32)(-[bl]e)?|cp(?!65001)\d+|iso8859-\d+|koi8-[rut]|mac-\w+|ptcp154|tis-620|"
    r"shift_jis\w*|euc_\w+|iso2022_\w+|johab|gb\w+|big5\w*|hz"
)

# What a name stands for in practice (https://encoding.spec.whatwg.org/#names-and-labels): more than it says.
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
    """The charset among the parameters of a Content-Type; None where it names none."""
    found = _PARAMETER.search(parameters)
    return found[1] if found else None


def decoded(content: bytes, charset: str | None, kind: str = "") -> tuple[str, str]:
    """``content`` as text, and what is wrong with it, empty where nothing is.

    A byte order mark comes first, then ``charset``, then what the text says of itself (XML and HTML, by ``kind``), then
    UTF-8. What does not fit its encoding is replaced, which is said.
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
        said = f"its charset {quoted(charset)} is not known here, so it was read as UTF-8"
        return text, f"{said}; {problem}" if problem else said
    if known in ("utf-16", "utf-32"):
        known = _wide(content) or f"{known}-{'le' if content[:1] != bytes(1) else 'be'}"
    return _read(content, known)


def codec(charset: str) -> str | None:
    """Python's name for ``charset``; None where it is not known, or no encoding of text."""
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
    # Who reads this is no UTF-16, or the words could not be found.
    return None if found is None or found[1].lower().startswith((b"utf-16", b"utf-32")) else found[1]


def _wide(content: bytes) -> str | None:
    """UTF-16 or UTF-32 by the zeros among the first four bytes: texts that machines read begin with ASCII."""
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
    """Whether ``content``, of a type that says nothing, can only be meant as text: UTF-8 without control characters."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    return re.search("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) is None
