"""Runs as a whole: creating a run, finding it by name, listing runs, and reading the states of its steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentrun.api.canonical import canonical
from agentrun.api.errors import AgentrunError
from agentrun.api.facts import StepFact
from agentrun.api.keys import StepKey
from agentrun.api.texts import quoted
from agentrun.journal.bounded_outputs import Outputs
from agentrun.journal.fold import Folded, fold
from agentrun.journal.log import manifest_bytes, parse_manifest, read_step
from agentrun.journal.paths import RunPath, name_key
from agentrun.journal.records import Damaged, Record
from agentrun.plan.snapshot import Event
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import KeyExists, KeyMissing, Store, StoreError, StoreUnavailable, StoreUnfit
from agentrun.store.side_by_side import each

_FOLDER = re.compile(r".+-[0-9a-f]{32}")
"""The folder of a run whose uid is a UUID."""


class RunExists(AgentrunError):
    """A run with that name exists already."""


class NoSuchRun(AgentrunError):
    """There is no run with that name."""


def create_run(store: Store, manifest: RunManifest) -> RunPath:
    """Make a run durable. Its name is written last: from then on the run exists. Of two runs only one gets the name.

    The same manifest may be given again after a StoreError. A crash half way leaves a ``run.json`` that no name leads
    to, and the name stays free.

    Raises:
        RunExists: the name is taken.
        StoreError: the run may exist or not.
    """
    run = RunPath(manifest["namespace"], manifest["name"], manifest["uid"])
    data = canonical({"uid": run.uid})
    _check_free(store, run)  # a taken name, the usual mistake, leaves nothing behind
    try:
        store.create(run.manifest, manifest_bytes(manifest))
    except KeyExists:
        pass  # nobody else has this uid: it was our own PUT, whose answer was lost
    try:
        store.create(run.name_key, data)
    except KeyExists:
        _check_free(store, run)  # our own PUT again, or another run was first
    return run


def _check_free(store: Store, run: RunPath) -> None:
    try:
        taken = parse_name(store.get(run.name_key), run.name_key)
    except KeyMissing:
        return
    if taken != run.uid:
        raise RunExists(
            f"a run named {run.name} exists in {run.namespace}: give another name with --name, "
            f"or continue it with agentrun resume {run.name}"
        )


def find_run(store: Store, namespace: str, name: str) -> RunPath:
    """The run with that name. A cluster may have had several, one after the other: then the newest.

    Raises:
        NoSuchRun: there is none.
        Damaged: a run that may be the newest cannot be read.
    """
    run: RunPath | None
    try:
        run = RunPath(namespace, name, _uid(store, namespace, name))
    except KeyMissing:
        run = _newest(store, [r for r in _of_clusters(store, namespace) if r.name == name])
    if run is None or not _exists(store, run):
        raise NoSuchRun(f"there is no run {quoted(name)} in namespace {namespace} of {store.url}: see agentrun list")
    return run


class Unreadable(NamedTuple):
    """A run that cannot be read, and why. ``name`` is empty if the whole namespace cannot be read."""

    namespace: str
    name: str
    error: AgentrunError


def list_runs(store: Store, namespace: str | None, unread: Callable[[Unreadable], None] | None = None) -> list[RunPath]:
    """Every run of a namespace, or of all namespaces, by name.

    ``unread`` is called for each run that cannot be read, and the others are still found. Without ``unread``, the first
    such run raises its error.

    Raises:
        StoreError: the store is out of reach, or the one namespace cannot be read.
        Damaged: the object of a name is damaged, and there is no ``unread``.
    """
    told = _raised if unread is None else unread
    if namespace is not None:
        return _runs_of(store, namespace, told)
    found = []
    for space in store.children(""):
        if space.startswith("."):
            continue
        try:
            found += _runs_of(store, space, told)
        except StoreError as error:
            if out_of_reach(store, error):
                raise
            told(Unreadable(space, "", error))
    return found


def out_of_reach(store: Store, error: AgentrunError) -> bool:
    """Whether ``error`` means that the whole store does not answer, and not only that one object cannot be read."""
    return store.remote and isinstance(error, StoreUnavailable)


def _raised(unread: Unreadable) -> None:
    raise unread.error


def _runs_of(store: Store, space: str, unread: Callable[[Unreadable], None]) -> list[RunPath]:
    named, known = [], set[RunPath]()
    for name in store.children(f"{space}/names/"):
        try:
            run = RunPath(space, name, _uid(store, space, name))
            known.add(run)
            if _exists(store, run):
                named.append(run)
        except (Damaged, StoreError) as error:
            if out_of_reach(store, error):
                raise
            unread(Unreadable(space, name, error))
    others = [run for run in _of_clusters(store, space) if run not in known]
    of_clusters = each(lambda run: _is_of_cluster(store, run), others, remote=store.remote)
    named += [run for run, is_one in zip(others, of_clusters, strict=True) if is_one]
    return sorted(named, key=lambda run: (run.name, run.uid))


def _of_clusters(store: Store, namespace: str) -> list[RunPath]:
    """Folders that may be runs of a cluster. Those have no name object: the API server keeps their names unique."""
    folders = (name for name in store.children(f"{namespace}/") if _FOLDER.fullmatch(name))
    return [RunPath.parse(f"{namespace}/{name}") for name in folders]


def _is_of_cluster(store: Store, run: RunPath) -> bool:
    """Whether a cluster's operator created the run. Otherwise it is what is left of a creation on one machine that
    crashed half way.
    """
    try:
        return bool(read_manifest(store, run).get("cluster"))
    except KeyMissing:
        return False
    except (Damaged, StoreUnfit):
        return True  # list it: reading it tells what is wrong


def _newest(store: Store, runs: Sequence[RunPath]) -> RunPath | None:
    made = []
    for run in runs:
        try:
            manifest = read_manifest(store, run)
        except KeyMissing:
            continue
        if manifest.get("cluster"):
            made.append((str(manifest["createdAt"]), run))
    return max(made, key=lambda pair: pair[0], default=("", None))[1]


def read_manifest(store: Store, run: RunPath) -> RunManifest:
    """``run.json``, checked against its digest. Raises Damaged."""
    return parse_manifest(store.get(run.manifest), run.manifest)


def read_states(store: Store, run: RunPath) -> dict[StepKey, Folded]:
    """The folded state of every step that has a journal."""
    keys = _steps(store, run)

    def state(key: StepKey) -> Folded:
        return fold(read_step(store, run, key))

    return dict(zip(keys, each(state, keys, remote=store.remote), strict=True))


def is_step(name: str) -> bool:
    """Whether a folder's name is a step's. Other folders were put there by hand."""
    try:
        return StepKey.parse(name).path == name
    except ValueError:
        return False


def read_facts(store: Store, run: RunPath) -> dict[StepKey, StepFact]:
    """The fact of every step that has a journal. Only facts stay in memory while the other steps are read."""
    keys, outputs = _steps(store, run), Outputs()

    def fact(key: StepKey) -> StepFact:
        return outputs.take(fold(read_step(store, run, key)).fact())

    return dict(zip(keys, each(fact, keys, remote=store.remote), strict=True))


def _steps(store: Store, run: RunPath) -> list[StepKey]:
    return [StepKey.parse(name) for name in store.children(f"{run}/steps/") if is_step(name)]


def as_events(records: Sequence[Record]) -> tuple[Event, ...]:
    """The records of the run's log as the events that the planner reads."""
    return tuple(Event(r.seq, r.at, r.kind, r.body) for r in records)


def _uid(store: Store, namespace: str, name: str) -> str:
    key = name_key(namespace, name)
    return parse_name(store.get(key), key)


def parse_name(data: bytes, key: str) -> str:
    """The uid that the object of a name holds. Raises Damaged."""
    try:
        uid = json.loads(data)["uid"]
    except (ValueError, KeyError, TypeError, RecursionError):
        uid = None
    if not isinstance(uid, str) or not re.fullmatch("[0-9a-z]{1,64}", uid):
        raise Damaged(f"{key}: this does not name a run; the object was damaged")
    return uid


def _exists(store: Store, run: RunPath) -> bool:
    try:
        store.get(run.manifest)
    except KeyMissing:
        return False
    return True
