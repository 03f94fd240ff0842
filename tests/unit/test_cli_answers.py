"""What the command line makes of the operator's answer to an AgentCommand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentrun.api.command import accepted
from agentrun.api.errors import Refused
from agentrun.cli.failures import OutOfReach
from agentrun.cli.on_cluster import commands
from agentrun.cli.on_cluster.client import Client
from agentrun.cli.on_cluster.cluster_run import ClusterRun
from agentrun.cli.on_cluster.commands import command
from agentrun.kube.errors import Forbidden, NotFound, Unavailable

RUN = ClusterRun({"metadata": {"name": "r", "namespace": "n", "uid": "u"}, "spec": {}, "status": {}})
OPEN: dict[str, Any] = {}
RECORDED = {"status": {"conditions": [{"type": "Other"}, accepted("", 0.0)]}}
REJECTED = {"status": {"conditions": [accepted("there is nothing to resolve", 0.0)]}}


class Answering(Client):
    """An API server that gives these answers when it is asked for the command, one after the other."""

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__(None, None)
        self.answers = list(answers)
        self.asked: list[str] = []

    def user(self) -> str:
        return "ana"

    def create(self, path: str, body: Mapping[str, Any], *, dry: bool = False) -> dict[str, Any]:
        return {**body, "metadata": {"name": "r-x"}}

    def get(self, path: str, **query: str) -> dict[str, Any]:
        self.asked.append(path)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "POLL", 0.0)


def test_it_waits_for_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    client = Answering(OPEN, OPEN, RECORDED)
    command(client, RUN, {"resume": {}})
    assert len(client.asked) == 3 and capsys.readouterr().err == ""


def test_a_rejected_command_is_told_where_the_person_may_not_read_events() -> None:
    """It looked like an accepted one: the rejection was in an Event alone."""
    client = Answering(OPEN, REJECTED)
    with pytest.raises(Refused, match="run r rejects the command: there is nothing to resolve"):
        command(client, RUN, {"resume": {}})
    assert not any("events" in path for path in client.asked)


def test_without_an_operator_the_command_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.0)
    with pytest.raises(OutOfReach, match="no operator has answered AgentCommand r-x"):
        command(Answering(OPEN), RUN, {"resume": {}})


@pytest.mark.parametrize("error", [Forbidden("ana may not get agentcommands"), Unavailable("no answer")], ids=str)
def test_an_answer_that_cannot_be_read_is_no_success(error: Exception) -> None:
    with pytest.raises(
        OutOfReach, match=f"AgentCommand r-x was created, but .* it is not known whether run r accepts it: {error}"
    ):
        command(Answering(OPEN, error), RUN, {"resume": {}})


def test_of_a_command_that_is_gone_nothing_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator of an earlier version deletes it at once, recorded or rejected."""
    command(Answering(OPEN, NotFound("gone")), RUN, {"resume": {}})
    assert "left no answer" in capsys.readouterr().err
