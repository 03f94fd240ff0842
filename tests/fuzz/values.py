"""Values and texts for all targets."""

from __future__ import annotations

from hypothesis import strategies as st

ODD = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ufffe",
        "\u202e",
        "é",
        "😀",
    ),
    *("${", "$${", "}", "%s", "{{ x }}", "a" * 300, "no", "on", "~", "null", "0x1F", "1e3", ".5", "012", "1_000", "-"),
    *("- a", "a: b", "#", "&a", "*a", "<<", "!!str", "---", "...", "'", '"', "\\"),
)
"""Texts that some reader takes for something else."""

texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

numbers = (
    st.integers(-(10**30), 10**30)
    | st.sampled_from([0, -1, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64])
    | st.floats(allow_nan=False, allow_infinity=False)
)

JSON = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
