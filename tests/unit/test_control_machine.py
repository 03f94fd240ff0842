"""The operator in a cluster where everything goes wrong: late, doubled and lost events, lost answers, killed pods and
operators, people who change their mind. Whatever the order, each run ends once, and as docs/contract.md says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agentrun.api.canonical import moment
from agentrun.journal.log import read_step
from agentrun.journal.runs import read_facts
from agentrun.kube.errors import Unavailable
from agentrun.plan.pod_bounds import UNBOUNDED, Bounds
from tests.harness.cluster_world import ClusterWorld, Operator, lost, steps_of
from tests.harness.kube_api import KINDS
from tests.harness.operator_ports import METRICS
from tests.harness.planner_world import CALL, MODEL, TOOL, approval, step
from tests.harness.virtual_time import VirtualLoop

RETRY = {"limit": 1, "backoff": {"initial": "1s"}}
ITEMS = {"items": [0, 1, 2], "maxParallel": 2}

WORKFLOWS: dict[str, dict[str, Any]] = {
    "one step": {"steps": [step("a")]},
    "chain": {"steps": [step("a", retry=RETRY), step("b", "a")], "finally": [step("z")]},
    "fan-out": {"steps": [step("a", forEach=ITEMS, retry=RETRY), step("b", "a")]},
    "approval": {"steps": [step("a"), approval("ok", "a"), step("b", "ok")], "finally": [step("z")]},
    "two people": {"steps": [approval("ok", required=2), step("b", "ok")]},
    "signal": {"steps": [{"name": "w", "wait": {"signal": "s"}}, step("b", "w")]},
    "compensated": {"steps": [step("a", compensate=CALL), step("b", "a", retry=RETRY)], "finally": [step("z")]},
}
HOW = ["succeed", "succeed", "fail", "ask", "budget"]

# What happens inside of a visit, at one of its calls.
NOTHING, DELIVER, LOSE_ANSWER, REFUSE_CALL, POD_MOVES, POD_DIES, PERSON = range(7)
MISHAPS = st.lists(
    st.sampled_from([NOTHING] * 4 + [DELIVER, LOSE_ANSWER, REFUSE_CALL, POD_MOVES, POD_DIES, PERSON]), max_size=12
)


class OperatorMachine(RuleBasedStateMachine):
    """Rules are what may happen at any time; ``teardown`` lets everybody be kind, and the run has to end."""

    @initialize(
        name=st.sampled_from(sorted(WORKFLOWS)),
        suspend=st.booleans(),
        budget=st.sampled_from([None, 20]),
        skew=st.sampled_from([0.0, 0.0, 300.0, -300.0]),
        bounds=st.sampled_from([UNBOUNDED, Bounds(whole=1), Bounds(namespace=1), Bounds(5, 2)]),
    )
    def begin(self, name: str, suspend: bool, budget: int | None, skew: float, bounds: Bounds) -> None:
        self.failed_before = METRICS.results["error"]
        self.world = ClusterWorld(VirtualLoop(), bounds=bounds)
        self.world.skew = skew
        self.mishaps: list[int] = []
        self.stopped: Operator | None = None
        """A former leader that was stopped in the middle of a visit, with a cache that is as old."""
        self.decided: list[tuple[str, str, str, float]] = []
        """What was decided, in order: the digest, by whom, how and when."""
        spec = {"workflow": {"tools": [TOOL], "models": [MODEL], **WORKFLOWS[name]}, "suspend": suspend}
        self.run_view = self.world.api.apply_run("r", spec | ({"budget": {"toolCalls": budget}} if budget else {}))
        self.operator = self.world.operator()
        self.world.hook = self.disturb
        self.world.settle()

    # -- inside of visits -------------------------------------------------------------------------------------------

    def disturb(self, operator: Operator, side: str, what: str) -> None:
        mishap = self.mishaps.pop() if self.mishaps else NOTHING
        if mishap == DELIVER:
            for kind in KINDS:
                operator.hear(kind)
        elif mishap == LOSE_ANSWER and side == "after":
            lost(operator, what)
        elif mishap == REFUSE_CALL and side == "before" and not what.startswith("store"):
            raise Unavailable(f"{what}: 429", 1.0)
        elif mishap == POD_MOVES:
            for pod in self.world.pods()[:1]:
                self.world.advance(pod)
        elif mishap == POD_DIES:
            for pod in self.world.pods()[:1]:
                self.world.end(pod, word=False)
        elif mishap == PERSON:
            self.decide("Approved", 0)

    def decide(self, decision: str, who: int) -> None:
        for view in self.world.api.all("approvals"):
            by = ("ben", "cleo")[who]
            if self.world.api.decide(view.name, by, decision):
                self.decided.append((view.digest, by, decision, self.world.now))

    # -- what happens -----------------------------------------------------------------------------------------------

    @rule(mishaps=MISHAPS, seconds=st.sampled_from([0.02, 0.02, 0.02, 1.5, 20.0, 700.0]))
    def time_passes(self, mishaps: list[int], seconds: float) -> None:
        self.mishaps = mishaps
        self.world.wait(seconds)

    @rule(but=st.sampled_from([None, None, *KINDS]), rounds=st.integers(1, 4))
    def all_goes_well_for_a_while(self, but: str | None, rounds: int) -> None:
        """One kind of watch may be late meanwhile."""
        for _ in range(rounds):
            for kind in KINDS:
                while kind != but and self.operator.behind(kind):
                    self.operator.hear(kind)
            self.world.settle()
            self.world.run_pods(rounds=5)

    @rule(kind=st.sampled_from(KINDS), how=st.sampled_from(["once", "once", "twice", "lost"]), mishaps=MISHAPS)
    def an_event_comes(self, kind: Any, how: str, mishaps: list[int]) -> None:
        self.mishaps = mishaps
        self.operator.hear(kind, twice=how == "twice", lost=how == "lost")
        self.world.settle()

    @rule(mishaps=MISHAPS)
    def all_events_come(self, mishaps: list[int]) -> None:
        self.mishaps = mishaps
        self.operator.hear_all()
        self.world.settle()

    @precondition(lambda self: self.world.pods())
    @rule(which=st.integers(0, 5), how=st.sampled_from(HOW), moves=st.integers(1, 5))
    def a_pod_gets_on(self, which: int, how: str, moves: int) -> None:
        name = self.world.pods()[which % len(self.world.pods())].name
        for _ in range(moves):
            for pod in self.world.pods():
                if pod.name == name:
                    self.world.advance(pod, how)

    @precondition(lambda self: self.world.pods())
    @rule(which=st.integers(0, 5), how=st.sampled_from(["killed", "deleted", "vanished"]))
    def a_pod_dies(self, which: int, how: str) -> None:
        pod = self.world.pods()[which % len(self.world.pods())]
        if how == "killed":
            self.world.end(pod, word=False)
        elif how == "deleted":
            self.world.api.delete_pod(pod)
        else:
            self.world.vanish(pod)

    @rule()
    def ended_pods_are_removed(self) -> None:
        self.world.api.sweep()

    @rule(decision=st.sampled_from(["Approved", "Approved", "Rejected"]), who=st.integers(0, 1))
    def people_decide(self, decision: str, who: int) -> None:
        self.decide(decision, who)

    @rule(what=st.sampled_from(["suspend", "resume", "cancel", "signal", "resolve", "go on", "lose an approval"]))
    def people_interfere(self, what: str) -> None:
        api = self.world.api
        if what in ("suspend", "resume"):
            api.edit_run("r", suspend=what == "suspend")
        elif what == "cancel":
            api.edit_run("r", cancel=True)
        elif what == "signal":
            api.command("r", signal={"name": "s", "payload": 1})
        elif what == "resolve":
            self.world.answer("Approved", "happened")
        elif what == "go on":
            api.command("r", resume={})
        else:
            for view in api.all("approvals")[:1]:
                if not view.decisions:
                    api.remove("approvals", view.name)

    @rule(refused=st.booleans())
    def pods_are_refused(self, refused: bool) -> None:
        self.world.api.refuse = "quota" if refused else None

    @rule()
    def another_one_leads(self) -> None:
        """The leader dies, and all that it remembers with it."""
        self.operator.kill()
        self.operator = self.world.operator()
        self.world.settle()

    @precondition(lambda self: self.stopped is None)
    @rule(at=st.integers(0, 12))
    def the_leader_is_stopped_and_another_one_leads(self, at: int) -> None:
        """SIGSTOP at one of its next calls: right after its guard was asked, so that this one call comes too late."""
        self.world.alone = False
        old, countdown = self.operator, [at]

        def stop(operator: Operator, side: str, what: str) -> None:
            if operator is old and side == "before":
                countdown[0] -= 1
                if countdown[0] <= 0:
                    old.running.clear()

        self.world.hook = stop
        old.hear_all()
        self.world.settle()
        old.running.clear()
        self.world.hook = self.disturb
        old.leads = False
        self.stopped = old
        self.operator = self.world.operator()
        self.world.settle()

    @precondition(lambda self: self.stopped is not None)
    @rule()
    def the_stopped_one_goes_on(self) -> None:
        assert self.stopped is not None
        self.stopped.running.set()
        self.world.settle()
        self.stopped.kill()
        self.stopped = None

    # -- the end ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.mishaps = []
            if self.stopped is not None:
                self.the_stopped_one_goes_on()
            self.world.finish(self.operator)
            self.look_back()
        finally:
            self.world.close()
            self.world.loop.close()
        assert METRICS.results["error"] == self.failed_before, "a visit failed: see the log"

    def look_back(self) -> None:
        world, run = self.world, self.run_view
        records = world.records(run)
        kinds = Counter(str(r.kind) for r in records)
        assert kinds["ended"] == 1 and records[-1].kind == "ended"
        status = world.status()
        assert status["phase"] == records[-1].body["outcome"]
        for kind in ("settled", "approvalRequested", "waitStarted"):
            about = Counter(r.body["step"] for r in records if r.kind == kind)
            assert not about or max(about.values()) == 1, f"{kind} twice: {about}"
        said = Counter((r.body["digest"], r.body["by"]) for r in records if r.kind == "decided")
        assert not said or max(said.values()) == 1
        self.each_question_ended_as_its_step_did(dict(steps_of(status)))
        self.nothing_is_decided_in_vain(said, records[-1].at)
        assert not self.operator.reconciler.live
        retries = Counter(r.body["step"] for r in records if r.kind == "resolved" and r.body["answer"] == "retry")
        for path, count in world.ledger.items():
            assert count <= 1 + retries[path], f"{path} happened {count} times"
        self.each_step_is_closed_once(records[-1].body["heads"])
        assert all(state in ("Succeeded", "Failed", "Skipped", "Cancelled") for _, state in steps_of(status))
        self.a_fresh_look_shows_the_same()

    def each_question_ended_as_its_step_did(self, states: dict[str, str]) -> None:
        for name, obj in self.world.api.objects["approvals"].items():
            [condition] = obj.get("status", {}).get("conditions") or [None]
            assert condition is not None, f"{name} is not settled"
            if "callId" in obj["spec"]:
                continue
            may = {"Approved": ["Succeeded"], "Rejected": ["Failed"], "Expired": ["Failed"], "Cancelled": ["Cancelled"]}
            state = states[obj["spec"]["step"]]
            assert state in may[condition["reason"]], f"{name} was {condition['reason']}, and its step {state}"

    def nothing_is_decided_in_vain(self, said: Counter[tuple[str, str]], ended: float) -> None:
        """What the API server took on an open question is in the journal, unless the run had ended by then, or the
        question was none any more: a cancellation was being recorded, or the decision before this one had settled it.
        """
        for view in self.world.api.all("approvals"):
            [condition] = self.world.api.objects["approvals"][view.name]["status"]["conditions"]
            approvals = 0
            for by, decision, at in (d[1:] for d in self.decided if d[0] == view.digest):
                if condition["reason"] == "Cancelled" or approvals >= view.required:
                    break
                if any(d.by == by for d in view.decisions) and at < ended:
                    assert said[view.digest, by] == 1, f"the decision of {by} on {view.name} is lost"
                approvals += view.required if decision == "Rejected" else 1

    def each_step_is_closed_once(self, heads: dict[str, list[Any]]) -> None:
        path = self.world.path(self.run_view)
        for key, fact in read_facts(self.world.store, path).items():
            records = read_step(self.world.store, path, key, whole=True)
            kinds = [str(r.kind) for r in records]
            assert kinds.count("closed") <= 1 and (kinds.count("closed") == 0 or kinds[-1] == "closed")
            opened = [r.attempt for r in records if r.kind == "opened"]
            assert opened == sorted(set(opened)), f"{key.path}: attempts {opened}"
            assert heads[key.path] == [fact.seq, fact.head], f"{key.path} went on after the end"

    def a_fresh_look_shows_the_same(self) -> None:
        before = self.world.status()
        obj = self.world.api.objects["runs"]["r"]
        self.world.api.write("runs", "r", {**obj, "status": {}})
        self.operator.kill()
        self.operator = self.world.operator()
        self.world.wait(3.0)
        after = self.world.status()
        if not self.world.skew:  # when a step ended by a clock that is ahead is known only when its end is heard of
            assert _timeless(before) == _timeless(after)
        assert moment(after["completionTime"]) == moment(before["completionTime"])


_OF_THE_WRITE = ("lastTransitionTime", "observedGeneration")


def _timeless(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [{k: v for k, v in c.items() if k not in _OF_THE_WRITE} for c in status["conditions"]]
    return {**status, "observedGeneration": 0, "conditions": conditions}


TestOperator = OperatorMachine.TestCase
TestOperator.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
