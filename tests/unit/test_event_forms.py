"""An event whose hash fits and whose body does not have the form of its kind: damage, and nothing worse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentrun.journal.audit import verify
from agentrun.journal.log import EventLog
from agentrun.journal.paths import RunPath, entry
from agentrun.journal.records import Damaged
from agentrun.records.event_forms import EVENT_FORMS, misfit
from agentrun.records.run_events import EVENT_BODIES, EventKind
from tests.harness.cluster_world import ClusterWorld
from tests.harness.memory_store import MemoryStore
from tests.harness.operator_steps import begin
from tests.harness.planner_world import step
from tests.unit.record_forms import fields

RUN = RunPath("support", "refund-4711", "c0ffee")
SAID = {"by": "ada", "verified": True}
SIGNATURE = {"key": "sha256:0", "manifest": "sha256:1", "value": "AA=="}
FAILURE = {"class": "Tool", "message": "no", "retryAfter": 3, "retryable": False, "happened": True}
REQUEST: dict[str, Any] = {
    "subject": "Pay?",
    "details": None,
    "digest": "sha256:1",
    "approvers": {"users": ["ada"], "groups": []},
    "required": 1,
    "expiresAt": 1000.5,
}
USAGE = dict.fromkeys(("modelCalls", "inputTokens", "cachedInputTokens", "outputTokens", "toolCalls"), 1)
WHOLE: dict[EventKind, dict[str, Any]] = {
    EventKind.APPROVAL_REQUESTED: {"step": "pay", "request": REQUEST},
    EventKind.DECIDED: {
        **SAID,
        "digest": "sha256:1",
        "decision": "Approved",
        "comment": "",
        "step": "pay",
        "groups": ["finance"],
        "approval": "refund-pay",
        "at": 1000,
    },
    EventKind.SIGNALLED: SAID | {"command": "uid", "name": "paid", "payload": [1]},
    EventKind.WAIT_STARTED: {"step": "pay", "signal": "paid", "until": 1000.5},
    EventKind.SETTLED: {
        "step": "pay",
        "state": "Failed",
        "output": None,
        "failure": FAILURE,
        "items": 2,
        "states": {"Cancelled": [0, 1]},
        "signal": 3,
        "source": {"run": "support/other-1", "event": 1, "hash": "sha256:2"},
    },
    EventKind.SUSPENDED: SAID,
    EventKind.UNSUSPENDED: SAID | {"by": None},
    EventKind.CANCELLED: SAID | {"late": False},
    EventKind.TTL_CHANGED: SAID | {"ttlSecondsAfterFinished": None},
    EventKind.TIMED_OUT: {"active": 60},
    EventKind.RESUMED: SAID | {"command": "uid", "step": "pay[3]", "attempts": {"pay.3": 2}},
    EventKind.RESOLVED: SAID
    | {"command": "uid", "step": "pay.3.compensate", "callId": "1-0", "answer": "retry", "result": None, "attempt": 1},
    EventKind.ENDED: {
        "outcome": "Failed",
        "output": None,
        "steps": {"pay": "Failed"},
        "compensations": {"pay[3].compensate": "Succeeded"},
        "heads": {"pay.3": [4, "sha256:3"]},
        "usage": USAGE | {"costUSD": "0.01"},
        "failure": FAILURE,
        "failedStep": "pay",
        "notUndone": {"pay": "no"},
        "signature": SIGNATURE,
    },
}
"""A body of each kind with every field that it may have."""

ANY = {"payload", "output", "result"}
"""Fields that hold any JSON value."""

JSON_TYPES: tuple[Any, ...] = ([], {}, "\0", -1.5, False, None)
NO_STEP: tuple[Any, ...] = ("", "Pay", "pay.", "pay.x", "a/b", "pay[3", 3, None, [])
NO_TIME: tuple[Any, ...] = ("2026-05-01T10:00:05Z", True, None, [], 10**400, float("nan"))
WORSE: dict[str, tuple[Any, ...]] = {
    "step": NO_STEP,
    "until": NO_TIME,
    "at": NO_TIME,
    "active": NO_TIME,
    "state": ("Splendid", ""),
    "outcome": ("Splendid", "Running"),
    "decision": ("Perhaps",),
    "answer": ("perhaps",),
    "request": (
        *({name: value for name, value in REQUEST.items() if name != missing} for missing in REQUEST),
        *(REQUEST | {"expiresAt": value} for value in NO_TIME),
        REQUEST | {"approvers": {}},
        REQUEST | {"approvers": []},
        REQUEST | {"digest": []},
    ),
    "failure": ({}, {"class": "Splendid", "message": "no"}, {"class": "Tool"}, FAILURE | {"retryAfter": "soon"}),
    "items": (-1, 10**9, True),
    "states": ({"Splendid": [0]}, {"Failed": 0}, {"Failed": ["0"]}, {"Failed": [10**9]}),
    "source": ({}, {"run": 3}),
    "groups": ([3], "finance"),
    "attempts": ({"Pay": 1}, {"pay": "1"}),
    "steps": ({"pay": "Splendid"},),
    "compensations": ({"Pay": "Failed"}, {"pay": 3}),
    "heads": ({"pay": 3}, {"pay": []}, {"pay": ["4", "sha256:3"]}, {"Pay": [4, "sha256:3"]}),
    "usage": ({}, USAGE | {"costUSD": "much"}, USAGE | {"costUSD": 1}),
    "notUndone": ({"pay": 3},),
    "signature": ({}, SIGNATURE | {"key": None}, SIGNATURE | {"value": []}, SIGNATURE | {"manifest": 3}),
}
"""Values that are wrong for a field, beside those of a wrong JSON type."""


def wrong() -> Iterator[Any]:
    """Each kind of event, with one thing wrong with its body."""
    for kind, body in WHOLE.items():
        yield pytest.param(kind, [], id=f"{kind} as a list")
        for name in sorted(EVENT_FORMS[kind][0]):
            yield pytest.param(kind, {k: v for k, v in body.items() if k != name}, id=f"{kind} without {name}")
        for name in sorted(body.keys() - ANY):
            wrong_types = [value for value in JSON_TYPES if not fits(name, value, body[name])]
            for value in (*wrong_types, *WORSE.get(name, ())):
                yield pytest.param(kind, body | {name: value}, id=f"{kind} with {name} {value!r:.30}")
    yield pytest.param(EventKind.WAIT_STARTED, {"step": "pay"}, id="a wait for nothing")
    for path in ("pay.3", "pay.compensate"):
        yield pytest.param(EventKind.SETTLED, {"step": path, "state": "Failed"}, id=f"no failure of {path}")


def fits(name: str, value: Any, good: Any) -> bool:
    """Whether ``value`` is of a JSON type that the field may have."""
    if value is None:
        return name in ("by", "ttlSecondsAfterFinished")
    if name == "by" and type(value) is str:
        return True
    return type(value) is type(good) or (type(value) is float and name in ("until", "at", "active"))


def test_the_table_has_every_field_of_every_kind() -> None:
    for kind, form in EVENT_BODIES.items():
        required, optional = EVENT_FORMS[kind]
        assert fields(form) == dict.fromkeys(required, True) | dict.fromkeys(optional, False), kind
        assert WHOLE[kind].keys() == fields(form).keys(), kind


@pytest.mark.parametrize("kind", EventKind)
def test_a_body_with_every_field_fits(kind: EventKind) -> None:
    assert misfit(kind, WHOLE[kind]) is None
    required, _ = EVENT_FORMS[kind]
    fewest = {name: value for name, value in WHOLE[kind].items() if name in required}
    assert kind is EventKind.WAIT_STARTED or misfit(kind, fewest) is None
    assert misfit(kind, WHOLE[kind] | {"later": object()}) is None


@pytest.mark.parametrize(("kind", "body"), [*wrong()])
def test_an_event_that_does_not_hold_what_its_kind_holds_is_damage(kind: EventKind, body: Any) -> None:
    assert misfit(kind, body)


def test_one_bad_event_costs_its_reader_nothing_else() -> None:
    store = MemoryStore()
    log = EventLog(store, RUN, lambda: 1000.0)
    log.append(EventKind.SUSPENDED, SAID)
    reader = EventLog(store, RUN, lambda: 1000.0)
    reader.refresh()
    log.append(EventKind.UNSUSPENDED, SAID)
    log.append("later", {"by": 3})
    log.append(EventKind.SETTLED, {"step": "pay"})
    for _ in range(2):
        with pytest.raises(Damaged, match=f"{entry(RUN.events, 4)}.*it has no state"):
            reader.refresh()
        assert [record.kind for record in reader.records] == ["suspended"]
    findings = [(finding.key, finding.message) for finding in verify(store, RUN).findings]
    assert (entry(RUN.events, 4), 'this is not what agentrun writes as "settled": it has no state') in findings


@pytest.mark.parametrize("kind", EventKind)
def test_the_operator_says_journal_damaged(world: ClusterWorld, kind: EventKind) -> None:
    """The visit failed with a traceback and was tried again for ever. The other runs go on."""
    operator = begin(world, step("pay"))
    operator.hear_all()
    run = world.api.all("runs")[0]
    bad: dict[str, Any] = {} if EVENT_FORMS[kind][0] else {"by": []}
    EventLog(world.store, world.path(run), lambda: world.now).append(kind, bad)
    operator.kill()
    after = world.operator()
    world.settle()
    after.hear_all()
    world.wait(2)
    status = world.status()
    [stalled] = [c for c in status["conditions"] if c["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "JournalDamaged")
    assert kind in stalled["message"]
    world.api.apply_run("other", {"workflow": {"steps": [{"name": "w", "wait": {"duration": "1s"}}]}})
    for _ in range(3):
        after.hear_all()
        world.wait(2)
    assert world.status("other")["phase"] == "Succeeded"
