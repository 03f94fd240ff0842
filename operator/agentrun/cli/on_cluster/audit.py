"""``kubectl agentrun audit verify`` and ``audit export``, on the journal that the run's status names."""

from __future__ import annotations

from agentrun.cli.audit import read_file, say_verdict, write_export
from agentrun.cli.on_cluster.runs import find, journal_of
from agentrun.cli.options import NAME, ClusterPlace
from agentrun.journal.audit import Objects
from agentrun.journal.layout import RunPath


def verify_verb(place: ClusterPlace, run: str) -> int:
    """Check that the journal of the run, or of a file that ``audit export`` wrote, is what was written."""
    path, objects = _journal(place, run) if NAME.fullmatch(run) else read_file(run)
    return say_verdict(place, path, objects)


def export_verb(place: ClusterPlace, run: str) -> int:
    """Write the journal of the run to standard output."""
    store, path = journal_of(find(place, place.open(), run))
    return write_export(store, path)


def _journal(place: ClusterPlace, run: str) -> tuple[RunPath, Objects]:
    store, path = journal_of(find(place, place.open(), run))
    return path, store
