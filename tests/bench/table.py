"""What a measurement yields, and the table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

UNITS = {
    "s": (1.0, 2),
    "ms": (1e3, 2),
    "µs": (1e6, 1),
    "%": (100.0, 1),
    "MB": (1e-6, 1),
    "KB": (1e-3, 1),
    "×": (1.0, 2),
    "/s": (1.0, 0),
    "": (1.0, 2),
}
"""How seconds, shares, bytes, ratios, rates and counts are written: factor and digits."""


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one quantity, in seconds, bytes or parts of one; ``unit`` says how they are written."""

    values: Sequence[float]
    unit: str

    @property
    def median(self) -> float:
        """The sample in the middle."""
        return median(self.values)

    def __str__(self) -> str:
        factor, digits = UNITS[self.unit]
        low, middle, high = (f"{v * factor:.{digits}f}" for v in (min(self.values), self.median, max(self.values)))
        if len(self.values) == 1:
            return f"{middle} {self.unit}"
        return f"{middle} {self.unit} ({low}-{high}, n={len(self.values)})"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``bar`` is what the ratio, or without one the measured median, must not exceed."""

    what: str
    measured: Series
    reference: Series | None = None
    against: str = ""
    """What the reference is."""
    ratio: Series | None = None
    bar: float | None = None
    least: bool = False
    """The bar is what it must not fall below."""

    @property
    def met(self) -> bool | None:
        """Whether the bar was met; None where there is none."""
        if self.bar is None:
            return None
        return self._judged.median >= self.bar if self.least else self._judged.median <= self.bar

    @property
    def _judged(self) -> Series:
        return self.ratio or self.measured

    @property
    def shown_bar(self) -> str:
        """The bar in the unit of what it bounds."""
        return "" if self.bar is None else f"{'≥' if self.least else '≤'} {Series([self.bar], self._judged.unit)}"


def ratios(measured: Sequence[float], reference: Sequence[float]) -> Series:
    """The ratio of each pair of samples that were taken in turn."""
    return Series([a / b for a, b in zip(measured, reference, strict=True)], "×")


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="agentrun bench", show_lines=False, pad_edge=False)
    for heading in ("what", "measured", "reference", "ratio", "bar", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        reference = f"{row.reference} {row.against}".strip() if row.reference else row.against
        verdict = {True: "[green]met", False: "[red]missed", None: ""}[row.met]
        table.add_row(row.what, str(row.measured), reference, str(row.ratio or ""), row.shown_bar, verdict)
    console.print(table)
