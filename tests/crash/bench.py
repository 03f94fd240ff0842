"""Striking a workflow at every point of a role, one run for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.harness import Outcome, OutsideFactory, World
from tests.crash.points import Point, Strike
from tests.crash.zygote import Zygote

AT_ONCE = 3
"""Runs side by side: they wait for each other's processes more than they work."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing struck: its calls are the points, its outcome is what every other run has to reach."""

    outcome: Outcome
    calls: Sequence[dict[str, Any]]

    def points(self, role: str, sides: Sequence[str], wanted: Callable[[dict[str, Any]], bool]) -> list[Point]:
        """Every side of every call of ``role`` (or of roles that start so) that is wanted."""
        return [
            Point.of(line, side)
            for line in self.calls
            if line["role"].startswith(role) and wanted(line)
            for side in sides
            if side != "during" or line["kind"] in ("model", "tool")
        ]


@dataclass
class Bench:
    """Where runs of one workflow are struck."""

    folder: Path
    nursery: Zygote
    outside: OutsideFactory
    stores: Callable[[Path], str | None] = lambda _: None
    settings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def world(self, name: str) -> World:
        """A fresh run."""
        folder = self.folder / name
        store, more = self.stores(folder), self.environment
        return World(folder, self.nursery, self.outside, store=store, settings=self.settings, environment=more)

    def record(self) -> Undisturbed:
        """A run that nothing strikes."""
        with self.world("undisturbed") as world:
            world.carry()
            outcome = world.outcome()
            world.check(outcome)
            return Undisturbed(outcome, world.trace.calls())

    def strike_all(self, undisturbed: Undisturbed, strikes: Sequence[Strike], more: Check | None = None) -> int:
        """One run for each strike; how many. Raises AssertionError with every point at which something broke."""
        assert strikes, "nothing to strike"

        def one(number: int) -> str | None:
            strike = strikes[number]
            try:
                with self.world(f"{number}") as world:
                    self._strike(world, undisturbed, strike)
                    if more is not None:
                        more(world)
            except Exception as error:  # noqa: BLE001 (reported, with its point, below)
                return (
                    f"{strike.action} at {strike.point} [{self.folder / str(number)}]: {type(error).__name__}: {error}"
                )
            return None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            broken = [found for found in pool.map(one, range(len(strikes))) if found]
        assert not broken, f"{len(broken)} of {len(strikes)} points broke:\n" + "\n".join(broken)
        return len(strikes)

    def _strike(self, world: World, undisturbed: Undisturbed, strike: Strike) -> None:
        world.carry(strike)
        assert world.trace.fired(), "the point was never reached"
        world.check(undisturbed.outcome, asked_again=int(asks_again(strike)))


Check = Callable[[World], None]


def asks_again(strike: Strike) -> bool:
    """Whether the strike falls between a model's request and the commit of its answer: only then is it asked again."""
    point = strike.point
    if strike.action != "kill" or not point.role.startswith("runner"):
        return False
    if point.kind == "model":
        return point.side != "before"
    return point.kind == "store" and point.what.endswith(" turn") and point.side == "before"
