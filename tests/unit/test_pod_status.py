"""A pod as it is read back: how it stands, what its runner said, and what a person is told of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.adapters.pod_status import pod_view
from agentrun.api.canonical import digest_of, moment, timestamp
from agentrun.api.facts import Allowance, ApprovalRequest, AttemptEnd, FailureInfo, StepFact, UnknownCall, Usage
from agentrun.api.keys import StepKey
from agentrun.api.run import Reason, StepState
from agentrun.api.tools import Approvers
from agentrun.api.workflow import FailureClass
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.log import manifest_bytes
from agentrun.observe.metrics import Lost
from agentrun.runner import process
from agentrun.store.folder import FolderStore
from tests.harness.pods import RUN, RUN_PATH, UID, build, start

FACT = StepFact(attempt=1, seq=3, head="sha256:a", started=5.0, at=9.0, end=AttemptEnd.CLOSED, intervals=((5.0, 9.0),))
FACT = replace(FACT, outcome=StepState.SUCCEEDED, output={"paid": 5})
WORD = json.dumps(FACT.to_json())
BEGAN, ENDED = "2026-05-01T10:00:05Z", "2026-05-01T10:00:09Z"


def seen(status: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    """The pod as the API server shows it."""
    pod = copy.deepcopy(build(allowance=Allowance(model_calls=3, last=False)))
    pod["metadata"] |= {"uid": "pod-uid", "resourceVersion": "41", "creationTimestamp": "2026-05-01T10:00:00Z", **meta}
    return pod | {"status": status or {"phase": "Pending"}}


def notes(uid: str = RUN_PATH.uid, key: str = "refund", attempt: str = "1") -> dict[str, str]:
    return {"agentrun.dev/run-uid": uid, "agentrun.dev/key": key, "agentrun.dev/attempt": attempt}


def contained(phase: str, state: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"name": "step", "image": "agentrun:1", "state": state}], **status}


def ended(code: int = 0, word: str = "", reason: str = "Error", **status: Any) -> dict[str, Any]:
    last = {"exitCode": code, "reason": reason, "message": word, "startedAt": BEGAN, "finishedAt": ENDED}
    return contained("Succeeded" if code == 0 else "Failed", {"terminated": last}, **status)


def view(status: dict[str, Any] | None = None, **meta: Any) -> Any:
    found = pod_view(seen(status, **meta))
    assert found is not None
    return found


def test_a_new_pod_is_what_was_asked_for() -> None:
    found = view()
    assert (found.namespace, found.uid, found.version) == ("support", "pod-uid", 41)
    assert found.name == build()["metadata"]["name"]
    assert found.run == RUN.ref
    assert found.run_uid == RUN.uid
    assert (found.key, found.attempt) == (StepKey("refund"), 1)
    assert found.allowance == Allowance(model_calls=3, last=False)
    assert (found.phase, found.ended, found.grace) == ("Pending", None, None)
    assert (found.fact, found.trouble) == (None, None)


@pytest.mark.parametrize(
    "forged",
    [
        *('{"tokens": "lots"}', '{"tokens": {}}', '{"toolCalls": true}', '{"modelCalls": 1.5}', '{"tokens": 1e999}'),
        *('{"tokens": -5}', '{"costUSD": "-5"}', '{"costUSD": "NaN"}', '{"costUSD": "Infinity"}', '{"costUSD": []}'),
        *('{"costUSD": "1e999999999"}', '{"tokens": 1' + "0" * 400 + "}", '{"tokens": 1, "last": "x"}', "[]", "7"),
    ],
)
def test_an_allowance_that_no_operator_writes_holds_nothing_back(forged: str) -> None:
    """Whoever may make pods could so end the planning of a run, or give it more than its budget."""
    pod = seen()
    [variable] = [v for v in pod["spec"]["containers"][0]["env"] if v["name"] == STEP_VARIABLE]
    variable["value"] = json.dumps(json.loads(variable["value"]) | {"allowance": "HERE"}).replace('"HERE"', forged)
    found = pod_view(pod)
    assert found is None or found.allowance == Allowance()


def test_the_life_of_a_pod() -> None:
    scheduled = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    assert view(scheduled).phase == "Pending"
    assert view(contained("Pending", {"waiting": {"reason": "ContainerCreating"}})).trouble is None
    running = view(
        contained("Running", {"running": {"startedAt": BEGAN}}), deletionTimestamp=ENDED, deletionGracePeriodSeconds=9
    )
    assert (running.phase, running.grace) == ("Running", 9)
    over = view(ended(word=WORD))
    assert (over.phase, over.ended) == ("Ended", moment(ENDED))
    assert (over.fact, over.trouble) == (FACT, None)
    assert view(contained("Running", {"terminated": {"exitCode": 0, "message": WORD}})).phase == "Ended"
    assert view({"phase": "Running"}).phase == "Running"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"annotations": None}, "no annotations"),
        ({"annotations": notes(attempt="0")}, "no attempt"),
        ({"annotations": notes(key="A!")}, "no step"),
        ({"annotations": notes(uid="another")}, "another run of that name"),
        ({"annotations": notes(key="pay")}, "another step than it was told"),
        ({"annotations": notes(attempt="2")}, "another attempt than it was told"),
        ({"ownerReferences": []}, "nobody's"),
        ({"ownerReferences": [{"kind": "Job", "apiVersion": "batch/v1", "uid": UID, "controller": True}]}, "another's"),
        ({"ownerReferences": [{"kind": "AgentRun", "apiVersion": "agentrun.dev/v1", "uid": UID}]}, "no controller"),
        ({"ownerReferences": [{"kind": "AgentRun", "apiVersion": "agentrun.dev/v1", "controller": True}]}, "no uid"),
    ],
)  # fmt: skip
def test_a_pod_that_only_looks_like_ours_is_none(change: dict[str, Any], why: str) -> None:
    assert pod_view(seen(**change)) is None, why


def test_a_container_of_somebody_else_that_is_not_ready_is_no_silent_node() -> None:
    """The kubelet itself says of such a pod that it is not ready."""
    running = {"running": {"startedAt": BEGAN}}
    status = contained("Running", running)
    status["containerStatuses"][0]["ready"] = True
    status["containerStatuses"].append({"name": "istio-proxy", "ready": False, "state": running})
    status["conditions"] = [{"type": kind, "status": "False"} for kind in ("Ready", "ContainersReady")]
    assert view(status).trouble is None
    status["conditions"][1]["status"] = "True"
    assert view(status).trouble[0] is Reason.NODE_SILENT


def test_who_was_called_failed_while_its_container_runs_may_be_at_work() -> None:
    found = view(contained("Failed", {"running": {"startedAt": BEGAN}}))
    assert (found.phase, found.stray) == ("Ended", True)
    assert not view(contained("Failed", {"waiting": {"reason": "ImagePullBackOff"}})).stray
    assert not view(ended(word=WORD)).stray


def _word(**changes: Any) -> str:
    return json.dumps({**FACT.to_json(), **changes})


@pytest.mark.parametrize(
    "word",
    [
        _word(output=float("nan")),
        _word(output="X").replace('"X"', "1e999"),
        _word(output="X").replace('"X"', "9" * 400),
        _word(output="\ud800"),
        _word(started=1e300),
        _word(at=-1e300),
        _word(intervals=[[-1e308, 1e308]]),
        _word(attempt=10**30),
        _word(usage={**FACT.to_json()["usage"], "costUSD": "1E+5000"}),
        _word(usage={**FACT.to_json()["usage"], "inputTokens": 10**30}),
    ],
)
def test_a_word_that_nobody_could_read_on_is_none(word: str) -> None:
    """Whoever controls the container writes it; each visit to the run failed over it, a cancelled run's too."""
    assert view(ended(word=word)).fact is None


IMAGE_GONE = 'Back-off pulling image "agentrun:1"'


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient cpu.",
                    }
                ],
            },
            Reason.UNSCHEDULABLE,
            "0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            contained("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": IMAGE_GONE}}),
            Reason.IMAGE_PULL_FAILED,
            f"image agentrun:1: ImagePullBackOff: {IMAGE_GONE}",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [{"name": "step", "ready": True, "state": {"running": {"startedAt": BEGAN}}}],
                "conditions": [{"type": "Ready", "status": "False"}],
            },
            Reason.NODE_SILENT,
            "node None does not report; if that lasts, another pod replaces this one",
        ),
        (
            contained("Pending", {"waiting": {"reason": "ErrImageNeverPull"}}),
            Reason.IMAGE_PULL_FAILED,
            "image agentrun:1: ErrImageNeverPull",
        ),
        (
            contained(
                "Pending", {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}
            ),
            Reason.CONTAINER_REFUSED,
            'CreateContainerConfigError: secret "s" not found',
        ),
        (
            ended(128, 'exec: "python": executable file not found in $PATH', "StartError"),
            Reason.CONTAINER_REFUSED,
            'StartError: exec: "python": executable file not found in $PATH',
        ),
        (
            ended(137, reason="OOMKilled"),
            Reason.RETRYING,
            "out of memory: give the step more in resources.limits.memory",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            Reason.RETRYING,
            "Evicted: The node was low on resource: memory.",
        ),
        (
            ended(137) | {"reason": "DeadlineExceeded", "message": "Pod was active too long"},
            Reason.RETRYING,
            "DeadlineExceeded: Pod was active too long",
        ),
        (
            {
                "phase": "Failed",
                "conditions": [
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "PreemptionByScheduler",
                        "message": "for x",
                    }
                ],
            },
            Reason.RETRYING,
            "PreemptionByScheduler: for x",
        ),
        ({"phase": "Failed"}, Reason.RETRYING, "its node lost the pod before it ended"),
        (ended(137), Reason.RETRYING, "exit code 137 (SIGKILL) without a message"),
        (ended(9), Reason.RETRYING, "exit code 9 without a message"),
        (ended(5), Reason.RETRYING, "exit code 5: another attempt took over the step"),
        (
            ended(1, "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'agentrun'\n"),
            Reason.RETRYING,
            "exit code 1: ModuleNotFoundError: No module named 'agentrun'",
        ),
        (
            ended(
                1, '{"event":"opened"}\n{"event":"crashed","trace":"Traceback\\n  File\\nValueError: \\u001b[31m\\n"}\n'
            ),
            Reason.RETRYING,
            "exit code 1: ValueError: \\u001b[31m",
        ),
        (
            ended(4, '{"at":"x","event":"error","message":"s3://b: no answer; wait"}\n'),
            Reason.STORE_UNAVAILABLE,
            "s3://b: no answer; wait",
        ),
    ],
)
def test_a_person_is_told_what_is_the_matter(status: dict[str, Any], reason: Reason, says: str) -> None:
    found = view(status)
    assert found.trouble == (reason, says)
    assert found.fact is None


def disrupted(reason: str) -> dict[str, Any]:
    return {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


DISRUPTIONS = {
    "PreemptionByScheduler": Lost.PREEMPTED,
    "DeletionByTaintManager": Lost.NODE_LOST,
    "EvictionByEvictionAPI": Lost.EVICTED,
    "DeletionByPodGC": Lost.NODE_LOST,
    "TerminationByKubelet": Lost.EVICTED,
}


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, Lost.EVICTED),
        ({"phase": "Failed", "reason": "NodeLost"}, Lost.NODE_LOST),
        ({"phase": "Failed", "reason": "Preempting"}, Lost.PREEMPTED),
        *((disrupted(reason), lost) for reason, lost in DISRUPTIONS.items()),
        (ended(128, reason="StartError"), Lost.NOT_STARTED),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, Lost.OTHER),
        ({"phase": "Failed"}, Lost.OTHER),
        (ended(137, reason="OOMKilled"), Lost.OOM_KILLED),
        (ended(137), Lost.CRASHED),
        (ended(1, "out of memory"), Lost.CRASHED),
        (ended(4, "exit code 1"), Lost.OTHER),
        (ended(0, json.dumps(FACT.to_json())), Lost.OTHER),
    ],
)
def test_how_an_attempt_was_lost_is_told_by_what_kubernetes_says(status: dict[str, Any], lost: Lost) -> None:
    """Not by the sentence for people, whose words a log may have as well."""
    assert view(status).lost is lost


def test_the_limit_that_was_too_low_is_named() -> None:
    pod = seen(ended(137, reason="OOMKilled"))
    pod["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi"}}
    found = pod_view(pod)
    assert found is not None
    assert found.trouble == (
        Reason.RETRYING,
        "out of memory with a limit of 64Mi: give the step more in resources.limits.memory",
    )


def test_what_a_person_is_told_is_short() -> None:
    trouble = view(ended(1, "x" * 5000)).trouble
    assert trouble is not None
    assert len(trouble[1]) == 400


def test_a_word_counts_for_more_than_how_the_pod_ended() -> None:
    evicted = ended(0, WORD) | {"phase": "Failed", "reason": "Evicted"}
    assert (view(evicted).fact, view(evicted).trouble) == (FACT, None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TIMES = st.floats(0, 4e9, allow_nan=False)
COUNTS = st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.decimals(0, 10**9, places=12))
FAILURES = st.builds(
    FailureInfo, st.sampled_from(FailureClass), st.text(max_size=3000), st.none() | TIMES, st.booleans()
)
REQUESTS = st.builds(
    ApprovalRequest, st.text(max_size=1000), JSON, st.just(digest_of(1)), st.just(Approvers(users=["ana"])),
    st.integers(1, 10), TIMES, st.just("call-1"), st.just("pay"),
)  # fmt: skip
ENDS: st.SearchStrategy[tuple[AttemptEnd, StepState | None]] = st.sampled_from(
    [(AttemptEnd.CLOSED, StepState.SUCCEEDED), (AttemptEnd.CLOSED, StepState.FAILED),
     (AttemptEnd.CLOSED, StepState.CANCELLED), (AttemptEnd.WAITING, None), (AttemptEnd.FAILED, None)]
)  # fmt: skip


@st.composite
def facts(draw: st.DrawFn) -> StepFact:
    """What a runner may have to say at its end."""
    end, outcome = draw(ENDS)
    return StepFact(
        attempt=draw(st.integers(1, 10**6)),
        seq=draw(st.integers(1, 10**8)),
        head=digest_of(draw(COUNTS)),
        started=draw(TIMES),
        at=draw(TIMES),
        end=end,
        intervals=tuple(draw(st.lists(st.tuples(TIMES, TIMES), max_size=draw(st.sampled_from([1, 3, 200]))))),
        usage=draw(USAGES),
        failures=draw(COUNTS),
        losses=draw(COUNTS),
        failure=draw(FAILURES if end == "failed" else st.none() | FAILURES),
        approvals=tuple(draw(st.lists(REQUESTS, max_size=3))) if end == "waiting" else (),
        unknown=draw(st.none() | st.builds(UnknownCall, st.text(), st.text(), JSON, st.text())),
        needs_budget=draw(st.booleans()),
        outcome=outcome,
        output=draw(JSON | st.text(min_size=3000, max_size=6000)) if outcome else None,
    )


@settings(max_examples=150, deadline=None)
@given(facts())
def test_a_word_comes_whole_or_says_that_it_does_not(tmp_path_factory: pytest.TempPathFactory, fact: StepFact) -> None:
    target = tmp_path_factory.getbasetemp() / "termination-log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRUN_TERMINATION_LOG", str(target))
        process._say(fact)
    message = target.read_text()
    assert len(message.encode()) <= 4000
    found = view(ended(0, message))
    assert found.trouble is None
    if len(json.dumps(fact.to_json(), separators=(",", ":"))) <= 4000:
        assert found.fact == fact
    else:
        assert found.fact is None
        assert json.loads(message)["truncated"] is True


@pytest.mark.parametrize("name", ["at", "started"])
def test_a_number_of_any_size_is_no_fact(name: str) -> None:
    """It was an error that nobody caught, in a list that every replica makes: one pod ended all of them."""
    text = json.dumps(FACT.to_json() | {name: 0}).replace(f'"{name}": 0', f'"{name}": 1{"0" * 400}')
    found = view(ended(0, text))
    assert found.fact is None and found.trouble is not None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_word_that_was_tampered_with_is_no_fact_or_a_sound_one(data: st.DataObject) -> None:
    """Whatever a container writes, what the planner gets can be counted, compared and shown."""
    value = FACT.to_json() | {"failures": 1, "failure": FailureInfo(FailureClass.TOOL, "x").to_json()}
    for name in data.draw(
        st.lists(st.sampled_from([*value, "approvals", "unknown", "needs_budget", "else"]), max_size=3)
    ):
        value[name] = data.draw(JSON)
    if data.draw(st.booleans()):
        value["usage"] = Usage().to_json() | {data.draw(st.sampled_from(list(Usage().to_json()))): data.draw(JSON)}
    text = json.dumps(value)
    found = view(ended(0, text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text))
    fact = found.fact
    assert (fact is None) is (found.trouble is not None)
    if fact is not None:
        assert fact.attempt >= 0
        assert fact.active <= 4e300
        assert Usage.total([fact.usage, fact.usage]).cost_usd >= 0
        json.dumps(fact.to_json())


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_any_last_words_are_read(message: str) -> None:
    assert view(ended(1, message)).fact is None


# -- the runner in a pod ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "end", "local", "pod"),
    [
        ({"when": "true"}, "waiting", 3, 0),
        ({"argument": "${inputs.missing}"}, "closed", 0, 1),
    ],
)
def test_a_pod_that_waits_has_not_failed_and_one_whose_step_did_has(
    tmp_path: Path, fields: dict[str, Any], end: str, local: int, pod: int
) -> None:
    approval = {"when": fields.get("when", "false"), "approvers": {"users": ["ana"]}}
    asked = {"name": "t", "approval": approval, "http": {"url": "http://127.0.0.1:1/"}}
    call = {"name": "t", "args": {"a": fields.get("argument", "")}}
    workflow = {"tools": [asked], "steps": [{"name": "refund", "tool": call}]}
    manifest = {
        "v": 1, "name": RUN_PATH.name, "namespace": RUN_PATH.namespace, "uid": RUN_PATH.uid,
        "createdAt": timestamp(time.time()), "requestedBy": "ana", "workflow": workflow, "inputs": {},
    }  # fmt: skip
    codes = []
    for number, log in enumerate([None, tmp_path / "termination-log"]):
        store = FolderStore(tmp_path / f"store-{number}")
        store.create(RUN_PATH.manifest, manifest_bytes(manifest))
        spec = AttemptSpec(store.url, RUN_PATH, start(), leash=False)
        variables = {"AGENTRUN_STEP": spec.to_json()} | ({"AGENTRUN_TERMINATION_LOG": str(log)} if log else {})
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AGENTRUN_")}
        ran = subprocess.run(
            [sys.executable, "-m", "agentrun.runner"],
            env=clean | {"PYTHONPATH": str(Path(process.__file__).parents[2])} | variables,
            check=False,
            capture_output=True,
            text=True,
        )
        codes.append(ran.returncode)
        word = log.read_text() if log else ran.stdout
        found = view(ended(ran.returncode, word))
        assert found.fact is not None, ran.stderr
        assert found.fact.end == end
        assert found.trouble is None
    assert codes == [local, pod]
