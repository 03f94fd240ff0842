"""No request of a run goes to a link-local address or to a cloud's credentials, however the address is given."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument
from agentrun.api.workflow import Model, WorkflowSpec
from agentrun.runner.failures import Failure
from agentrun.runner.guarded_network import ADDRESSES_MAX, Forbidden, GuardedNetwork
from agentrun.runner.models import Request, open_model
from agentrun.workflow.lint import checked_program
from agentrun.workflow.network_guard import GUARDED, forbidden_url, guarded
from tests.harness.model_bench import KEY
from tests.harness.tool_bench import ToolBench, tool_bench

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fe80::1",
    "fe80::1%eth0",
    "[fe80::a9fe:a9fe]",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::",
]
OTHERS = ["10.0.0.1", "127.0.0.1", "::1", "8.8.8.8", "169.253.255.255", "169.255.0.0", "fd00::1", "2001:db8::1"]
NAMES = ["example.com", "169.254.example.com", "metadata", "fe80", "1.2.3", "", "a:b", "999.1.1.1"]
KEY_REF = {"secretRef": {"name": "model", "key": "key"}}
SPELLED = ["2852039166", "0xa9fea9fe", "169.254.43518", "169.16689662"]
"""The address of the metadata service, as the C library reads it."""


@pytest.mark.parametrize("address", METADATA)
def test_a_guarded_address_is_known_in_every_form(address: str) -> None:
    assert guarded(address) in GUARDED.values()


@pytest.mark.parametrize("text", [*OTHERS, *NAMES])
def test_no_other_address_is_guarded_and_no_name(text: str) -> None:
    assert guarded(text) is None


@given(st.text(max_size=60) | st.ip_addresses().map(str))
def test_any_text_can_be_looked_at(text: str) -> None:
    guarded(text)
    forbidden_url(f"http://{text}/")
    forbidden_url(text)


@pytest.mark.parametrize("address", [one for one in METADATA if "%" not in one])
def test_a_workflow_that_names_one_is_refused_before_its_run(address: str) -> None:
    host = f"[{address.strip('[]')}]" if ":" in address else address
    workflow = {
        "models": [{"name": "m", "model": "m", "endpoint": f"http://{host}/v1"}],
        "tools": [{"name": "t", "http": {"url": f"http://{host}:8080/latest/${{args.path}}"}}],
        "steps": [{"name": "a", "tool": {"name": "t", "args": {"path": "x"}}}],
    }
    with pytest.raises(InvalidDocument) as caught:
        checked_program(WorkflowSpec.model_validate(workflow))
    said = {".".join(map(str, problem.path)): problem.message for problem in caught.value.problems}
    assert said.keys() == {"spec.models.0.endpoint", "spec.tools.0.http"}
    assert all(message.endswith(": no request of a run goes there") for message in said.values())


# -- connections -----------------------------------------------------------------------------------------------------


class Dialled(httpcore2.AsyncNetworkBackend):
    """Records what it is asked to connect to. Addresses of ``dead`` refuse."""

    def __init__(self, *dead: str) -> None:
        self.dead = dead
        self.asked: list[tuple[str, float | None]] = []

    async def connect_tcp(self, host: str, port: int, timeout: Any = None, *_: Any) -> Any:  # noqa: ASYNC109
        self.asked.append((host, timeout))
        if host in self.dead:
            raise httpcore2.ConnectError("refused")
        return host


async def connect(network: Dialled, *addresses: str, host: str = "shop.example", within: float | None = None) -> Any:
    async def resolve(_: str, port: int) -> list[str]:
        assert port == 443
        return list(addresses)

    return await GuardedNetwork(network, resolve).connect_tcp(host, 443, within)


@pytest.mark.parametrize("address", [one.strip("[]") for one in METADATA])
async def test_a_name_that_resolves_to_a_guarded_address_is_not_connected_to(address: str) -> None:
    network = Dialled()
    with pytest.raises(Forbidden, match=r"^shop\.example has the address .* no request of a run goes there$"):
        await connect(network, address)
    assert network.asked == []


async def test_of_several_addresses_the_guarded_ones_are_left_out() -> None:
    network = Dialled("2001:db8::1")
    assert await connect(network, "169.254.169.254", "2001:db8::1", "10.0.0.1", "fe80::1") == "10.0.0.1"
    assert [host for host, _ in network.asked] == ["2001:db8::1", "10.0.0.1"]


async def test_the_address_that_is_checked_is_the_one_connected_to() -> None:
    """A name server that answers differently the second time is not asked a second time."""
    answers = [["10.0.0.1"], ["169.254.169.254"]]

    async def resolve(host: str, _: int) -> list[str]:
        return answers.pop(0)

    network = Dialled()
    found: Any = await GuardedNetwork(network, resolve).connect_tcp("shop.example", 443)
    assert found == "10.0.0.1"
    assert len(answers) == 1


async def test_each_address_gets_a_part_of_the_time() -> None:
    network = Dialled(*(f"10.0.0.{n}" for n in range(20)))
    with pytest.raises(httpcore2.ConnectError, match="refused"):
        await connect(network, *network.dead, within=80.0)
    given = [timeout or 0.0 for _, timeout in network.asked]
    assert len(given) == ADDRESSES_MAX
    assert given[0] <= 10.0 and given[-1] > 70.0


async def test_an_address_is_not_resolved() -> None:
    async def resolve(host: str, _: int) -> list[str]:
        raise AssertionError(host)

    network = Dialled()
    for host in ("10.0.0.1", "[2001:db8::1]"):
        await GuardedNetwork(network, resolve).connect_tcp(host, 80)
    assert [host for host, _ in network.asked] == ["10.0.0.1", "2001:db8::1"]


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), OSError("dead"), UnicodeError("label")]
)
async def test_a_name_without_an_address_is_a_connection_that_failed(error: Exception) -> None:
    async def resolve(host: str, _: int) -> list[str]:
        raise error

    with pytest.raises(httpcore2.ConnectError) as caught:
        await GuardedNetwork(Dialled(), resolve).connect_tcp("nowhere.example", 80)
    assert caught.value.__cause__ is error
    with pytest.raises(httpcore2.ConnectError, match="has no address"):
        await connect(Dialled())


async def test_a_name_server_that_hangs_is_a_timeout() -> None:
    async def resolve(host: str, _: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(httpcore2.ConnectTimeout, match=r"slow\.example is not resolved in time"):
        await GuardedNetwork(Dialled(), resolve).connect_tcp("slow.example", 80, 0.01)


# -- tools and models ------------------------------------------------------------------------------------------------


@pytest.fixture
async def shop() -> AsyncIterator[ToolBench]:
    async with tool_bench() as found:
        yield found


@pytest.mark.parametrize("host", [*SPELLED, "169.254.169.254", "[fd00:ec2::254]"])
@pytest.mark.parametrize("effect", ["ReadOnly", "Once"])
async def test_a_tool_is_told_why_and_nothing_is_sent(shop: ToolBench, host: str, effect: str) -> None:
    begun: list[int] = []
    tool = shop.tool(url=f"http://{host}/latest/meta-data/iam", effect=effect)
    found = await tool.call({}, before_send=lambda: begun.append(1))
    assert found.is_error and found.text.endswith(": no request of a run goes there")
    assert begun == [] and shop.pauses == []


async def test_a_proxy_is_not_asked_for_a_guarded_address(shop: ToolBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", shop.server.url)
    found = await shop.call({}, url="http://169.254.169.254/latest/meta-data/")
    assert found.is_error and "link-local" in found.text
    assert shop.server.connections == 0


@pytest.mark.parametrize("host", SPELLED)
async def test_a_model_endpoint_is_refused_for_good(host: str) -> None:
    model = Model.model_validate(
        {"name": "m", "model": "m", "api": "chat", "endpoint": f"http://{host}/v1", "credentials": KEY_REF}
    )
    client = await asyncio.to_thread(open_model, model, lambda _: KEY)
    try:
        with pytest.raises(Failure, match="a link-local address: no request of a run goes there") as caught:
            await client.ask(Request("", [], timeout=5))
    finally:
        await client.close()
    assert not caught.value.retryable
