"""Where a model is: endpoints of workflows and of the environment, as people write them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrun.api.errors import InvalidDocument
from agentrun.api.printable import printable
from agentrun.api.workflow import Model
from agentrun.documents.document import parse
from agentrun.runner.failures import Failure
from agentrun.runner.models import Request, open_model
from agentrun.workflow.address import DEFAULT, Address, BadAddress, address_of, azure_hint, read_address
from agentrun.workflow.pinning import check
from tests.harness.loopback import Loopback, loopback, reply
from tests.harness.model_bench import completion


def model_at(endpoint: str | None, api: str = "chat") -> Model:
    return Model.model_validate({"name": "main", "model": "m", "api": api, "endpoint": endpoint})


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/v1//", "http://h/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        ("http://h:8080", "http://h:8080/chat/completions"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("http://h/v1/chat/completions/", "http://h/v1/chat/completions"),
        ("http://h/chat/v1", "http://h/chat/v1/chat/completions"),
        ("http://h/a%20b/v1", "http://h/a%20b/v1/chat/completions"),
        (
            "https://n.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            "https://n.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        ("http://h/d/?api-version=1&b=%2F&b=2&c", "http://h/d/chat/completions?api-version=1&b=%2F&b=2&c"),
        ("http://h/d/chat/completions?api-version=1", "http://h/d/chat/completions?api-version=1"),
        ("http://h/v1?", "http://h/v1/chat/completions"),
    ],
)
def test_the_url_of_a_call(endpoint: str, url: str) -> None:
    assert address_of(model_at(endpoint), {}).of("/chat/completions") == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://user:hunter2@h/v1", "the URL contains a user and a password"),
        ("http://hunter2@h/v1", "the URL contains a user and a password"),
        ("http://h/v1#part", "has a fragment"),
        ("http://h/v1#", "has a fragment"),
        ("http://{resource}.openai.azure.com/", "contains braces"),
        ("http://h/${inputs.x}", "contains braces"),
        ("http://h/v1/responses", "ends with /responses, which is api: responses, but the model says api: chat"),
        ("http://h/v1/completions", "ends with /completions, which is another API"),
        ("http://h/v1/messages/", "ends with /messages, which is another API"),
        ("http://h:port/v1", "is not a URL"),
        ("http://h:99999/v1", "is not a URL"),
        ("http://[::1/v1", "is not a URL"),
        ("http:///v1", "is not a URL; write one such as https://models.internal/v1"),
        ("https://", "is not a URL"),
        ("models.internal/v1", "is not a URL"),
        ("localhost:8080", "is not a URL"),
        ("ftp://h/v1", "is not a URL"),
        ("http://h/v1\x00", "is not a URL"),
        ("http://h/a b", "is not a URL"),
        ("none", "is not a URL"),
    ],
)
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(BadAddress, match=r"^the variable: ") as caught:
        read_address(text, "the variable", "chat")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert printable(str(caught.value)) == str(caught.value)


@settings(deadline=None)
@given(st.text() | st.text().map("http://".__add__))
def test_every_text_is_an_address_or_refused(text: str) -> None:
    with suppress(BadAddress):
        assert read_address(text, "it", "chat").of("/chat/completions").startswith(("http://", "https://"))


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \r\n"])
def test_a_blank_variable_is_not_set(text: str) -> None:
    assert address_of(model_at(None), {"OPENAI_BASE_URL": text}) == Address(DEFAULT)
    assert address_of(model_at(None), {"OPENAI_BASE_URL": f"{text}http://h/v1/{text}"}) == Address("http://h/v1")


def test_the_workflow_comes_before_the_environment() -> None:
    assert address_of(model_at("http://a/v1"), {"OPENAI_BASE_URL": "nonsense"}) == Address("http://a/v1")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OPENAI_BASE_URL", "nonsense", 'the environment variable OPENAI_BASE_URL: "nonsense" is not a URL; write one'),
        ("OPENAI_BASE_URL", "http://u:hunter2@h", "OPENAI_BASE_URL: the URL contains a user and a password"),
        ("OPENAI_BASE_URL", "http://h/v1/responses", "OPENAI_BASE_URL: the path ends with /responses"),
        ("OPENAI_API_KEY", "sk-hunter2\nX: 1", "OPENAI_API_KEY contains a line break"),
        ("OPENAI_ORG_ID", "org\nX: 1", "OPENAI_ORG_ID contains a line break"),
        ("OPENAI_PROJECT_ID", "pröj", "OPENAI_PROJECT_ID contains a line break or other characters"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv(variable, value)
    with pytest.raises(Failure) as caught:
        open_model(model_at(None), lambda _: "")
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message
    assert (caught.value.retryable, caught.value.happened) == (False, "no")


async def ask(server: Loopback, environment: dict[str, str], endpoint: str | None = None) -> dict[str, str]:
    """The headers of a request that is made in ``environment``."""
    server.then(reply(completion(content="hello")))
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("OPENAI_"):
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        client = open_model(model_at(endpoint), lambda _: "")
    await client.ask(Request("", [client.user("hi")], timeout=5))
    await client.close()
    return server.received[-1].headers


async def test_headers_come_from_variables_that_are_set() -> None:
    async with loopback() as server:
        base: dict[str, str] = {"OPENAI_BASE_URL": f"{server.url}/v1/", "OPENAI_API_KEY": " sk-1\r\n"}
        headers = await ask(server, base | {"OPENAI_ORG_ID": "", "OPENAI_PROJECT_ID": "  "})
        assert not [name for name in headers if name.startswith("openai-")]
        assert "api-key" not in headers
        assert headers["authorization"] == "Bearer sk-1"
        headers = await ask(server, base | {"OPENAI_ORG_ID": "org-1\n", "OPENAI_PROJECT_ID": "proj_1"})
        assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj_1")


async def test_an_azure_deployment_gets_its_version_and_key() -> None:
    async with loopback() as server:
        where = f"{server.url}/openai/deployments/d?api-version=2024-10-21"
        for environment, endpoint in (({"OPENAI_BASE_URL": where}, None), ({"OPENAI_BASE_URL": ""}, where)):
            headers = await ask(server, {**environment, "OPENAI_API_KEY": "azure-key"}, endpoint)
            assert server.received[-1].target == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
            assert (headers["api-key"], headers["authorization"]) == ("azure-key", "Bearer azure-key")


async def test_an_azure_deployment_without_its_version() -> None:
    async with loopback() as server:
        server.then(reply({"error": {"code": "404", "message": "Resource not found"}}, status=404))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "azure-key")
            client = open_model(model_at(f"{server.url}/openai/deployments/d"), lambda _: "")
        with pytest.raises(Failure, match=r"needs its version: …/deployments/NAME\?api-version=2024-10-21"):
            await client.ask(Request("", [], timeout=5))
        await client.close()


def workflow(endpoint: str, api: str = "chat") -> Any:
    return {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentWorkflow",
        "metadata": {"name": "w"},
        "spec": {
            "models": [{"name": "main", "model": "m", "endpoint": endpoint, "api": api}],
            "steps": [{"name": "a", "agent": {"prompt": "hi"}}],
        },
    }


@pytest.mark.parametrize(
    "endpoint", ["http://u:hunter2@h/v1", "http://h/v1#x", "http://{r}.h/v1", "http://h/v1/responses"]
)
def test_a_workflow_with_such_an_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        check(parse(json.dumps(workflow(endpoint)).encode(), "w.json"))
    assert "spec.models[0].endpoint" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    check(parse(json.dumps(workflow("http://h/v1/chat/completions?api-version=1")).encode(), "w.json"))


@pytest.mark.parametrize(
    ("endpoint", "api", "words"),
    [
        ("https://x.openai.azure.com/openai/deployments/d", "chat", "needs its version"),
        ("https://proxy.example/openai/deployments/d", "chat", "needs its version"),
        ("https://x.openai.azure.com/openai/deployments/d?api-version=1", "responses", "write api: chat"),
        ("https://x.openai.azure.com", "chat", "ends with /openai/v1"),
        ("https://x.openai.azure.com/openai/", "responses", "ends with /openai/v1"),
        ("https://x.services.ai.azure.com/v1", "chat", "ends with /openai/v1"),
        ("https://x.openai.azure.com/openai/v1", "chat", ""),
        ("https://x.openai.azure.com/openai?api-version=2025-04-01-preview", "responses", ""),
        ("https://x.services.ai.azure.com/models?api-version=2024-05-01-preview", "chat", ""),
        ("https://models.example/v1", "chat", ""),
    ],
)
def test_what_an_address_of_azure_lacks(endpoint: str, api: str, words: str) -> None:
    hint = azure_hint(read_address(endpoint, "endpoint", api), api)
    assert words in hint
    assert bool(hint) == bool(words)
