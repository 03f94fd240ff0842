"""Checks before a run begins whether models and tools can be reached.

An address, a proxy or certificates that no request can use are refused. An endpoint that cannot be connected to is
only a warning: it may be reachable when a step needs it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from agentrun.api.errors import Refused
from agentrun.api.tools import Tool
from agentrun.api.workflow import Model
from agentrun.runner.connections import BadEnvironment, check_certificates, proxy_for
from agentrun.workflow import tool_kinds
from agentrun.workflow.address import BadAddress, address_of

PATIENCE = 1.0
"""Seconds that all connection attempts together may take."""

ENDPOINTS_MAX = 16

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


def check_connections(models: Iterable[Model], tools: Iterable[Tool]) -> None:
    """Raise Refused if a model's address, or a proxy or the certificates of the environment, cannot be used."""
    asked = list(_asked(models, tools))
    for url, what in asked:
        proxy = proxy_for(url)
        if proxy is not None and (problem := proxy.problem) is not None:
            raise Refused(f"{what}: {problem}")
    try:
        if asked:
            check_certificates()
    except BadEnvironment as error:
        raise Refused(str(error)) from None


def _asked(models: Iterable[Model], tools: Iterable[Tool]) -> Iterator[tuple[str, str]]:
    """The URLs that the run will use, each with its model or tool. Raises Refused if a model's URL is invalid."""
    for model in models:
        try:
            yield address_of(model, os.environ).base, f"model {model.name}"
        except BadAddress as error:
            raise Refused(f"model {model.name}: {error}") from None
    for tool in tools:
        yield tool_kinds.address_of(tool), f"tool {tool.name}"


def unreachable(models: Iterable[Model], tools: Iterable[Tool] = ()) -> list[str]:
    """A line for each endpoint, or the proxy before it, that cannot be connected to.

    Connects to the first ``ENDPOINTS_MAX`` addresses. An endpoint that does not answer within ``PATIENCE`` is not
    reported: it may only be slow. Raises Refused like ``check_connections``.
    """
    wanted: dict[tuple[str, int], str] = {}
    for url, asked in _asked(models, tools):
        for host, port, what in _address(url, asked):
            wanted.setdefault((host, port), what)
    found: dict[tuple[str, int], str] = {}

    def look(address: tuple[str, int]) -> None:
        try:
            socket.create_connection(address, PATIENCE).close()
        except TimeoutError:
            pass
        except (OSError, UnicodeError) as error:
            found[address] = getattr(error, "strerror", None) or str(error)

    looking = [threading.Thread(target=look, args=(a,), daemon=True) for a in list(wanted)[:ENDPOINTS_MAX]]
    for thread in looking:
        thread.start()
    ends = threading.Event()
    threading.Thread(target=_await, args=(looking, ends), daemon=True).start()
    ends.wait(PATIENCE)
    return [f"{wanted[address]} cannot be reached now: {why}" for address, why in list(found.items())]


def _await(threads: list[threading.Thread], ends: threading.Event) -> None:
    for thread in threads:
        thread.join()
    ends.set()


def _address(url: str, asked: str) -> Iterator[tuple[str, int, str]]:
    """The address that a request to ``url`` connects to: its host, or the proxy of the environment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
        proxy = proxy_for(url)
        if proxy is not None:
            between = urlsplit(proxy.url)
            if between.hostname and (at := between.port or _PORTS.get(between.scheme)):
                yield between.hostname, at, f"the proxy {between.hostname}:{at} to {asked}"
        elif host and port:
            yield host, port, f"{asked} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return  # not a URL: the step that uses it reports that
