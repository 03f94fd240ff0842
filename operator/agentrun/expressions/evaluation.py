"""The border to the CEL runtime: its environments, JSON values into it, and its values back into JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from agentrun.api.texts import quoted
from agentrun.api.values import JSON
from agentrun.expressions.arithmetic import mixed_arithmetic
from agentrun.expressions.diagnostics import Keys
from agentrun.expressions.ordered import ordering

RESULT_MAX = 256 * 1024
"""Bytes of a result, written as JSON."""

DEPTH_MAX = 200
"""Levels of a value that expressions look into; the runtime's recursion would exhaust the stack at some thousands."""

WEIGHT_MAX = 192 * 1024 * 1024
"""Units of the values that an expression of a driver may look into, some 250,000 parts. They are converted in one
piece, in which nothing else of the process goes on: a third of a second.
"""

_KEPT = 8 * 1024 * 1024
"""Bytes that evaluations may leave in an activation before it is made anew."""

_LEAST = 1024
"""Bytes that an evaluation is taken to leave at least."""

TOO_LARGE = f"the value is larger than {RESULT_MAX // 1024} KiB"

_SUSPICIOUS = re.compile(r"\\u0000|\\ud|\d{19}")
_FOUL = re.compile("[\x00\ud800-\udfff]")
_SOUND_BELOW = 10**18
"""Integers closer to nothing than this need not be looked at any further."""


@lru_cache(maxsize=64)
def environment(variables: tuple[str, ...]) -> Any:
    """A compiler for expressions over ``variables``."""
    # Imported here because that takes 64 ms, which a process that evaluates nothing should not pay.
    from cel_expr_python import cel  # noqa: PLC0415
    from cel_expr_python.ext import ext_math, ext_optional, ext_strings  # noqa: PLC0415

    any_type = cel.Type.DYN
    an_object = cel.Type.Map(cel.Type.STRING, any_type)
    types = {
        **dict.fromkeys(("inputs", "run", "args", "response"), an_object),
        "steps": cel.Type.Map(cel.Type.STRING, an_object),
        "index": cel.Type.INT,
    }
    return cel.NewEnv(
        variables={name: types.get(name, any_type) for name in variables},
        extensions=[
            ext_strings.ExtStrings(),
            ext_math.ExtMath(),
            ext_optional.ExtOptional(),
            mixed_arithmetic(),
            ordering(),
        ],
    )


class Values:
    """The values of variables, converted for the runtime once, when first needed.

    They must not be changed afterwards. Safe to share between threads: two may convert at once, to the same end.
    """

    __slots__ = (
        "_activation",
        "_base",
        "_input_keys",
        "_made",
        "_pay",
        "_screened",
        "_weight",
        "sizes",
        "spent",
        "variables",
    )

    def __init__(
        self,
        variables: Mapping[str, JSON],
        *,
        pay: Callable[[int], None] | None = None,
        weight: int = 0,
        input_keys: frozenset[str] | None = None,
    ) -> None:
        """``pay`` is told before each piece of work how many units it takes, and may raise to refuse it.

        ``weight``: units of converting the variables. ``input_keys``: of the inputs, what expressions look at; the
        others are not converted.
        """
        self.variables = dict(variables)
        self.sizes: dict[int, Any] = {}
        """For the estimate of costs: what was measured of these variables."""
        self.spent = 0
        """Units that evaluations over these variables have taken."""
        self._pay, self._weight, self._input_keys = pay, weight, input_keys
        self._screened: _Screened | None = None
        self._activation: Any = None
        self._made = 0
        self._base: Values | None = None

    def extended(self, more: Mapping[str, JSON], weight: int) -> Values:
        """These variables and ``more``, which takes ``weight`` units to convert; none of ``more`` has a name of these.

        What was found out about these variables is not found out anew.
        """
        extended = Values(
            self.variables | dict(more), pay=self._pay, weight=self._weight + weight, input_keys=self._input_keys
        )
        extended._base = self
        return extended

    def pay(self, units: int) -> None:
        """Count ``units`` before they are spent. Raises what refuses them."""
        if self._pay is not None:
            self._pay(units)
        self.spent += units

    def screened(self) -> _Screened:
        """The variables as the runtime may see them."""
        if self._screened is None:
            if self._weight > WEIGHT_MAX:
                raise Unfit("what it looks into has too many parts (some 250,000 are possible): let the step give less")
            self.pay(self._weight)
        return self.screen()

    def screen(self) -> _Screened:
        """As ``screened``, for a caller that has paid for more variables than these."""
        if self._screened is not None:
            return self._screened
        variables, known = self.variables, _Screened({}, {})
        if self._base is not None:
            known = self._base.screen()
            variables = {name: value for name, value in variables.items() if name not in known.variables}
        elif self._input_keys is not None and isinstance(inputs := variables.get("inputs"), dict):
            wanted = {key: value for key, value in inputs.items() if key in self._input_keys}
            variables = {**variables, "inputs": wanted}
        unusable: dict[Keys, str] = {}
        usable = {n: v if _is_sound(v) else _screen(v, (n,), unusable) for n, v in variables.items()}
        self._screened = _Screened({**known.variables, **usable}, {**known.unusable, **unusable})
        return self._screened

    def activation(self, cost: int) -> Any:
        """The runtime's form of the variables, for one evaluation that makes at most about ``cost`` bytes.

        Any expression can be evaluated over it, whatever its scope was.
        """
        # What evaluations make stays in the activation's arena for as long as the activation lives, so it is not
        # kept for ever. Threads that add at once may lose a count, which only puts that off.
        activation = self._activation
        if activation is None:
            if self._made:
                self.pay(self._weight)  # they are converted anew
            activation = environment(()).Activation(self.screened().variables)
            self._made = 0
        self._made += cost + _LEAST
        self._activation = activation if self._made < _KEPT else None
        return activation


class _Screened(NamedTuple):
    variables: Mapping[str, JSON]
    """Without what the runtime would cut short (at a NUL), refuse as a whole or crash on."""
    unusable: Mapping[Keys, str]
    """Where something was left out, and why: an expression that could touch it is refused."""


class Unfit(Exception):
    """A result that is no JSON, or too large."""


class Reader:
    """Reads a runtime's value step by step, so that one which is large by sharing its parts is never written out.

    Every part counts at least three bytes, which bounds their number too: to 87,000.
    """

    def __init__(self) -> None:
        self.size = 0
        self.parts = 0
        """Lists, objects and their elements that were read."""

    def read(self, value: Any) -> JSON:
        """The JSON value of ``value``; times and durations become text.

        Raises:
            RuntimeError: it is an error, whose message this is.
            Unfit: it has no form in JSON, or is too large.
        """
        try:
            found = value.value()
        except TypeError:
            raise Unfit("it is an optional value: say with .orValue(…) what it is when there is none") from None
        if isinstance(found, str):
            # An error's message is a str too; comparing the type costs more than all the rest, hence only here.
            if value.type().name() == "ERROR":
                raise RuntimeError(found)  # as the runtime itself does for some
            self._add(len(found.encode()) + 2)
        elif found is None or isinstance(found, (bool, int)):
            self._add(5)
        elif isinstance(found, float):
            if not math.isfinite(found):
                raise Unfit(f"the number {found} has no form in JSON")
            self._add(8)
        elif isinstance(found, list):
            self._add(2 + len(found))
            self.parts += 1 + len(found)
            return [self.read(item) for item in found]
        elif isinstance(found, dict):
            self._add(2 + 2 * len(found))
            self.parts += 1 + 2 * len(found)
            # The runtime's own order is another one each time, and the value may become a text or be gone through.
            return {key: self.read(found[key]) for key in sorted(map(self._key, found))}
        elif isinstance(found, datetime):
            self._add(30)
            return found.isoformat().replace("+00:00", "Z")
        elif isinstance(found, timedelta):
            self._add(20)
            return _seconds(found)
        else:
            raise Unfit(f"the result is of type {value.type().name().lower()}, which has no form in JSON")
        return found

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise Unfit(f"the key {quoted(key)} of an object is not a text; wrap it in string()")
        self._add(len(key.encode()) + 3)
        return key

    def _add(self, size: int) -> None:
        self.size += size
        if self.size > RESULT_MAX:
            raise Unfit(TOO_LARGE)


def _seconds(duration: timedelta) -> str:
    sign = "-" if duration < timedelta() else ""
    whole, micro = divmod(abs(duration) // timedelta(microseconds=1), 1_000_000)
    return f"{sign}{whole}" + (f".{micro:06}".rstrip("0") if micro else "") + "s"


def _is_sound(value: JSON) -> bool:
    """Whether the runtime can take ``value`` as it is. Errs towards no."""
    if isinstance(value, int):  # true and false too
        return abs(value) < _SOUND_BELOW
    try:
        text = json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        return False
    if _SUSPICIOUS.search(text):
        return False
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [c for v in level if isinstance(v, (dict, list)) for c in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return True
    return False


def _screen(value: JSON, path: Keys, unusable: dict[Keys, str]) -> JSON:
    """``value``, with null for all that the runtime must not see; ``unusable`` gets the places and the reasons."""
    if isinstance(value, (list, dict)) and len(path) > DEPTH_MAX:
        unusable[path] = f"it is nested deeper than {DEPTH_MAX} levels"
    elif isinstance(value, list):
        return [_screen(item, (*path, at), unusable) for at, item in enumerate(value)]
    elif isinstance(value, dict):
        if all(isinstance(key, str) and not _FOUL.search(key) for key in value):
            return {key: _screen(item, (*path, key), unusable) for key, item in value.items()}
        unusable[path] = "a key holds a NUL character or half of a surrogate pair"
    elif isinstance(value, str):
        if not _FOUL.search(value):
            return value
        unusable[path] = "its text holds a NUL character or half of a surrogate pair"
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 64:
            return value
        unusable[path] = "the integer does not fit into 64 bits"
    elif value is None or isinstance(value, float):
        return value
    else:
        unusable[path] = "it is not JSON"
    return None
