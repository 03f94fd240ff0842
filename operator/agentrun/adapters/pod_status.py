"""Makes the view of a pod, and the text for a person about what is wrong with it.

The termination message comes from a container, so it is read as untrusted data. A message that is not exactly a fact is
ignored, and the journal says how the attempt ended.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from agentrun.adapters.objects import condition
from agentrun.adapters.pods import CONTAINER
from agentrun.api.canonical import moment
from agentrun.api.decoding import decode
from agentrun.api.facts import Allowance, AttemptEnd, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.labels import ATTEMPT, KEY, RUN_UID
from agentrun.api.printable import printable
from agentrun.api.run import Reason
from agentrun.api.workflow import GROUP
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.exit_codes import Exit
from agentrun.control.views import PodPhase, PodView, RunRef
from agentrun.observe.metrics import Lost
from agentrun.workflow.bounded_json import parse_json

_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONTAINER = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "ContainerCannotRun",
        "StartError",
    }
)
_TEXT_MAX = 400

_EXITS: Mapping[object, str] = {
    Exit.USAGE: "it was not told which step to run",
    Exit.WAITING: "it was asked to stop before it began",
    Exit.STORE: "the store is out of reach or unfit",
    Exit.FENCED: "another attempt took over the step",
}
"""The meaning of the runner's exit codes, if it left no message (docs/reference/)."""

_LOST: Mapping[object, Lost] = {
    "Evicted": Lost.EVICTED,
    "EvictionByEvictionAPI": Lost.EVICTED,
    "TerminationByKubelet": Lost.EVICTED,
    "PreemptionByScheduler": Lost.PREEMPTED,
    "Preempting": Lost.PREEMPTED,
    "NodeLost": Lost.NODE_LOST,
    "DeletionByTaintManager": Lost.NODE_LOST,
    "DeletionByPodGC": Lost.NODE_LOST,
}
"""What the metric calls the reasons that Kubernetes gives: those of a pod's status, and those of ``DisruptionTarget``
(https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions).
"""

_SIGNALS: Mapping[object, str] = {128 + number: f" ({number.name})" for number in signal.Signals}

COUNT_MAX = 2**53
"""The largest count of anything that a step may report as used: every reader of JSON takes it exactly."""

NAME_MAX = 253
"""The longest text, in characters, of the fields that tie a pod to its run."""

WORD_MAX = 64 * 1024
"""The longest attempt spec or termination message that is read, in characters. The kubelet keeps 4 KiB of a message,
and the spec is short."""

TIME_MAX = 1e10
"""The latest time that a step may report, in seconds since 1970: the year 2286."""

Json = Mapping[str, Any]


def pod_view(obj: Json) -> PodView | None:
    """The view of a pod; None if no AgentRun owns it, or if it does not run what its annotations say."""
    meta, status = obj.get("metadata") or {}, obj.get("status") or {}
    notes = meta.get("annotations") or {}
    owner = next((ref for ref in meta.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None or owner.get("kind") != "AgentRun" or not str(owner.get("apiVersion")).startswith(f"{GROUP}/"):
        return None
    run_uid, run = str(owner.get("uid")), str(owner.get("name"))
    number = str(notes.get(ATTEMPT))
    if run_uid.replace("-", "") != notes.get(RUN_UID) or not re.fullmatch("[1-9][0-9]{0,8}", number):
        return None
    if max(len(run_uid), len(run), len(str(notes.get(KEY)))) > NAME_MAX:  # anybody may create a pod with any text here
        return None
    try:
        key = StepKey.parse(str(notes.get(KEY)))
    except ValueError:
        return None
    told = _told(obj)
    uid = str(told.get("run")).rpartition("-")[2]
    if (uid, told.get("step"), told.get("attempt")) != (notes[RUN_UID], key.path, int(number)):
        return None
    container: Json = next((c for c in status.get("containerStatuses") or () if c.get("name") == CONTAINER), {})
    state = container.get("state") or {}
    terminated = state.get("terminated")
    phase = _phase(status, state)
    fact, trouble, lost = None, None, Lost.OTHER
    if phase == "Ended":
        word = (terminated or {}).get("message") or ""
        fact = _fact(word)
        if fact is None and not _is_word(word):
            trouble, lost = _end(obj, status, terminated, word)
    elif phase == "Pending":
        trouble = next(_obstacles(status, container, state), None)
    elif (
        container.get("ready")
        and condition(status, "Ready") == "False"
        and condition(status, "ContainersReady") != "False"
    ):
        # The kubelet sets both or neither. Only the node controller sets Ready alone: nothing is heard of the node.
        node = (obj.get("spec") or {}).get("nodeName")
        trouble = (
            Reason.NODE_SILENT,
            _line(f"node {node} does not report; if that lasts, another pod replaces this one"),
        )
    return PodView(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        run=RunRef(meta["namespace"], run),
        run_uid=run_uid,
        key=key,
        attempt=int(number),
        phase=phase,
        ended=_at((terminated or {}).get("finishedAt")),
        grace=_grace(meta),
        allowance=_allowance(told),
        drain=told.get("drain") is True,
        stray=phase == "Ended" and "running" in state,
        fact=fact,
        trouble=trouble,
        lost=lost,
    )


def _phase(status: Json, state: Json) -> PodPhase:
    if status.get("phase") in {"Succeeded", "Failed"} or "terminated" in state:
        return "Ended"  # the container is never restarted, so its end is the end of the pod
    # A pod whose node is lost keeps its phase until it is deleted. Old releases of Kubernetes set Unknown.
    return "Running" if "running" in state or (status.get("phase") == "Running" and not state) else "Pending"


def _at(time: object) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for the kubelet's zero time, and for anything else."""
    try:
        at = moment(str(time)) if time else 0.0
    except ValueError:
        return None
    return at if at > 0 else None


def _grace(meta: Json) -> float | None:
    """The grace period of a deleted pod in seconds; None if the pod was not deleted."""
    if "deletionTimestamp" not in meta:
        return None
    seconds = meta.get("deletionGracePeriodSeconds")
    return float(seconds) if isinstance(seconds, int) else 0.0


def _told(obj: Json) -> Json:
    """The attempt spec in the pod's environment. Unlike annotations and owners, a variable never changes."""
    try:
        env = _step(obj)["env"]
        told = _json(next(entry["value"] for entry in env if entry["name"] == STEP_VARIABLE))
    except (LookupError, StopIteration, TypeError):
        return {}
    return told if isinstance(told, dict) else {}


def _allowance(told: Json) -> Allowance:
    """The allowance of the attempt, which is held back from the budget while the pod lives.

    Anybody who creates a pod may write anything here. A value that the operator would not write holds nothing back.
    """
    try:
        found = Allowance.from_json(told["allowance"])
    except (LookupError, ValueError, TypeError, AttributeError, InvalidOperation):
        return Allowance()
    counts = (found.model_calls, found.tokens, found.tool_calls)
    sound = all(count is None or _is_count(count) for count in counts) and isinstance(found.last, bool)
    return found if sound and (found.cost_usd is None or _is_cost(found.cost_usd)) else Allowance()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= COUNT_MAX


def _is_cost(value: object) -> bool:
    return isinstance(value, Decimal) and value.is_finite() and 0 <= value <= COUNT_MAX


def _step(obj: Json) -> Json:
    """The step's own container. Others may have injected more containers into the pod."""
    containers = (obj.get("spec") or {}).get("containers") or ()
    return next((c for c in containers if c.get("name") == CONTAINER), {})


def _obstacles(status: Json, container: Json, state: Json) -> Iterator[tuple[Reason, str]]:
    """The reasons why the pod does not start."""
    for found in status.get("conditions") or ():
        if found.get("type") == "PodScheduled" and found.get("status") == "False":
            yield Reason.UNSCHEDULABLE, _line(found.get("message") or found.get("reason") or "no node accepts the pod")
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason"), waiting.get("message") or ""
    if reason in _IMAGE:
        yield Reason.IMAGE_PULL_FAILED, _line(f"image {container.get('image')}: {reason}: {message}".rstrip(": "))
    elif reason in _CONTAINER:
        yield Reason.CONTAINER_REFUSED, _line(f"{reason}: {message}".rstrip(": "))


def _end(obj: Json, status: Json, terminated: Json | None, word: str) -> tuple[tuple[Reason, str], Lost]:
    """How the pod ended, if the runner left no fact: for a person, and for the metric."""
    reason, message = status.get("reason"), status.get("message")
    if not reason:
        # Since 1.26 this condition tells who ended a pod from outside: drain, preemption, taint, garbage collection.
        for found in status.get("conditions") or ():
            if found.get("type") == "DisruptionTarget" and found.get("status") == "True":
                reason, message = found.get("reason"), found.get("message")
    if reason:
        what = f"{reason}: {message}" if message else str(reason)
        return (Reason.RETRYING, _line(what)), _LOST.get(str(reason), Lost.OTHER)
    if terminated is None:
        return (Reason.RETRYING, "its node lost the pod before it ended"), Lost.OTHER
    code, how = terminated.get("exitCode"), terminated.get("reason")
    if how == "OOMKilled":
        what = f"out of memory{_limit(obj)}: give the step more in resources.limits.memory"
        return (Reason.RETRYING, what), Lost.OOM_KILLED
    if how in _CONTAINER:
        return (Reason.CONTAINER_REFUSED, _line(f"{how}: {word}".rstrip(": "))), Lost.NOT_STARTED
    said = _tail(word) or _EXITS.get(code, "")
    if code == Exit.STORE:
        return (Reason.STORE_UNAVAILABLE, _line(said)), Lost.OTHER
    what = f"exit code {code}" + _SIGNALS.get(code, "")
    return (Reason.RETRYING, _line(f"{what}: {said}" if said else f"{what} without a message")), Lost.CRASHED


def _limit(obj: Json) -> str:
    limit = ((_step(obj).get("resources") or {}).get("limits") or {}).get("memory")
    return f" with a limit of {limit}" if limit else ""


def _tail(log: str) -> str:
    """The last line of a log. If it is a JSON object, the last line of its ``message``, or else of its ``trace``."""
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    value = _json(lines[-1])
    if isinstance(value, dict):
        text = value.get("message") or value.get("trace")
        lines = [line for line in str(text or "").splitlines() if line.strip()] or lines
    return lines[-1].strip()


def _line(text: object) -> str:
    """Untrusted text as one short line that is safe for a terminal."""
    return printable(" ".join(str(text).split()), _TEXT_MAX)


def _json(text: str) -> Any:
    try:
        return decode(text.encode()) if len(text) <= WORD_MAX else None
    except ValueError:  # also for half a surrogate
        return None


def _is_word(message: str) -> bool:
    """Whether the message says that the fact was too long for it. Then nothing is lost: the journal has the fact."""
    value = _json(message)
    return isinstance(value, dict) and value.get("truncated") is True


def _fact(message: str) -> StepFact | None:
    """The fact in ``message``; None if it is anything else. The end of a log may be JSON too."""
    try:
        value = parse_json(message) if len(message) <= WORD_MAX else None
        if not isinstance(value, dict) or "usage" not in value:
            return None
        fact = StepFact.from_json(value)
        return fact if _sound(fact) else None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):  # a number may be of any size
        return None


def _sound(fact: StepFact) -> bool:
    """Whether every part that is counted or compared has its type and range: the constructor checks neither."""
    usage = fact.usage
    counts = [fact.attempt, fact.seq, fact.failures, fact.losses, usage.model_calls, usage.tool_calls]
    counts += [usage.input_tokens, usage.cached_input_tokens, usage.output_tokens]
    times = [fact.started, fact.at, *(t for interval in fact.intervals for t in interval)]
    times += [request.expires_at for request in fact.approvals]
    if fact.failure is not None and fact.failure.retry_after is not None:
        times.append(fact.failure.retry_after)
    texts = [fact.head, *(request.digest for request in fact.approvals), *(r.subject for r in fact.approvals)]
    texts += [fact.failure.message] if fact.failure is not None else []
    texts += [fact.unknown.call_id, fact.unknown.tool, fact.unknown.message] if fact.unknown is not None else []
    return (
        all(_is_count(count) for count in counts)
        and all(type(time) in {int, float} and 0 <= time <= TIME_MAX for time in times)
        and all(isinstance(text, str) for text in texts)
        and all(type(request.required) is int for request in fact.approvals)
        and _is_cost(usage.cost_usd)
        and fact.end is not None
        and (fact.outcome.final if fact.outcome is not None else fact.end is not AttemptEnd.CLOSED)
        and (fact.outcome is None or fact.end is AttemptEnd.CLOSED)
        and (fact.end is not AttemptEnd.FAILED or fact.failure is not None)
        and isinstance(fact.needs_budget, bool)
        and isinstance(fact.again, bool)
        and isinstance(fact.happened, bool)
    )
