"""The operator's client and the command line's, asked the same over HTTP: an answer means the same to both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrun.cli.on_cluster import client as by_hand
from agentrun.cli.on_cluster.client import Client
from agentrun.kube import client as on_a_loop
from agentrun.kube.client import Kube
from agentrun.kube.credentials import Access
from agentrun.kube.errors import (
    AlreadyExists,
    BadRequest,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from agentrun.kube.retry import RetryPolicy
from tests.harness.loopback import Answer, cut, loopback, reply

RUNS = "/apis/agentrun.dev/v1alpha1/namespaces/team/agentruns"
RUN = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentRun", "metadata": {"name": "r"}}

Create = Callable[[str, Path], Awaitable[dict[str, Any]]]


class Here:
    """A login with a token."""

    def __init__(self, server: str) -> None:
        self.access = Access(server, "team", token="t")

    def read(self, *, anew: bool = False) -> Access:
        return self.access


async def by_the_operator(server: str, folder: Path) -> dict[str, Any]:
    async with Kube(Here(server)) as kube:
        return await kube.create(RUNS, RUN)


async def by_the_command_line(server: str, folder: Path) -> dict[str, Any]:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(kubeconfig))

    def create() -> dict[str, Any]:
        with closing(Client(str(path), "here")) as client:
            return client.create(RUNS, RUN)

    return await asyncio.to_thread(create)


@pytest.fixture(params=[by_the_operator, by_the_command_line], ids=["operator", "command-line"])
def create(request: pytest.FixtureRequest) -> Create:
    found: Create = request.param
    return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same policies without pauses."""
    for module in (on_a_loop, by_hand):
        old = module.RETRIES
        monkeypatch.setattr(module, "RETRIES", RetryPolicy((0.0,) * len(old.pauses), old.patience, old.unanswered))


def status(code: int, reason: str = "", retry_after: str = "", **details: Any) -> Answer:
    body = {"kind": "Status", "code": code, "reason": reason, "message": "no", "details": {"name": "r", **details}}
    return reply(body, code, retry_after=retry_after)


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        (status(400), BadRequest, 1),
        (status(401), Unauthorized, 2),
        (status(403), Forbidden, 1),
        (status(404), NotFound, 1),
        (status(409), Conflict, 1),
        (status(409, "AlreadyExists"), AlreadyExists, 1),
        (status(422), Invalid, 1),
        (status(429, retry_after="600"), Unavailable, 1),
        (status(429), Unavailable, 4),
        (status(500), Unavailable, 1),
        (status(503), Unavailable, 1),
        (status(504), TooSlow, 1),
    ],
)
async def test_an_answer_means_the_same_to_both(
    create: Create, tmp_path: Path, answer: Answer, kind: type[ClusterError], requests: int
) -> None:
    async with loopback() as server:
        server.then(answer)
        with pytest.raises(ClusterError) as error:
            await create(server.url, tmp_path)
        assert type(error.value) is kind and len(server.received) == requests


@pytest.mark.parametrize("first", [status(401), status(429), status(429, retry_after="0")])
async def test_what_was_not_done_is_asked_again(create: Create, tmp_path: Path, first: Answer) -> None:
    async with loopback() as server:
        server.then(first, reply(RUN, 201))
        assert await create(server.url, tmp_path) == RUN
        assert len(server.received) == 2


@pytest.mark.parametrize(("create", "requests"), [(by_the_operator, 4), (by_the_command_line, 1)])
async def test_only_the_operator_asks_again_after_a_lost_answer(create: Create, tmp_path: Path, requests: int) -> None:
    """Its names follow from what they are for. A person is told that the request may have been carried out."""
    async with loopback() as server:
        server.then(cut())
        with pytest.raises(Unavailable, match=r"no connection to|the request may have been carried out"):
            await create(server.url, tmp_path)
        assert len(server.received) == requests
