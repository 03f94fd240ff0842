"""The addresses to which no request of a run goes: link-local ones, and where clouds serve the credentials of machines.

A step's pod runs on a machine whose cloud gives credentials to whoever asks at such an address. Pure: nothing is
resolved here. The runner applies the same rule to every address that a name resolves to.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_LINK_LOCAL = "a link-local address"
_METADATA = "an address where a cloud serves the credentials of its machines"

GUARDED = {
    "169.254.0.0/16": _LINK_LOCAL,  # RFC 3927; AWS, Google, Azure, Oracle, OpenStack, and ECS and EKS for pods
    "fe80::/10": _LINK_LOCAL,  # RFC 4291, section 2.5.6
    "fd00:ec2::/32": _METADATA,  # AWS: "Use the Instance Metadata Service", and EKS Pod Identity
    "fd20:ce::254/128": _METADATA,  # Google: "About VM metadata"
    "100.100.100.200/32": _METADATA,  # Alibaba Cloud: "Instance metadata"
    "168.63.129.16/32": _METADATA,  # Azure: "What is IP address 168.63.129.16?"
    "192.0.0.192/32": _METADATA,  # Oracle Cloud, classic instances
}
"""The networks, and what each is."""

_EMBEDDED = (
    "64:ff9b::/96",  # RFC 6052: a NAT64 gateway sends it to the IPv4 address in the last 32 bits
    "::/96",  # RFC 4291, section 2.5.5.1
)
"""IPv6 networks whose last 32 bits are an IPv4 address. ``ipaddress`` knows the others."""


def guarded(address: str) -> str | None:
    """What ``address`` is, if no request goes there. None: it is another address, or none at all (a name).

    An IPv4 address inside an IPv6 address is looked at as well (RFC 4291, 6052, 3056, 4380).
    """
    text = address.strip("[]").partition("%")[0]
    if ":" not in text and not text.replace(".", "").isdigit():
        return None  # a name: most hosts are, and ``ipaddress`` need not be imported for them
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        found = ip_address(text)
    except ValueError:
        return None
    inside = [found, *_embedded(found)]
    return next((why for network, why in _networks() if any(one in network for one in inside)), None)


def _embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    from ipaddress import IPv4Address, IPv6Network  # noqa: PLC0415

    if isinstance(address, IPv4Address):
        return
    yield from filter(None, (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())))
    if any(address in IPv6Network(network) for network in _EMBEDDED):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


@cache
def _networks() -> list[tuple[IPv4Network | IPv6Network, str]]:
    from ipaddress import ip_network  # noqa: PLC0415

    return [(ip_network(network), why) for network, why in GUARDED.items()]


def forbidden(host: str, address: str, why: str) -> str:
    """For people: no request goes to ``host``, which is or has the guarded ``address``."""
    has = f"{address} is" if host.strip("[]") == address else f"{host} has the address {address}, which is"
    return f"{has} {why}: no request of a run goes there"


def forbidden_url(url: str) -> str | None:
    """Why no request goes to ``url``, if its host is written as an address that is guarded."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return None  # whoever reads the URL reports that
    why = guarded(host)
    return None if why is None else forbidden(host, host, why)
