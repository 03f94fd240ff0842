"""``kubectl agentrun diff``."""

from __future__ import annotations

from agentrun.cli.diff import compare
from agentrun.cli.on_cluster.runs import find, journal_of
from agentrun.cli.options import ClusterPlace
from agentrun.cli.view import View


def diff_verb(place: ClusterPlace, left: str, right: str) -> int:
    """Where the journals of two runs part."""
    client = place.open()
    views = [View.read(*journal_of(find(place, client, name))) for name in (left, right)]
    return compare(place, views[0], views[1])
