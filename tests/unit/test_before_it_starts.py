"""What a run needs of the outside is looked at before its first step: keys, Secrets, endpoints."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrun.api.errors import Refused
from agentrun.api.tools import Tool
from agentrun.api.workflow import Model
from agentrun.cli.on_store import reach
from agentrun.cli.on_store.reach import check_connections, unreachable
from tests.harness.cli_store import LOOK_UP, Scene, Type

SHOP: dict[str, Any] = {
    "name": "book",
    "http": {
        "url": "http://127.0.0.1:1/",
        "auth": {"bearer": {"secretRef": {"name": "shop", "key": "token"}}},
    },
}
BOOKS: dict[str, Any] = {
    "tools": [LOOK_UP, SHOP],
    "steps": [
        {"name": "first", "tool": {"name": "look_up"}},
        {"name": "a", "dependsOn": ["first"], "tool": {"name": "book"}},
    ],
}
ASKS: dict[str, Any] = {
    "models": [{"name": "main", "model": "m"}, {"name": "unused", "model": "m"}],
    "defaults": {"model": "main"},
    "tools": [LOOK_UP],
    "steps": [
        {"name": "first", "tool": {"name": "look_up"}},
        {"name": "a", "dependsOn": ["first"], "agent": {"prompt": "hi"}},
    ],
}


def file(folder: Path, spec: dict[str, Any]) -> str:
    path = folder / "w.json"
    kind = {"apiVersion": "agentrun.dev/v1alpha1", "kind": "AgentWorkflow", "metadata": {"name": "w"}}
    path.write_text(json.dumps(kind | {"spec": spec}))
    return str(path)


def content(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(data)

    return make


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def circle(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda _: None, "does not hold shop/token: put each value into a file of that name"),
        (circle, "does not hold shop/token"),
        (folder, "shop/token: Is a directory"),
        (content(b""), "shop/token: key token of Secret shop is empty"),
        (content(b" \t\r\n"), "shop/token: key token of Secret shop is empty"),
        (content(b"\xff\xfet\x00"), "shop/token is not text (UTF-8)"),
        (content(b"one\ntwo\n"), "shop/token: key token of Secret shop contains a line break"),
        (content("schlüssel".encode()), "shop/token: key token of Secret shop contains"),
        (content(b"\xef\xbb\xbf \r\n"), "shop/token: key token of Secret shop is empty"),
        (lambda path: path.parent.write_text("a file where its folder should be"), "does not hold shop/token"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_before_anything_starts(
    scene: Scene, agentrun: Type, tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    """An empty file was found when the second call was due, after the first had paid."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    make(secrets / "shop" / "token")
    said = agentrun("run", file(tmp_path, BOOKS), "--secrets", str(secrets))
    assert said.code == 2 and why in said.err and "Traceback" not in said.err
    assert "one" not in said.err and not scene.folder.exists()


@pytest.mark.parametrize("value", [None, "", "   ", "two\nlines", "schlüssel"])
def test_a_model_without_a_key_is_named_before_anything_starts(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """A workflow paid, and then its agent had no key."""
    if value is None:
        monkeypatch.delenv("OPENAI_API_KEY")
    else:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    said = agentrun("run", file(tmp_path, ASKS))
    assert said.code == 2 and said.err.startswith("agentrun: model main: ")
    assert "set OPENAI_API_KEY, or give the model credentials: {secretRef: {name: …, key: …}}" in said.err
    assert "two" not in said.err and not scene.folder.exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'"token-0123456789"\n', "is in quotes, which are sent as part of it"),
        (b"'token-0123456789'", "is in quotes"),
        (b"Bearer token-0123456789", "begins with Bearer, which is then sent twice"),
        (b"token 0123456789", "contains a space"),
        (b"\xef\xbb\xbftoken-0123456789\r\n", None),
    ],
)
def test_a_secret_that_is_doubtful_is_warned_of(
    scene: Scene, agentrun: Type, tmp_path: Path, data: bytes, why: str | None
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    content(data)(secrets / "shop" / "token")
    spec = BOOKS | {"steps": [{"name": "z", "wait": {"signal": "s"}}, BOOKS["steps"][1] | {"dependsOn": ["z"]}]}
    said = agentrun("run", file(tmp_path, spec), "--secrets", str(secrets))
    assert said.code == 3 and "0123456789" not in said.err
    assert (f"warning: {secrets}/shop/token {why}" in said.err) if why else ("shop/token" not in said.err)


@pytest.mark.parametrize("value", ['"sk-0123456789"', "Bearer sk-0123456789"])
def test_a_doubtful_key_of_the_environment_is_warned_of(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)
    spec = ASKS | {"steps": [{"name": "z", "wait": {"signal": "s"}}, ASKS["steps"][1] | {"dependsOn": ["z"]}]}
    said = agentrun("run", file(tmp_path, spec))
    assert said.code == 3 and "warning: OPENAI_API_KEY " in said.err and "0123456789" not in said.err


def test_a_key_that_no_step_uses_is_not_asked_for(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    spec = ASKS | {"steps": [{"name": "a", "wait": {"signal": "s"}}]}
    assert agentrun("run", file(tmp_path, spec)).code == 3


def test_a_step_that_is_done_needs_no_key_any_more(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    run = scene.run(
        "r1", ASKS | {"steps": [ASKS["steps"][0], ASKS["steps"][1], {"name": "z", "wait": {"signal": "s"}}]}
    )
    scene.step(run, "first", ("closed", {"outcome": "Succeeded", "output": None}))
    assert "there is no API key" in agentrun("resume", "r1").err
    scene.step(run, "a", ("closed", {"outcome": "Succeeded", "output": "x"}))
    assert agentrun("resume", "r1").code == 3


# -- what no request can use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("OPENAI_BASE_URL", "localhost:11434", 'OPENAI_BASE_URL: "localhost:11434" is not a URL'),
        ("OPENAI_BASE_URL", '"http://127.0.0.1:1/v1"', "is not a URL"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:99999/v1", "is not a URL"),
        ("OPENAI_BASE_URL", "http://[::1/v1", "is not a URL"),
        ("OPENAI_BASE_URL", "http://user:hunter2@127.0.0.1:1/v1", "the URL contains a user and a password"),
        (
            "OPENAI_ORG_ID",
            "café",
            "OPENAI_ORG_ID contains a line break or other characters that an HTTP header cannot carry",
        ),
        ("OPENAI_PROJECT_ID", "two\nlines", "OPENAI_PROJECT_ID contains a line break"),
        (
            "http_proxy",
            "ftp://127.0.0.1:1",
            "the proxy ftp://127.0.0.1:1 of http_proxy is of a kind that is not supported",
        ),
        ("http_proxy", "http://:8080", "http_proxy does not name a proxy"),
        ("http_proxy", "http://user:hunter2@127.0.0.1:80800", "http_proxy does not name a proxy"),
        ("all_proxy", "socks5://127.0.0.1:1", "the proxy socks5://127.0.0.1:1 of all_proxy is a SOCKS proxy"),
        ("SSL_CERT_FILE", "/nothing/ca.pem", "SSL_CERT_FILE is /nothing/ca.pem, which cannot be read"),
        ("SSL_CERT_FILE", "/dev/null", "SSL_CERT_FILE is /dev/null, which contains no certificate"),
        ("SSL_CERT_DIR", "/nothing", "SSL_CERT_DIR is /nothing, which is not a folder with certificates"),
    ],
)
def test_what_no_request_can_use_is_refused_before_anything_starts(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, why: str
) -> None:
    """A workflow paid, and then its agent found that OPENAI_BASE_URL was no URL."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(variable, value)
    said = agentrun("run", file(tmp_path, ASKS))
    assert said.code == 2 and why in said.err
    assert "hunter2" not in said.err and not scene.folder.exists()


def test_what_no_request_would_use_stops_nothing(
    scene: Scene, agentrun: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("OPENAI_BASE_URL", "nonsense"), ("http_proxy", "ftp://x"), ("SSL_CERT_FILE", "/nothing")):
        monkeypatch.setenv(variable, value)
    assert agentrun("run", file(tmp_path, ASKS | {"steps": [{"name": "z", "wait": {"signal": "s"}}]})).code == 3


def test_a_proxy_that_is_not_asked_for_any_host_harms_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1,models.internal")
    check_connections([model("http://models.internal/v1")], [Tool.model_validate(LOOK_UP)])
    monkeypatch.setenv("no_proxy", "models.internal")
    with pytest.raises(Refused, match="tool look_up: the proxy socks5"):
        check_connections([model("http://models.internal/v1")], [Tool.model_validate(LOOK_UP)])


# -- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)


def model(endpoint: str | None) -> Model:
    return Model.model_validate({"name": "main", "model": "m", **({"endpoint": endpoint} if endpoint else {})})


def test_an_endpoint_that_refuses_is_warned_of(closed_port: int, listening: int) -> None:
    assert unreachable([model(f"http://127.0.0.1:{listening}/v1")]) == []
    [line] = unreachable([model(f"http://127.0.0.1:{closed_port}/v1")] * 3)
    assert line == f"model main at http://127.0.0.1:{closed_port} cannot be reached now: Connection refused"


def test_a_name_that_does_not_exist_is_warned_of() -> None:
    [line] = unreachable([model("https://nosuch.invalid/v1")]) or ["model main at https://nosuch.invalid"]
    assert line.startswith("model main at https://nosuch.invalid")


def test_the_proxy_is_what_has_to_answer(closed_port: int, listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{closed_port}")
    [line] = unreachable([model("http://models.internal/v1")])
    assert line.startswith(f"the proxy 127.0.0.1:{closed_port} to model main cannot be reached now")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert unreachable([model(f"http://127.0.0.1:{listening}/v1")]) == []


def test_a_name_that_cannot_be_one_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://" + "a" * 300 + "/")
    assert all("model main" in line for line in unreachable([model(None)]))


def test_a_tool_that_nobody_serves_is_warned_of(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/orders/${{args.id}}?page=1"
    [line] = unreachable([], [Tool.model_validate({"name": "look_up", "http": {"url": url}})])
    assert line == f"tool look_up at http://127.0.0.1:{closed_port} cannot be reached now: Connection refused"


def test_a_look_that_takes_long_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow(*_: Any) -> Any:
        asked.set()
        answered.wait(60)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", slow)
    monkeypatch.setattr(reach, "PATIENCE", 0.01)
    assert unreachable([model("http://127.0.0.1:1/v1")]) == []
    answered.set()


def test_a_warning_stops_nothing(
    scene: Scene, agentrun: Type, tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed_port}/v1")
    waiting = {"name": "z", "wait": {"signal": "s"}}
    spec = ASKS | {"steps": [waiting, ASKS["steps"][1] | {"dependsOn": ["z"], "agent": {"prompt": "{{ x }}"}}]}
    said = agentrun("run", file(tmp_path, spec), "--name", "r")
    assert said.code == 3
    assert f"warning: model main at http://127.0.0.1:{closed_port} cannot be reached now" in said.err
    assert "{{ … }} is the syntax of another tool" in said.err and "warning" not in said.out


def test_validate_and_run_say_the_same(scene: Scene, agentrun: Type, tmp_path: Path) -> None:
    """Arguments that do not fit, and an input that a closed schema lacks, were found after a payment."""
    closed = {"type": "object", "additionalProperties": False, "properties": {"id": {"type": "string"}}}
    steps = [
        {"name": "first", "tool": {"name": "pay", "args": {"id": "1"}}},
        {"name": "a", "dependsOn": ["first"], "tool": {"name": "pay", "args": {"ID": "${inputs.order}"}}},
    ]
    tool = {"name": "pay", "parameters": closed | {"required": ["id"]}, "http": {"url": "http://127.0.0.1:1/"}}
    name = file(tmp_path, {"inputs": closed, "tools": [tool], "steps": steps})
    checked, run = agentrun("validate", name), agentrun("run", name)
    assert (checked.code, run.code) == (2, 2) and checked.err == run.err
    for part in (
        '"ID" is not known',
        '"id" is a required property',
        "inputs.order is missing: the schema has only id",
    ):
        assert part in checked.err
    assert not scene.folder.exists()
