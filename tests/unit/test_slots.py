"""A bound on the pods of steps: who may begin, who waits, in which order, and that nobody waits for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentrun.api.keys import StepKey
from agentrun.control.pod_queue import Slots
from agentrun.control.run_state import LEAVE_MARGIN
from agentrun.control.views import PodView, RunRef, RunView
from agentrun.observe.metrics import Metrics
from agentrun.plan.pod_bounds import UNBOUNDED, Bounds, Pods, grants, reserve
from agentrun.plan.snapshot import Start

METRICS = Metrics()
BOUND = st.one_of(st.none(), st.integers(1, 12))
SPACES = "abcd"


# -- the decision ------------------------------------------------------------------------------------------------


PODS = st.builds(Pods, st.integers(0, 4), st.integers(0, 9))


@settings(max_examples=200, deadline=None)
@given(
    bounds=st.builds(Bounds, BOUND, BOUND),
    used=st.dictionaries(st.sampled_from(SPACES), PODS),
    wanted=st.dictionaries(st.sampled_from(SPACES), PODS),
)
def test_places_are_given_to_all_who_fit_in_turns_and_to_nobody_beyond_the_bounds(
    bounds: Bounds, used: dict[str, Pods], wanted: dict[str, Pods]
) -> None:
    found = grants(bounds, used, wanted)
    after: dict[str, Pods] = dict(used)
    for space, count in found.items():
        assert 0 < count <= sum(wanted[space])
        endings = min(count, wanted[space].endings)
        after[space] = used.get(space, Pods()).plus(endings, ending=True).plus(count - endings, ending=False)
    whole = Pods(*(sum(pods[kind] for pods in after.values()) for kind in (0, 1)))
    given_others = sum(max(0, count - wanted[space].endings) for space, count in found.items())
    for bound, there, more, others in (
        (bounds.whole, whole, sum(found.values()), given_others),
        *((bounds.namespace, after[s], n, max(0, n - wanted[s].endings)) for s, n in found.items()),
    ):
        if bound is not None and more:
            assert sum(there) <= bound + reserve(bound) or there.endings <= reserve(bound)
            assert not others or sum(there) <= bound + min(there.endings, reserve(bound))
    for space, want in wanted.items():
        count = found.get(space, 0)
        if count == sum(want):
            continue
        ending = count < want.endings

        def full(bound: int | None, there: Pods, ending: bool = ending) -> bool:
            return bound is not None and sum(there) >= bound and not (ending and there.endings < reserve(bound))

        in_space = full(bounds.namespace, after.get(space, Pods()))
        assert in_space or full(bounds.whole, whole), f"{space} would have fit"
        if not in_space:  # it got no fewer than anybody else whose wish was of the same kind, but for one turn
            rivals = [n for other, n in found.items() if n > wanted[other].endings or ending]
            assert all(n <= count + 1 for n in rivals)


def test_turns_go_round_and_begin_with_the_first() -> None:
    wanted = {"crowd": Pods(0, 5000), "few": Pods(0, 2), "one": Pods(0, 1)}
    assert grants(Bounds(whole=4), {}, wanted) == {"crowd": 2, "few": 1, "one": 1}
    assert grants(Bounds(whole=1), {}, wanted) == {"crowd": 1}
    assert grants(Bounds(namespace=3), {"few": Pods(0, 3)}, wanted) == {"crowd": 3, "one": 1}
    assert grants(UNBOUNDED, {}, wanted) == {"crowd": 5000, "few": 2, "one": 1}


def test_what_ends_a_run_has_a_place_where_no_other_has() -> None:
    used = {"a": Pods(0, 20)}
    assert grants(Bounds(namespace=20), used, {"a": Pods(0, 3)}) == {}
    assert grants(Bounds(namespace=20), used, {"a": Pods(5, 3)}) == {"a": 2}
    assert grants(Bounds(whole=20), used, {"a": Pods(0, 3), "b": Pods(1, 1)}) == {"b": 1}
    assert grants(Bounds(namespace=5), used, {"a": Pods(3, 3)}) == {"a": 1}, "the bound is lower than it was"
    assert grants(Bounds(namespace=5), {"a": Pods(1, 20)}, {"a": Pods(3, 3)}) == {}


# -- the line ----------------------------------------------------------------------------------------------------


def run(name: str, space: str = "a", created: float = 0.0) -> RunView:
    return RunView(RunRef(space, name), f"uid-{space}-{name}", 1, 1, created, None)


def starts(*steps: str, drain: bool = False) -> list[Start]:
    return [Start(StepKey.parse(name), 1, {}, (), None, None, drain=drain) for name in steps]  # type: ignore[arg-type]


def pod(view: RunView, key: StepKey, uid: str = "", **more: Any) -> PodView:
    name = f"{view.ref.name}-{key.label}"
    return PodView(
        name, view.ref.namespace, uid or f"{view.uid}-{name}", 1, view.ref, view.uid, key, 1, "Pending", **more
    )


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Line:
    """Slots with runs that make their pods at once when they are admitted."""

    def __init__(self, bounds: Bounds) -> None:
        self.woken: list[RunRef] = []
        self.clock = Clock()
        self.slots = Slots(bounds, self.woken.append, METRICS, self.clock)

    def visit(self, view: RunView, *steps: str, drain: bool = False) -> tuple[list[PodView], str]:
        """The pods that are made by a visit that wants these, and why not all are."""
        admitted, why = self.slots.admit(view, starts(*steps, drain=drain)) if steps else ([], "")
        made = [pod(view, start.key, drain=start.drain) for start in admitted]
        for one in made:
            self.slots.moved(one, gone=False)
        self.slots.after_visit(view.ref, (), waits=bool(why))
        return made, why

    def end(self, one: PodView) -> list[RunRef]:
        """The pod ends; who is woken by that."""
        self.woken.clear()
        self.slots.moved(replace(one, phase="Ended"), gone=False)
        return list(self.woken)


def test_a_freed_place_wakes_the_oldest_of_the_namespace_whose_turn_it_is() -> None:
    line = Line(Bounds(whole=2))
    first, second = line.visit(run("a1"), "s", "t")[0]
    young, old, other = run("young", created=9), run("old", created=3), run("b1", "b", created=99)
    for waiting in (young, old, other):
        assert line.visit(waiting, "s")[0] == []
    assert line.end(first) == [old.ref]
    assert line.visit(young, "s")[0] == [], "it is visited meanwhile, and the place is the older one's"
    assert line.visit(other, "s")[0] == []
    assert len(line.visit(old, "s")[0]) == 1
    assert line.end(second) == [other.ref], "the namespaces take turns"
    [made] = line.visit(other, "s")[0]
    assert line.end(made) == [young.ref]


def test_a_run_that_wants_no_place_any_more_or_fails_leaves_it_to_the_next() -> None:
    line = Line(Bounds(whole=1))
    [made] = line.visit(run("a"), "s")[0]
    for name in ("b", "c"):
        line.visit(run(name, created=1), "s")
    assert line.end(made) == [RunRef("a", "b")]
    line.woken.clear()
    line.visit(run("b", created=1))  # cancelled, or its visit failed before it asked
    assert line.woken == [RunRef("a", "c")]


def test_a_run_that_waits_on_but_not_as_before_leaves_its_place_to_the_next() -> None:
    """It was to have a place of those for ends, and does not end any more; nobody told who came after it."""
    line = Line(Bounds(whole=2, namespace=1))
    first, second, third = (line.visit(run("p", space), "s", drain=space == "d")[0][0] for space in ("a", "c", "d"))
    line.visit(run("r1"), "s", drain=True)
    line.visit(run("r2", "b"), "s")
    line.end(third)
    assert line.end(second) == [RunRef("a", "r1")] and first.namespace == "a"
    line.woken.clear()
    assert line.visit(run("r1"), "s")[0] == []
    assert line.woken == [RunRef("b", "r2")]


def test_a_pod_that_was_there_already_takes_one_place() -> None:
    """Its answer was lost, or the watch told of it before the answer came, or a former leader had made it."""
    line, view = Line(Bounds(whole=2)), run("a")
    key = StepKey("s")
    admitted, _ = line.slots.admit(view, starts("s"))
    line.slots.moved(pod(view, key), gone=False)  # the watch
    line.slots.moved(pod(view, key), gone=False)  # the answer
    line.slots.after_visit(view.ref, (), waits=False)
    assert len(admitted) == 1 and len(line.visit(run("b"), "s", "t")[0]) == 1
    assert line.visit(run("c"), "s")[0] == []


def test_a_pod_that_was_asked_for_without_an_answer_keeps_its_place_until_somebody_has_looked() -> None:
    line, view = Line(Bounds(whole=1)), run("a")
    line.slots.admit(view, starts("s"))
    line.slots.after_visit(view.ref, {StepKey("s")}, waits=False)
    assert line.visit(run("b", created=-1), "s")[0] == []
    admitted, _ = line.slots.admit(view, starts("s"))
    assert len(admitted) == 1, "it is the run's own place"
    line.woken.clear()
    line.slots.after_visit(view.ref, (), waits=False)
    assert line.woken == [RunRef("a", "b")]


def test_a_pod_whose_answer_was_lost_is_counted_once_when_the_watch_tells_of_it() -> None:
    line, view = Line(Bounds(whole=2)), run("a")
    line.slots.admit(view, starts("s"))
    line.slots.after_visit(view.ref, {StepKey("s")}, waits=False)
    line.slots.moved(pod(view, StepKey("s")), gone=False)
    assert len(line.visit(run("b"), "s")[0]) == 1


def test_a_pod_that_has_ended_takes_no_place_though_it_is_not_swept() -> None:
    line = Line(Bounds(namespace=1))
    line.slots.moved(replace(pod(run("a"), StepKey("s")), phase="Ended"), gone=False)
    assert len(line.visit(run("b"), "s")[0]) == 1


def test_a_pod_on_a_node_that_is_dead_gives_its_place_back() -> None:
    line, view = Line(Bounds(whole=1)), run("a")
    leaving = pod(view, StepKey("s"), grace=30.0)
    line.slots.moved(leaving, gone=False)
    line.visit(run("b"), "s")
    line.clock.now += 30 + LEAVE_MARGIN - 1
    line.slots.look()
    assert line.woken == []
    line.clock.now += 1
    line.slots.look()
    assert line.woken == [RunRef("a", "b")]
    line.slots.moved(replace(leaving, version=9), gone=False)  # its node is heard of once more
    assert len(line.visit(run("b"), "s")[0]) == 1
    line.slots.moved(leaving, gone=True)
    assert line.visit(run("c"), "s")[0] == [], "it had given its place back before"


def test_who_waits_is_told_for_which_bound_and_behind_how_many() -> None:
    line = Line(Bounds(whole=3, namespace=2))
    line.visit(run("a"), "s", "t")
    why = line.visit(run("b", created=1), "s")[1]
    assert why.startswith("the namespace has 2 step pods") and why.endswith(
        "; no run of the namespace ahead of this one"
    )
    assert line.visit(run("c", created=2), "s")[1].endswith("; 1 run of the namespace ahead of this one")
    line.visit(run("x", "b"), "s")
    why = line.visit(run("y", "b"), "s")[1]
    assert why.startswith("the cluster has 3 step pods") and "steps.maxPods)" in why


class LineMachine(RuleBasedStateMachine):
    """Any order of visits, failures, ends and changes of leader against a plain count of what there is."""

    @initialize(whole=BOUND, namespace=BOUND)
    def begin(self, whole: int | None, namespace: int | None) -> None:
        self.bounds = Bounds(whole, namespace)
        self.line = Line(self.bounds)
        self.pods: list[PodView] = []
        self.wants: dict[RunRef, tuple[RunView, tuple[str, ...], bool]] = {}
        self.serial = 0

    @rule(space=st.sampled_from("abc"), number=st.integers(0, 5), count=st.integers(0, 4), drain=st.booleans())
    def a_run_wants_pods(self, space: str, number: int, count: int, drain: bool) -> None:
        view = run(f"r{number}", space, created=float(number % 3))
        self.visit(view, count, drain)

    def visit(self, view: RunView, count: int, drain: bool) -> None:
        self.serial += 1
        keys = tuple(f"s{self.serial}-{n}" for n in range(count))
        before = list(self.pods)
        in_space = [one for one in self.pods if one.namespace == view.ref.namespace]
        made, why = self.line.visit(view, *keys, drain=drain)
        for bound, there in ((self.bounds.whole, before), (self.bounds.namespace, in_space)):
            if bound is not None and made:
                endings = sum(one.drain for one in [*there, *made])
                assert len(there) + len(made) <= bound or (drain and endings <= reserve(bound))
        assert bool(why) == (len(made) < count)
        self.pods += made
        left = keys[len(made) :]
        self.wants.pop(view.ref, None)
        if left:
            self.wants[view.ref] = view, left, drain

    @rule(which=st.integers(0, 50), gone=st.booleans())
    def a_pod_ends(self, which: int, gone: bool) -> None:
        if self.pods:
            one = self.pods.pop(which % len(self.pods))
            self.line.slots.moved(one if gone else replace(one, phase="Ended"), gone=gone)

    @rule(which=st.integers(0, 50))
    def a_visit_fails(self, which: int) -> None:
        if self.wants:
            ref = sorted(self.wants)[which % len(self.wants)]
            self.line.slots.after_visit(ref, (), waits=False)
            del self.wants[ref]

    @rule()
    def another_one_leads(self) -> None:
        self.line.slots.rest()
        self.line.woken.clear()
        self.wants.clear()

    @rule()
    def those_who_were_woken_are_visited(self) -> None:
        woken, self.line.woken[:] = sorted(set(self.line.woken)), []
        for ref in woken:
            if ref in self.wants:
                view, keys, drain = self.wants[ref]
                self.visit(view, len(keys), drain)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Where there is a place for somebody in line, somebody in that line was woken for it."""
        if not hasattr(self, "line"):
            return
        wanted: dict[str, Pods] = {}
        for ref, (_, keys, drain) in self.wants.items():
            wanted[ref.namespace] = wanted.get(ref.namespace, Pods()).plus(len(keys), ending=drain)
        used: dict[str, Pods] = {}
        for one in self.pods:
            used[one.namespace] = used.get(one.namespace, Pods()).plus(1, ending=one.drain)
        free = grants(self.bounds, used, wanted)
        if free:
            assert self.line.woken, f"places are free for {free}, and nobody was woken"


TestLine = LineMachine.TestCase
TestLine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
