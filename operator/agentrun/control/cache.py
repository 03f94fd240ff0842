"""What the operator knows of the cluster: the newest view of every object that it watches.

It is fed by watch events, by the answers to the operator's own writes, and by a LIST from time to time, because a
watch that was cut may never tell of a deletion. All of it can be lost: a new leader lists everything first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from agentrun.control.views import APPROVALS, COMMANDS, KEPT, PODS, RUNS, Kind, RunRef, RunView, View

V = TypeVar("V", bound=View)


class Shelf(Generic[V]):
    """The objects of one kind, by the run that they belong to."""

    def __init__(self) -> None:
        self._by_run: dict[RunRef, dict[str, V]] = {}
        self._expecting = 0
        self._gone: set[str] = set()
        """The uids of what was deleted while an answer was expected. Cleared when none is."""
        self.moved: Callable[[V, bool], None] = lambda view, gone: None
        """Told of each view that is taken in, and of each that is dropped."""

    def put(self, view: V) -> bool:
        """Take a view in unless a newer one is there; whether it was taken."""
        run, name = view.run, view.name
        there = self._by_run.setdefault(run, {})
        known = there.get(name)
        if view.uid in self._gone or (known is not None and known.version >= view.version):
            if not there:
                del self._by_run[run]
            return False
        if known is not None and known.uid != view.uid:
            self.moved(known, True)
        there[name] = view
        self.moved(view, False)
        return True

    def amend(self, view: V) -> None:
        """Note what a write of ours has made of an object whose newer view is still to come. A newer one stays."""
        run, name = view.run, view.name
        known = self._by_run.get(run, {}).get(name)
        if known is not None and (known.uid, known.version) == (view.uid, view.version):
            self._by_run[run][name] = view

    def drop(self, run: RunRef, name: str, uid: str) -> bool:
        """Forget an object that was deleted, unless another one of that name is there by now."""
        if self._expecting:
            self._gone.add(uid)
        there = self._by_run.get(run, {})
        if name not in there or there[name].uid != uid:
            return False
        self.moved(there.pop(name), True)
        if not there:
            del self._by_run[run]
        return True

    def of(self, run: RunRef) -> Mapping[str, V]:
        """The objects of a run, by name. A view of the moment: it changes with the next event."""
        return self._by_run.get(run, {})

    def runs(self) -> Iterator[RunRef]:
        """Every run that has an object here."""
        return iter(self._by_run)

    def __iter__(self) -> Iterator[V]:
        return (view for there in self._by_run.values() for view in there.values())

    def __len__(self) -> int:
        return sum(len(there) for there in self._by_run.values())

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Around a request whose answer is put here: what other controllers call an expectation.

        The answer may come after the watch has told that the object is deleted again (a pod that ended at once and was
        swept, one on the page of a list): without this, it would stand here and its step would not end.
        """
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            if not self._expecting:
                self._gone.clear()

    def keep(self, listed: Set[str], version: int, unknown: Callable[[str], bool] = lambda _: False) -> set[RunRef]:
        """Forget what a complete LIST made at ``version`` did not have, by uid; the runs that this is about.

        What is newer than the list was made after it; what is older and not in it was deleted. Nothing is forgotten of
        the namespaces of which the list is ``unknown``.
        """
        changed = set()
        for view in [v for v in self if v.uid not in listed and v.version <= version]:
            run = view.run
            if not unknown(run.namespace) and self.drop(run, view.name, view.uid):
                changed.add(run)
        return changed


class Cache:
    """Everything that is watched and kept: a shelf for each kind."""

    def __init__(self) -> None:
        self._shelves: dict[Kind[Any], Shelf[Any]] = {kind: Shelf() for kind in KEPT}
        self.runs, self.pods = self[RUNS], self[PODS]
        self.approvals, self.commands = self[APPROVALS], self[COMMANDS]

    def __getitem__(self, kind: Kind[V]) -> Shelf[V]:
        """The objects of a kind that is kept."""
        return self._shelves[kind]

    def run(self, ref: RunRef) -> RunView | None:
        """The run of that name."""
        return self.runs.of(ref).get(ref.name)
