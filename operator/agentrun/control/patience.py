"""Writes to large AgentRuns, which take the API server long: for each write of a status it reads the whole object.

These writes are made one at a time, and the namespaces take turns, so that they fill neither the connections nor the
API server. If a write has no answer within the timeout of the call, an Event says so, and the write is tried again
after a pause that grows. The run itself goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agentrun.control.cluster import Cluster
from agentrun.control.reconcile_log import run_log
from agentrun.control.turns import Turns
from agentrun.control.views import RunRef, RunView
from agentrun.kube.errors import ClusterError, TooSlow

T = TypeVar("T")

PAUSE_FIRST, PAUSE_MAX = 5.0, 300.0
"""Seconds until the next write of a large object after the API server was too slow: the first pause and the longest. It
doubles.
"""

OFTEN = 5
"""Every so many times in a row that the API server is too slow for a small object, an Event says so too. The reason is
not the object's size then, and another write may well be answered.
"""


class NotNow(ClusterError):
    """The API server was too slow for this object. ``again``: seconds until the next try."""

    def __init__(self, message: str, again: float) -> None:
        super().__init__(message)
        self.again = again


@dataclass(slots=True)
class _Late:
    uid: str
    times: int = 0
    """How often in a row the API server was too slow."""
    until: float = 0.0


@dataclass(slots=True)
class Patience:
    """See the module. Its memory is lost with the leader: the next one tries at once."""

    cluster: Cluster
    clock: Callable[[], float]
    """Seconds since the epoch."""
    _turns: Turns = field(default_factory=Turns)
    _late: dict[RunRef, _Late] = field(default_factory=dict)

    async def write(self, run: RunView, what: str, do: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``do``, which ``what`` describes to a person. After a cancellation, the request may have
        been carried out.

        Raises:
            NotNow: the object is large, and the API server was too slow, now or so recently that this does not try.
            ClusterError: whatever ``do`` raises; TooSlow for an object that is not large.
        """
        late = self._late.get(run.ref)
        if late is not None and late.uid == run.uid and self.clock() < late.until:
            raise NotNow(f"the API server was too slow {what}", late.until - self.clock())
        try:
            done = await self._in_turn(run, do)
        except TooSlow as error:
            again = await self._too_slow(run, what, error)
            if again is None:
                raise
            raise NotNow(str(error), again) from error
        self._late.pop(run.ref, None)
        return done

    async def _in_turn(self, run: RunView, do: Callable[[], Awaitable[T]]) -> T:
        if not run.large:
            return await do()
        await self._turns.take(run.ref.namespace)
        try:
            return await do()
        finally:
            self._turns.give()

    async def _too_slow(self, run: RunView, what: str, error: TooSlow) -> float | None:
        """Note that a write was too slow, and record an Event. Return the seconds until the next try; None for a small
        object, which is tried again like after any error.
        """
        late = self._late.get(run.ref)
        if late is None or late.uid != run.uid:
            late = self._late[run.ref] = _Late(run.uid)
        late.times += 1
        if run.large:
            pause = min(PAUSE_FIRST * 2.0 ** min(late.times - 1, 20), PAUSE_MAX)
            late.until = self.clock() + pause
            await self._tell(run, what, error, late.times, f" in {pause:.0f} s", _LARGE)
            return pause
        if late.times % OFTEN == 0:
            await self._tell(run, what, error, late.times, "", _SMALL)
        return None

    async def _tell(self, run: RunView, what: str, error: TooSlow, times: int, when: str, advice: str) -> None:
        said = f"{error}, {what}: {times} in a row. It is retried{when}. {advice}"
        run_log(run).warning("%s", said)
        await self.cluster.record_event(run, "Warning", "ApiServerSlow", said)

    def forget(self, ref: RunRef) -> None:
        """Forget a run that is gone."""
        self._late.pop(ref, None)

    def rest(self) -> None:
        """Forget every run."""
        self._late.clear()


_KEPT = "The journal has everything that the run did"
_LARGE = f"{_KEPT}. The object is large, so each write of it takes long: keep data out of the spec of the next run"
_SMALL = f"{_KEPT}. The object is small: check the load of the API server, and the webhooks for agentruns"
