"""What the operator answers a command in its status, and how long the command stays with its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentrun.adapters.cluster_api import KubernetesCluster
from agentrun.adapters.objects import command_view
from agentrun.api.canonical import timestamp
from agentrun.api.command import ANSWER_MAX, accepted
from agentrun.control import answers
from agentrun.control.answers import KEPT_FOR
from agentrun.control.controller import TIDY
from agentrun.kube.client import Kube
from agentrun.kube.credentials import Kubeconfig
from agentrun.kube.errors import ClusterError, Conflict, Forbidden, Invalid, NotFound
from tests.harness.cluster_world import ClusterWorld, Operator, lost
from tests.harness.operator_ports import METRICS
from tests.harness.operator_steps import Calls, begin, quietly, workflow
from tests.harness.planner_world import step

WAIT = {"name": "w", "wait": {"signal": "s"}}
HOUR = {"name": "p", "wait": {"duration": "1h"}}


def signal(world: ClusterWorld, run: str = "r") -> str:
    return world.api.command(run, signal={"name": "other"})


def signals(world: ClusterWorld) -> int:
    return sum(world.kinds(run).count("signalled") for run in world.api.all("runs"))


def refusals(world: ClusterWorld) -> list[str]:
    return [message for reason, message in world.api.events if reason == "CommandRefused"]


# -- the answer --------------------------------------------------------------------------------------------------------


def test_a_command_that_is_recorded_says_so_and_stays_a_while(world: ClusterWorld) -> None:
    operator = begin(world, HOUR)
    name = signal(world)
    quietly(world, operator, 1)
    (condition,) = world.api.objects["commands"][name]["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Accepted", "True", "Recorded")
    quietly(world, operator, KEPT_FOR - 5)
    assert world.api.answers() == {name: "Recorded"}
    quietly(world, operator, 5 + 2 * TIDY)
    assert not world.api.objects["commands"] and not len(operator.cache.commands)
    assert signals(world) == 1


def test_a_command_that_is_rejected_says_why_also_where_nobody_may_read_events(world: ClusterWorld) -> None:
    operator = begin(world, HOUR)
    name = world.api.command("r", resolve={"step": "p", "retry": True})
    quietly(world, operator, 1)
    (condition,) = world.api.objects["commands"][name]["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "Rejected")
    assert "nothing to resolve" in condition["message"]
    assert refusals(world) == [f"{name}: {condition['message']}"]


def test_a_message_is_bounded() -> None:
    assert len(accepted("y" * 5000, 0.0)["message"]) == ANSWER_MAX
    assert accepted("a\x1b[31m", 0.0)["message"].isprintable()


def test_a_command_that_comes_as_the_run_ends_is_not_said_to_be_recorded(world: ClusterWorld) -> None:
    """The journal has the end, and the status does not yet."""
    names: list[str] = []

    def hook(operator: Operator, side: str, what: str) -> None:
        run = world.api.all("runs")[0]
        if what == "patch_status" and side == "before" and world.kinds(run)[-1] == "ended" and not names:
            names.append(signal(world))
            while operator.behind("commands"):
                operator.hear("commands")
            lost(operator, what)

    operator = begin(world, WAIT)
    world.hook = hook
    world.api.command("r", signal={"name": "s"})
    quietly(world, operator, 5)
    assert world.status()["phase"] == "Succeeded"
    assert world.api.answers()[names[0]] == "Rejected" and signals(world) == 1
    assert refusals(world) == [f"{names[0]}: the run has ended"]


def test_a_command_whose_labels_change_meanwhile_is_answered_in_the_same_visit(world: ClusterWorld) -> None:
    operator = begin(world, WAIT)
    calls: list[str] = []

    def hook(operator: Operator, side: str, what: str) -> None:
        if side == "before":
            calls.append(what)
            if what == "answer_command" and calls.count(what) == 1:
                (name,) = world.api.objects["commands"]
                obj = world.api.objects["commands"][name]
                world.api.write("commands", name, obj | {"metadata": obj["metadata"] | {"labels": {"a": "b"}}})

    world.hook = hook
    world.api.command("r", signal={"name": "s"})
    while operator.behind("commands"):
        operator.hear("commands")
    world.settle()
    assert list(world.api.answers().values()) == ["Recorded"]
    assert world.status()["phase"] == "Succeeded"
    assert calls.count("answer_command") == 2 and calls.count("get_run") == 0


@pytest.mark.parametrize("side", ["before", "after"])
def test_an_answer_that_is_lost_is_given_once(world: ClusterWorld, side: str) -> None:
    operator = begin(world, HOUR)
    failed: list[str] = []

    def hook(operator: Operator, at: str, what: str) -> None:
        if what == "answer_command" and at == side and len(failed) < 2:
            failed.append(what)
            lost(operator, what)

    world.hook = hook
    name = signal(world)
    while operator.behind("commands"):
        operator.hear("commands")
    world.wait(10)
    assert failed and world.api.answers() == {name: "Recorded"} and signals(world) == 1


# -- another leader ----------------------------------------------------------------------------------------------------


def killed_before_its_answer(world: ClusterWorld, operator: Operator) -> None:
    """The leader records a command, and dies before the answer."""

    def hook(operator: Operator, side: str, what: str) -> None:
        if what == "answer_command" and side == "before":
            operator.kill()
            raise asyncio.CancelledError

    world.hook = hook
    operator.hear_all()
    world.wait(1)
    assert operator.dead
    world.hook = lambda *_: None


def test_what_a_leader_recorded_and_did_not_answer_the_next_one_answers(world: ClusterWorld) -> None:
    operator = begin(world, HOUR)
    name = signal(world)
    killed_before_its_answer(world, operator)
    assert signals(world) == 1 and world.api.answers() == {name: ""}
    quietly(world, world.operator(), 1)
    assert world.api.answers() == {name: "Recorded"}
    assert signals(world) == 1 and not refusals(world)


def test_a_resolve_that_a_leader_recorded_is_not_refused_by_the_next_one(world: ClusterWorld) -> None:
    operator = begin(world, step("a"))
    operator.hear_all()
    for _ in range(3):  # taken by a node, opened, its intent
        world.advance(world.pods()[0])
    world.end(world.pods()[0], word=False)
    quietly(world, operator, 2)
    world.run_pods()
    quietly(world, operator, 2)
    assert world.status()["steps"][0]["state"] == "OutcomeUnknown"
    name = world.api.command("r", resolve={"step": "a", "retry": True})
    killed_before_its_answer(world, operator)
    operator = world.operator()
    for _ in range(3):
        quietly(world, operator, 1)
        world.run_pods()
    assert world.api.answers() == {name: "Recorded"} and not refusals(world)
    assert world.status()["phase"] == "Succeeded"


def test_the_time_of_an_answered_command_goes_on_under_another_leader(world: ClusterWorld) -> None:
    operator = begin(world, HOUR)
    signal(world)
    quietly(world, operator, KEPT_FOR / 2)
    operator.kill()
    operator = world.operator()
    quietly(world, operator, KEPT_FOR / 2 + 2 * TIDY)
    assert not world.api.objects["commands"]


# -- what answered commands cost ---------------------------------------------------------------------------------------


def test_an_answered_command_causes_no_visit(world: ClusterWorld) -> None:
    operator = begin(world, {"name": "p", "wait": {"duration": "10h"}})
    name = signal(world)
    while operator.behind("commands"):
        operator.hear("commands")
    world.wait(5)
    quietly(world, operator, 5)
    visits = METRICS.results.total()
    for n in range(3):
        obj = world.api.objects["commands"][name]
        world.api.write("commands", name, obj | {"metadata": obj["metadata"] | {"labels": {"n": str(n)}}})
        quietly(world, operator, 1)
    quietly(world, operator, 2 * KEPT_FOR)
    assert not world.api.objects["commands"]
    assert METRICS.results.total() == visits


def test_a_flood_of_commands_does_not_pile_up(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs side by side: the newest answers of the namespace stay."""
    monkeypatch.setattr(answers, "KEPT", 3)
    operator = begin(world, HOUR)
    world.api.apply_run("q", {"workflow": workflow(HOUR)})
    quietly(world, operator, 2)
    for _ in range(20):
        signal(world, "r"), signal(world, "q")
    most = 0

    def hook(operator: Operator, side: str, what: str) -> None:
        nonlocal most
        most = max(most, sum(bool(answer) for answer in world.api.answers().values()))

    world.hook = hook
    quietly(world, operator, 4)
    assert list(world.api.answers().values()) == ["Recorded"] * 3
    assert len(operator.cache.commands) == 3 and signals(world) == 40
    assert most <= 3 + 2, "each of two visits may have one on its way"


def test_a_deletion_that_fails_brings_no_flood(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT", 3)
    operator = begin(world, {"name": "p", "wait": {"duration": "10h"}})

    def hook(operator: Operator, side: str, what: str) -> None:
        if what == "delete_command" and side == "before":
            lost(operator, what)

    world.hook = hook
    for _ in range(6):
        signal(world)
    quietly(world, operator, 60)
    world.hook = lambda *_: None
    quietly(world, operator, 400)  # a complete list finds those that left the cache
    signal(world)
    quietly(world, operator, 4)
    assert len(world.api.answers()) == 3 and signals(world) == 7


def test_a_command_that_a_finalizer_keeps_is_left_alone(world: ClusterWorld) -> None:
    operator = begin(world, HOUR)
    kept, late = signal(world), signal(world)

    def deleted(name: str) -> None:
        obj = world.api.objects["commands"][name]
        meta = obj["metadata"] | {"deletionTimestamp": timestamp(world.now)}
        world.api.write("commands", name, obj | {"metadata": meta})

    deleted(late)  # its author takes it back before the operator sees it
    quietly(world, operator, 1)
    deleted(kept)
    calls = Calls(world)
    quietly(world, operator, 2 * KEPT_FOR)
    assert world.api.answers() == {kept: "Recorded", late: ""} and signals(world) == 1
    assert calls.count("delete_command") == 0


COMMAND: dict[str, Any] = {
    "metadata": {
        "name": "c",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": timestamp(0.0),
    },
    "spec": {"run": {"name": "r"}, "signal": {"name": "s", "payload": "x"}},
}


def test_of_an_answered_command_nothing_of_its_content_is_kept() -> None:
    assert command_view(COMMAND).command is not None and command_view(COMMAND).open
    answered = COMMAND | {"status": {"conditions": [accepted("", 5.0)]}}
    view = command_view(answered)
    assert (view.command, view.problem, view.answered, view.open) == (None, "", 5.0, False)
    answered["status"]["conditions"][0]["lastTransitionTime"] = 7
    assert command_view(answered).answered == 0.0
    assert command_view(COMMAND | {"status": {"conditions": "no"}}).open


@pytest.mark.parametrize(("payload", "large"), [("y" * 70_000, False), ("y" * 1_000_000, True), ([0] * 60_000, True)])
def test_only_an_invalid_command_counts_as_large(payload: Any, large: bool) -> None:
    """A valid one is bounded by its payload, and gets a status."""
    spec = {"run": {"name": "r"}, "signal": {"name": "s", "payload": payload}}
    view = command_view(COMMAND | {"spec": spec})
    assert view.problem and view.large is large
    fits = command_view(COMMAND | {"spec": spec | {"signal": {"name": "s", "payload": [[]] * 16_000}}})
    assert not fits.problem and not fits.large


# -- the API server takes no status ------------------------------------------------------------------------------------


class Refusing(Kube):
    """Answers every patch with an error."""

    def __init__(self, error: ClusterError) -> None:
        super().__init__(Kubeconfig(None))
        self.error = error
        self.deleted: list[tuple[str, str | None]] = []

    async def patch(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise self.error

    async def delete(self, path: str, uid: str | None = None, grace: int | None = None) -> None:
        self.deleted.append((path, uid))


VIEW = command_view(COMMAND)


@pytest.mark.parametrize("error", [NotFound("no status"), Invalid("too large"), Forbidden("a webhook")], ids=str)
async def test_a_command_that_can_have_no_status_is_deleted(error: ClusterError) -> None:
    """The CRD is of an earlier version, or the object has no room, or somebody's webhook refuses it."""
    kube = Refusing(error)
    assert await KubernetesCluster(kube, lambda *_: {}, instance="x").answer_command(VIEW, "", 0.0) is None
    assert kube.deleted == [("/apis/agentrun.dev/v1alpha1/namespaces/n/agentcommands/c", "u")]


async def test_a_command_that_has_changed_is_not_deleted() -> None:
    kube = Refusing(Conflict("changed"))
    with pytest.raises(Conflict):
        await KubernetesCluster(kube, lambda *_: {}, instance="x").answer_command(VIEW, "", 0.0)
    assert not kube.deleted
