"""``run.json``: the run as it was pinned when it was made."""

# Annotations are no texts here: a TypedDict would compile each of them again, in every process of a step.

from typing import Any, NotRequired, TypedDict


class RunManifest(TypedDict):
    """What ``run.json`` holds, but for ``hash``: the digest over all of it, which its bytes have besides."""

    v: int
    """The version of the form, 1."""
    name: str
    namespace: str
    uid: str
    """Without hyphens."""
    createdAt: str
    """RFC 3339."""
    requestedBy: str | None
    """Who made the run; None where nobody vouches for a name."""
    workflow: dict[str, Any]
    """A ``WorkflowSpec``, with what its author wrote and no defaults."""
    workflowDigest: str
    inputs: dict[str, Any]
    budget: dict[str, Any]
    """A ``Budget``, without what is not bounded."""
    timeout: str | None
    """Of active time, as a duration; None where nothing bounds it."""
    suspend: bool
    """Whether the run was made suspended."""
    cancel: bool
    """Whether the run was made cancelled."""
    source: dict[str, Any] | None
    """A ``Source``; None unless the run is a fork."""
    labels: dict[str, str]
    identity: NotRequired[dict[str, Any]]
    """An ``Identity``. Absent where the run names none."""
    cluster: NotRequired[bool]
    """True where an operator drives the run, and only decisions count that its API server vouches for; else absent."""
