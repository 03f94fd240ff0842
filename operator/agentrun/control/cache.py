"""The operator's cache of the cluster: the newest view of every watched object.

Watch events, the answers to the operator's own writes, and a LIST from time to time feed it. The LIST is needed because
a watch that was interrupted may never report a deletion. All of it can be lost: a new leader lists everything first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from agentrun.control.views import APPROVALS, COMMANDS, KEPT, PODS, RUNS, CommandView, Kind, RunRef, RunView, View

V = TypeVar("V", bound=View)


class Indexer(Generic[V]):
    """The objects of one kind, by their runs."""

    def __init__(self) -> None:
        self._by_run: dict[RunRef, dict[str, V]] = {}
        self._expecting = 0
        self._gone: set[str] = set()
        """The uids of objects that were deleted while an answer was expected. Cleared when no answer is expected."""
        self.moved: Callable[[V, bool], None] = lambda view, gone: None
        """Called with each view that is taken in (False) or dropped (True)."""

    def put(self, view: V) -> bool:
        """Take a view, unless the cache has that version or a newer one, or the object is gone.

        Return whether the view was taken.
        """
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
        """Apply the effect of our own write to the view of the same version, until the newer view arrives."""
        run, name = view.run, view.name
        known = self._by_run.get(run, {}).get(name)
        if known is not None and (known.uid, known.version) == (view.uid, view.version):
            self._by_run[run][name] = view

    def drop(self, run: RunRef, name: str, uid: str) -> bool:
        """Remove a deleted object, unless another object has its name by now. Return whether it was removed."""
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
        """The objects of a run, by name. The mapping is live: it changes with the next event."""
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
        """Surround a request whose answer is put into this indexer. Other controllers call that an expectation.

        The answer may arrive after the watch has reported that the object is deleted again (a pod that ended at once
        and was swept, or one on a page of a list). Without this, the object would stay in the cache and its step would
        never end.
        """
        self._expecting += 1
        try:
            yield
        finally:
            self._expecting -= 1
            if not self._expecting:
                self._gone.clear()

    def keep(self, listed: Set[str], version: int, unknown: Callable[[str], bool] = lambda _: False) -> set[RunRef]:
        """Remove objects that are missing from a complete LIST at ``version``. Return the affected runs.

        ``listed``: the uids in the list. An object that is newer than the list was created after it; an older one that
        is not in it was deleted. Nothing is removed from namespaces whose list is ``unknown``.
        """
        changed = set()
        for view in [v for v in self if v.uid not in listed and v.version <= version]:
            run = view.run
            if not unknown(run.namespace) and self.drop(run, view.name, view.uid):
                changed.add(run)
        return changed


class Cache:
    """One indexer for each kept kind."""

    def __init__(self) -> None:
        self._indexers: dict[Kind[Any], Indexer[Any]] = {kind: Indexer() for kind in KEPT}
        self.runs, self.pods = self[RUNS], self[PODS]
        self.approvals, self.commands = self[APPROVALS], self[COMMANDS]

    def __getitem__(self, kind: Kind[V]) -> Indexer[V]:
        """The indexer of a kept kind."""
        return self._indexers[kind]

    def run(self, ref: RunRef) -> RunView | None:
        """The run of that name; None if the cache has none."""
        return self.runs.of(ref).get(ref.name)

    def open_commands(self, ref: RunRef) -> list[CommandView]:
        """The commands to that run that have no answer yet."""
        return [command for command in self.commands.of(ref).values() if command.open]
