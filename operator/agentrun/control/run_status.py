"""Composes the status of a run: the planner's status, with what only the cluster knows, and within bounds.

Conventions: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentrun.api.bounds import too_large
from agentrun.api.canonical import canonical, moment, timestamp
from agentrun.api.keys import StepKey
from agentrun.api.printable import printable
from agentrun.api.run import ConditionType, Outcome, Reason, StepState
from agentrun.control.views import RunView
from agentrun.plan.status import STALLED
from agentrun.records.waits import TIMED

STATUS_MAX = 30 * 1024
"""The largest status, in bytes of JSON. etcd and every watcher would pay for more."""

MESSAGE_MAX = 4096
"""Characters of the message that says why a run does not go on. A condition may have 32,768; the API server refuses
the whole status if one has more.
"""

QUIET = 1.0
"""Seconds for which changes that nobody has to act upon are gathered into one write. A run that ends within them is
written once.
"""

QUIET_MAX = 10.0
"""The same while many runs of the namespace wait in the queue (``status_writer.BUSY``)."""

_CALM = {str(Reason.PENDING), str(Reason.RUNNING), str(Reason.QUEUED)}


def composed(
    planned: Mapping[str, Any], run: RunView, digest: str, journal: str, approvals: Mapping[str, str], now: float
) -> dict[str, Any]:
    """The status to write. ``approvals``: the names of the open Approvals, by the label of the step that asks."""
    status: dict[str, Any] = {"observedGeneration": run.generation}
    status |= {key: value for key, value in planned.items() if value is not None}
    status["conditions"] = _conditions(planned["conditions"], run, now)
    status["workflowDigest"] = digest
    status["journal"] = journal
    status["steps"] = [_flat(_named(entry, approvals)) for entry in planned["steps"]]
    return _bounded(_flat(status))


def troubled(run: RunView, reason: Reason, message: str, *, stalled: bool, now: float) -> dict[str, Any]:
    """The status of a run that cannot be planned: the old status, with the reason why the run does not go on."""
    status = dict(run.status or {})
    status["observedGeneration"] = run.generation
    status["phase"] = "Stalled" if stalled else "Waiting"
    message = printable(message, MESSAGE_MAX)
    status["message"] = message
    values = {
        ConditionType.SUCCEEDED: "Unknown",
        ConditionType.READY: "False",
        ConditionType.RECONCILING: str(not stalled),
        ConditionType.STALLED: str(stalled),
    }
    found = [{"type": str(t), "status": v, "reason": str(reason), "message": message} for t, v in values.items()]
    status["conditions"] = _conditions(found, run, now)
    return status


def unasked(planned: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The planner's status, changed to say that the API server refuses an Approval.

    A stalled run keeps its status: what a person has to repair comes first.
    """
    if headline(planned)[0] in STALLED:
        return dict(planned)
    why = printable(why, MESSAGE_MAX // 2)
    message = f"{why}. People are asked once that is fixed; agentrun cancel RUN ends the run"
    about = {"reason": str(Reason.APPROVAL_REFUSED), "message": message}
    conditions = [{**condition, **about} for condition in planned["conditions"]]
    return {**planned, "phase": "Waiting", "message": message, "conditions": conditions}


def never_begun(run: RunView, why: str, now: float) -> dict[str, Any]:
    """The status of a run that was cancelled before it could be pinned. It ends without a journal."""
    status = troubled(run, Reason.CANCELLED, f"cancelled before it began: {why}", stalled=True, now=now)
    ended = {ConditionType.SUCCEEDED: "False", ConditionType.RECONCILING: "False"}
    found = [{**c, "status": ended.get(c["type"], c["status"])} for c in status["conditions"]]
    status["conditions"] = _conditions(found, run, now)
    return status | {"phase": str(Outcome.CANCELLED), "completionTime": timestamp(now)}


def headline(status: Mapping[str, Any] | None) -> tuple[str, str]:
    """The reason and message of a status, from its ``Ready`` condition; both empty if it has none."""
    for condition in (status or {}).get("conditions", ()):
        if condition.get("type") == ConditionType.READY:
            return str(condition.get("reason", "")), str(condition.get("message", ""))
    return "", ""


def urgent(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> bool:
    """Whether somebody may wait for this change: the run ended, or its reason or message changed and the new reason is
    not Pending, Running or Queued.
    """
    return "completionTime" in new or (headline(new)[0] not in _CALM and headline(old) != headline(new))


def awaited(status: Mapping[str, Any] | None) -> float | None:
    """The earliest time that a status gives for a timer or the next attempt; None if it gives none."""
    entries = (status or {}).get("steps")
    waits = [entry.get("waitingFor") for entry in entries or () if isinstance(entry, Mapping)]
    instants = (_instant(wait.get(name)) for wait in waits if isinstance(wait, Mapping) for name in TIMED)
    return min((at for at in instants if at is not None), default=None)


def _instant(text: object) -> float | None:
    try:
        return moment(text) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def _conditions(found: Iterable[Mapping[str, Any]], run: RunView, now: float) -> list[dict[str, Any]]:
    """The conditions to write. ``lastTransitionTime`` changes only with ``status``."""
    before = {c.get("type"): c for c in (run.status or {}).get("conditions", ()) if isinstance(c, Mapping)}
    written = []
    for condition in found:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"] and "lastTransitionTime" in old
        at = old["lastTransitionTime"] if same else timestamp(int(now))
        written.append({**condition, "observedGeneration": run.generation, "lastTransitionTime": at})
    return written


def _named(entry: Mapping[str, Any], approvals: Mapping[str, str]) -> dict[str, Any]:
    """A step's entry, in which ``waitingFor.approval`` is the name of the Approval, so that ``kubectl`` finds it."""
    waiting = entry.get("waitingFor")
    if waiting is None or "approval" not in waiting:
        return dict(entry)
    name = approvals.get(entry["name"], waiting["approval"])
    return {**entry, "waitingFor": {**waiting, "approval": name}}


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """Remove an output beyond the bounds of a user's file: every reader of the object would have to parse it."""
    if too_large(entry.get("output")) is not None:
        del entry["output"]
    return entry


def _bounded(status: dict[str, Any]) -> dict[str, Any]:
    """``status``, cut to ``STATUS_MAX``: first outputs are removed, then entries of steps that need no attention."""
    if len(canonical(status)) <= STATUS_MAX:
        return status
    steps = [{k: v for k, v in entry.items() if k != "output"} for entry in status["steps"]]
    output = status.get("output")
    if output is not None and len(canonical(output)) > STATUS_MAX // 4:
        status = {k: v for k, v in status.items() if k != "output"}
    status = {**status, "steps": steps}
    size = len(canonical(status))
    left_out: set[int] = set()
    for entry in sorted(steps, key=lambda entry: _DULL.get(entry["state"], len(_DULL))):
        if size <= STATUS_MAX:
            break
        left_out.add(id(entry))
        size -= len(canonical(entry)) + 1
    status["steps"] = [entry for entry in steps if id(entry) not in left_out]
    return status


_DULL = {
    str(state): order
    for order, state in enumerate(
        (StepState.PENDING, StepState.SUCCEEDED, StepState.SKIPPED, StepState.CANCELLED, StepState.RUNNING)
    )
}


def smaller(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Ever smaller versions of a status that the API server refuses: without outputs and with short messages, then
    without steps, then with only what a run must show. The journal has everything.
    """
    cut = {key: value for key, value in status.items() if key not in ("output", "message")}
    cut["conditions"] = [{**c, "message": _shortened(c.get("message", ""))} for c in status.get("conditions", ())]
    cut["message"] = _shortened(status.get("message", ""))
    if status.get("steps"):
        yield cut | {"steps": [{key: entry[key] for key in ("name", "state")} for entry in status["steps"]]}
    yield {key: value for key, value in cut.items() if key != "steps"}
    told = ("type", "status", "reason", "lastTransitionTime", "message")
    bare = [{key: c[key] for key in told if key in c} | {"message": _CUT} for c in cut["conditions"]]
    kept = ("observedGeneration", "phase", "completionTime", "journal")
    yield {key: status[key] for key in kept if key in status} | {"conditions": bare}


_CUT = "shortened: no room in the object"
_SHORT = 200


def _shortened(message: str) -> str:
    """The beginning of a message, with a note that the status was cut."""
    whole = "agentrun show and the journal have the full text"
    return f"{message[:_SHORT]}{'…' if len(message) > _SHORT else ''} ({_CUT}; {whole})"


def labels_of(keys: Iterable[tuple[StepKey, str]]) -> dict[str, str]:
    """The first Approval of each step, by the step's label."""
    found: dict[str, str] = {}
    for key, name in keys:
        found.setdefault(key.label, name)
    return found
