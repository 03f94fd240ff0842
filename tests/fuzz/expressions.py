"""Expressions, by forms that are put into each other: most of them compile, and some name what is not there."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = """inputs.l inputs.s inputs.o inputs.n inputs.d inputs inputs.nope steps.a.output steps.b.output item index x y
    v run.name run.outcome steps.a.state""".split()
_LITERALS = """'' 'a' '%s' '%d-%.3f-%e' '%b%x%X%o' ',' 'é' r'\\d' '1h' '2026-01-01T00:00:00Z' 0 1 -1 1.5 1e300 2u
    9223372036854775807 true null [] {} b'a' has(inputs.l) has(inputs.nope.x)""".split()
_LEAVES = [*_NAMES, *_NAMES[:5] * 3, *_LITERALS, "'" + "x" * 100 + "'"]

_FORMS = [
    # lists
    *("[#]", "[#, #]", "#.map(x, #)", "#.map(y, #, #)", "#.filter(x, #)", "#.split(#)", "#.split('')", "# + #"),
    *("[#].map(x, [x, x]).map(y, [y, y, y])", "#.map(x, inputs.l.map(y, x))", "#.map(x, x)"),
    # texts
    *("string(#)", "#.replace(#, #)", "#.replace('', #)", "#.join(#)", "#.format([#])", "#.format([#, #])"),
    *("#.substring(#)", "#.substring(#, #)", "#.charAt(#)", "#.lowerAscii()", "#.upperAscii()", "#.trim()"),
    *("#.reverse()", "strings.quote(#)", "duration(#)", "timestamp(#)", "#.map(x, string(x)).join(#)"),
    # numbers and conditions
    *(f"(# {sign} #)" for sign in ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||")),
    *("!#", "-#", "size(#)", "#.size()", "#.all(x, #)", "#.exists(x, #)", "#.exists_one(x, #)", "#.getFullYear()"),
    *("int(#)", "uint(#)", "double(#)", "bool(#)", "dyn(#)", "type(#)", "math.abs(#)", "math.greatest(#, #)"),
    *("#.contains(#)", "#.startsWith(#)", "#.indexOf(#)", "#.lastIndexOf(#)"),
    *("#.matches('a')", "#.matches('(a|b)*c')", "#.matches('(a{1,20}){1,20}')", "#.matches('(x+x+)+y')"),
    *("#.matches('\\\\p{L}{1,30}')", "#.matches('(')", "#.matches('[^b]*b.{90}$')"),
    # choices and parts
    *("(# ? # : #)", "#[#]", "#[0]", "#[?#].orValue(#)", "#.k", "#.?k.orValue(#)", "{'a': #, 'b': #}", "{#: #}"),
    "optional.of(#).optMap(v, #).orValue(0)",
]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """An expression of up to four forms in each other."""
    return _filled(draw, draw(st.integers(0, 4)))


def _filled(draw: st.DrawFn, levels: int) -> str:
    if not levels:
        return draw(st.sampled_from(_LEAVES))
    first, *rest = draw(st.sampled_from(_FORMS)).split("#")
    # One part goes as deep as may be, the others are short: else almost all of them would be too long.
    deep = draw(st.integers(0, max(len(rest) - 1, 0)))
    return first + "".join(
        _filled(draw, levels - 1 if place == deep else 0) + after for place, after in enumerate(rest)
    )


@st.composite
def conditions(draw: st.DrawFn) -> str:
    """An expression, mostly one that is true or false."""
    one = draw(expressions())
    return f"{one} == {draw(expressions())}" if draw(st.booleans()) else one
