"""Can the models' endpoints be reached? A short look before a run begins, and no more than a warning: what does not
answer now may do so when a step comes to it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from agentrun.api.workflow import Model

PATIENCE = 1.0
"""Seconds that the look may take altogether."""

ENDPOINTS_MAX = 16

OPENAI = "https://api.openai.com/v1"
BASE_VARIABLE = "OPENAI_BASE_URL"

_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


def unreachable(models: Iterable[Model]) -> list[str]:
    """A line for each endpoint, or the proxy before it, that cannot be connected to.

    One that does not answer within ``PATIENCE`` is not named: it may be slow.
    """
    wanted: dict[tuple[str, int], str] = {}
    for model in models:
        for host, port, what in _addresses(model):
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


def _addresses(model: Model) -> Iterator[tuple[str, int, str]]:
    """Where a request to the model is sent first: its endpoint, or the proxy of the environment."""
    url = model.endpoint or os.environ.get(BASE_VARIABLE) or OPENAI
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if host and proxy and not proxy_bypass(host):
            between = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if between.hostname and (at := between.port or _PORTS.get(between.scheme)):
                yield between.hostname, at, f"the proxy {between.hostname}:{at} to model {model.name}"
        elif host and port:
            yield host, port, f"model {model.name} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return  # no URL: the step that asks says so
