"""kopf reads through our decoder; what is replaced of it is held to the release that is installed."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from kopf._cogs.clients import api, fetching, watching

from agentrun.adapters import kopf_reading
from agentrun.adapters.kopf_reading import SEEN, reading
from agentrun.adapters.watched import views_for
from agentrun.api.decoding import decode_list
from agentrun.kube.errors import Refused, Unavailable
from tests import poison

META = {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}
DEEP = poison.lists(1500)
NOTHING: Any = None


def run(name: str, inputs: str = "1") -> str:
    spec = {"inputs": "HERE", "workflow": {"steps": []}}
    return json.dumps({"kind": "AgentRun", "metadata": META | {"name": name}, "spec": spec}).replace('"HERE"', inputs)


def test_what_is_replaced_is_what_kopf_calls() -> None:
    """A kopf that parses elsewhere, or calls these functions otherwise, must not be taken without a look."""
    watch = inspect.getsource(watching)
    assert watch.count("api.stream(") == watch.count("fetching.fetch_objs(") == 1
    assert "json.loads(line" in inspect.getsource(api.stream)
    assert "api.get(" in inspect.getsource(fetching.fetch_objs)
    assert "json" not in watch


def test_another_kopf_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def other(url: str, more: str) -> None:
        raise NotImplementedError

    theirs = api.stream, fetching.fetch_objs
    with reading(NOTHING, {}):
        assert (api.stream, fetching.fetch_objs) != theirs
    assert (api.stream, fetching.fetch_objs) == theirs
    monkeypatch.setattr(api, "stream", other)
    with pytest.raises(RuntimeError, match=r"kopf has changed: .*other is not what agentrun replaces"):
        reading(NOTHING, {}).__enter__()


class Content:
    def __init__(self, *lines: str) -> None:
        self._text = "\n".join(lines).encode()

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        yield self._text[:1000]
        yield self._text[1000:]


class Response:
    def __init__(self, content: Content) -> None:
        self.content = content

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


async def events(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[Any]:
    async def request(*_: Any, **__: Any) -> Response:
        return Response(Content(*lines))

    monkeypatch.setattr(api, "request", request)
    monkeypatch.setattr(kopf_reading, "LONG", 1e9)
    with reading(NOTHING, views_for(lambda: 0.0)):
        return [event async for event in api.stream("/x", settings=NOTHING, logger=NOTHING)]


@pytest.mark.parametrize("name", poison.VALUES)
async def test_a_watch_goes_on_after_an_object_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bad = run("bad", poison.VALUES[name]())
    told = {"ADDED": run("before"), "MODIFIED": bad, "DELETED": bad}
    lines = [f'{{"type":"{kind}","object":{obj}}}' for kind, obj in [*told.items(), ("ADDED", run("after"))]]
    bookmark = '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}'
    found = await events(monkeypatch, *lines, bookmark)
    assert [(e["type"], e["object"]["metadata"].get("name")) for e in found] == [
        ("ADDED", "before"),
        ("MODIFIED", "bad"),
        ("DELETED", "bad"),
        ("ADDED", "after"),
        ("BOOKMARK", None),
    ]
    views = [event["object"][SEEN] for event in found[:4]]
    assert [view.ref.name for view in views] == ["before", "bad", "bad", "after"]
    assert not views[0].problem and not views[3].problem
    for event in found[:4]:  # of the object kopf has its name alone
        assert event["object"].keys() == {"kind", "metadata", SEEN}
        assert event["object"]["metadata"].keys() == {"name", "namespace", "uid", "resourceVersion"}


async def test_a_watch_that_is_cut_off_in_a_line_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(aiohttp.ClientPayloadError, match="a line of the watch is not"):
        await events(monkeypatch, '{"type":"ADDED","object":' + run("a")[:-20])


class Pages:
    def __init__(self, *pages: str, error: Exception | None = None) -> None:
        self._pages, self._error = pages, error

    async def pages(self, path: str, labels: str, *, limit: int) -> AsyncIterator[dict[str, Any]]:
        assert (path, labels, limit) == ("/apis/x", "a,b", kopf_reading.PAGE)
        for page in self._pages:
            yield decode_list(page.encode())
        if self._error is not None:
            raise self._error


class Resource:
    kind = "AgentRun"

    def get_url(self, *, namespace: str | None) -> str:
        return "/apis/x"


class Settings:
    class watching:  # noqa: N801
        class label_selectors:  # noqa: N801
            @staticmethod
            def collect(_: Any) -> list[str]:
                return ["b", "a", "b"]


async def listed(pages: Pages) -> list[Any]:
    given: dict[str, Any] = {"settings": Settings, "resource": Resource(), "namespace": None, "logger": None}
    with reading(cast("Any", pages), views_for(lambda: 0.0)):
        return [page async for page in fetching.fetch_objs(**given)]


async def test_a_list_is_read_as_a_watch_is() -> None:
    page = f'{{"metadata":{{"resourceVersion":"3"}},"items":[{run("a")},{run("bad", DEEP)},{run("b")}]}}'
    ((items, version),) = await listed(Pages(page))
    assert version == "3"
    assert [(item["kind"], item[SEEN].ref.name, bool(item[SEEN].problem)) for item in items] == [
        ("AgentRun", "a", False),
        ("AgentRun", "bad", True),
        ("AgentRun", "b", False),
    ]


async def test_a_list_that_fails_is_asked_for_again_and_one_that_is_refused_is_the_end() -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await listed(Pages(error=Unavailable("503")))
    with pytest.raises(Refused):
        await listed(Pages(error=Refused("forbidden")))
