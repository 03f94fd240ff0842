"""The interface to the CEL runtime: its environments, and the conversion of JSON to its values and back."""

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
"""The most bytes of a result, written as JSON."""

DEPTH_MAX = 200
"""The most levels of a value that expressions can read. At some thousands, the runtime's recursion exhausts the stack.
"""

WEIGHT_MAX = 192 * 1024 * 1024
"""The most units of the values that an expression in a driver can read: some 250,000 parts. They are converted in one
piece, which blocks the process for a third of a second.
"""

_KEPT = 8 * 1024 * 1024
"""The most bytes that evaluations may leave in an activation before a new one is made."""

_LEAST = 1024
"""The bytes that are counted for an evaluation at least."""

TOO_LARGE = f"the value is larger than {RESULT_MAX // 1024} KiB"

_SUSPICIOUS = re.compile(r"\\u0000|\\ud|\d{19}")
_FOUL = re.compile("[\x00\ud800-\udfff]")
_SOUND_BELOW = 10**18
"""An integer with a smaller absolute value needs no further check."""


@lru_cache(maxsize=64)
def environment(variables: tuple[str, ...]) -> Any:
    """A compiler for expressions over ``variables``."""
    # Lazy: the import takes 64 ms, which a process that evaluates nothing should not pay.
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
    """The values of variables. They are converted for the runtime once, when first needed.

    The values must not be changed afterwards. Safe to share between threads: two threads may convert the same values at
    once, with the same result.
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
        """``pay`` is called before each piece of work with its units. It may raise to refuse the work.

        ``weight``: units to convert the variables. ``input_keys``: the inputs that expressions read; other inputs are
        not converted.
        """
        self.variables = dict(variables)
        self.sizes: dict[int, Any] = {}
        """The measured sizes of these variables, for the cost estimate."""
        self.spent = 0
        """Units that evaluations over these variables have taken."""
        self._pay, self._weight, self._input_keys = pay, weight, input_keys
        self._screened: _Screened | None = None
        self._activation: Any = None
        self._made = 0
        self._base: Values | None = None

    def extended(self, more: Mapping[str, JSON], weight: int) -> Values:
        """These variables and ``more``, which takes ``weight`` units to convert and has no names in common with these.

        The screening of these variables is reused.
        """
        extended = Values(
            self.variables | dict(more), pay=self._pay, weight=self._weight + weight, input_keys=self._input_keys
        )
        extended._base = self
        return extended

    def pay(self, units: int) -> None:
        """Count ``units`` before they are spent. Raises whatever the ``pay`` function raises to refuse them."""
        if self._pay is not None:
            self._pay(units)
        self.spent += units

    def screened(self) -> _Screened:
        """The variables without what the runtime cannot handle. Raises Unfit if they are larger than WEIGHT_MAX."""
        if self._screened is None:
            if self._weight > WEIGHT_MAX:
                raise Unfit(
                    "the value that it reads has too many parts (about 250,000 are possible): let the step give a "
                    "smaller output"
                )
            self.pay(self._weight)
        return self.screen()

    def screen(self) -> _Screened:
        """Like ``screened``, for a caller that has already paid for these variables as part of its own."""
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

        Expressions of any scope can be evaluated over it.
        """
        # Values that evaluations make stay in the activation's arena as long as the activation lives. It is therefore
        # replaced after _KEPT bytes. Threads that add at once may lose a count, which only delays the replacement.
        activation = self._activation
        if activation is None:
            if self._made:
                self.pay(self._weight)  # they are converted again
            activation = environment(()).Activation(self.screened().variables)
            self._made = 0
        self._made += cost + _LEAST
        self._activation = activation if self._made < _KEPT else None
        return activation


class _Screened(NamedTuple):
    variables: Mapping[str, JSON]
    """The variables without what the runtime would truncate (at a NUL), refuse as a whole or crash on."""
    unusable: Mapping[Keys, str]
    """The places that were left out, and why. An expression that could read one of them is refused."""


class Unfit(Exception):
    """A result that is not JSON or is too large, or variables that are too large."""


class Reader:
    """Reads a value of the runtime step by step, so that a value with many shared parts is never expanded completely.

    Every part counts at least three bytes, so there are at most 87,000 parts.
    """

    def __init__(self) -> None:
        self.size = 0
        self.parts = 0
        """The lists, objects and elements that were read."""

    def read(self, value: Any) -> JSON:
        """The JSON value of ``value``. Times and durations become text.

        Raises:
            RuntimeError: ``value`` is an error; the exception has its message.
            Unfit: ``value`` has no form in JSON, or is too large.
        """
        try:
            found = value.value()
        except TypeError:
            raise Unfit("it is an optional value: give a default with .orValue(…)") from None
        if isinstance(found, str):
            # The value of an error is a str too. The type is compared only here, because that is the slowest part.
            if value.type().name() == "ERROR":
                raise RuntimeError(found)  # as the runtime itself does for some
            self._add(len(found.encode()) + 2)
        elif found is None or isinstance(found, (bool, int)):
            self._add(5)
        elif isinstance(found, float):
            if not math.isfinite(found):
                raise Unfit(f"the number {found} cannot be written in JSON")
            self._add(8)
        elif isinstance(found, list):
            self._add(2 + len(found))
            self.parts += 1 + len(found)
            return [self.read(item) for item in found]
        elif isinstance(found, dict):
            self._add(2 + 2 * len(found))
            self.parts += 1 + 2 * len(found)
            # The runtime's order of keys differs each time, and the value may become a text or be iterated.
            return {key: self.read(found[key]) for key in sorted(map(self._key, found))}
        elif isinstance(found, datetime):
            self._add(30)
            return found.isoformat().replace("+00:00", "Z")
        elif isinstance(found, timedelta):
            self._add(20)
            return _seconds(found)
        else:
            raise Unfit(f"the result is of type {value.type().name().lower()}, which cannot be written in JSON")
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
    """Whether the runtime can handle ``value`` unchanged. In doubt, False."""
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
    """``value`` with null for everything that the runtime cannot handle. ``unusable`` gets the places and reasons."""
    if isinstance(value, (list, dict)) and len(path) > DEPTH_MAX:
        unusable[path] = f"it is nested deeper than {DEPTH_MAX} levels"
    elif isinstance(value, list):
        return [_screen(item, (*path, at), unusable) for at, item in enumerate(value)]
    elif isinstance(value, dict):
        if all(isinstance(key, str) and not _FOUL.search(key) for key in value):
            return {key: _screen(item, (*path, key), unusable) for key, item in value.items()}
        unusable[path] = "a key contains a NUL character or half of a surrogate pair"
    elif isinstance(value, str):
        if not _FOUL.search(value):
            return value
        unusable[path] = "its text contains a NUL character or half of a surrogate pair"
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 64:
            return value
        unusable[path] = "the integer does not fit into 64 bits"
    elif value is None or isinstance(value, float):
        return value
    else:
        unusable[path] = "it is not JSON"
    return None
