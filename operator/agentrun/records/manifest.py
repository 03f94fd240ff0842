"""The manifest, ``run.json``: the run as it was pinned when it was created."""

# No ``from __future__ import annotations`` here: TypedDict would compile each annotation again, in every step process.

from typing import Any, NotRequired, TypedDict


class RunManifest(TypedDict):
    """The content of ``run.json``, except its field ``hash``, the digest of all other fields."""

    v: int
    """The schema version, 1."""
    name: str
    namespace: str
    uid: str
    """Without hyphens."""
    createdAt: str
    """RFC 3339."""
    requestedBy: str | None
    """The person who created the run; None if nobody vouches for a name."""
    workflow: dict[str, Any]
    """A ``WorkflowSpec`` as its author wrote it, without defaults."""
    workflowDigest: str
    inputs: dict[str, Any]
    budget: dict[str, Any]
    """A ``Budget``, without the fields that have no bound."""
    timeout: str | None
    """The bound of the run's active time, as a duration; None: no bound."""
    suspend: bool
    """Whether the run was created suspended."""
    cancel: bool
    """Whether the run was created cancelled."""
    source: dict[str, Any] | None
    """A ``Source``; None unless the run is a fork."""
    labels: dict[str, str]
    identity: NotRequired[dict[str, Any]]
    """An ``Identity``. Absent if the run names none."""
    cluster: NotRequired[bool]
    """True if an operator drives the run: only decisions that its API server vouches for count. Otherwise absent."""
