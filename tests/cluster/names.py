"""A name server for the pods of the test cluster: `python -m tests.cluster.names ADDRESS KUBECONFIG`.

It serves over UDP (RFC 1035), and resolves only ``SERVICE.NAMESPACE.svc.cluster.local`` with a cluster IP. It asks the
API server each time. A cluster that can reach other machines has CoreDNS instead.
https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import yaml

DOMAIN = "cluster.local"
_A, _IN = 1, 1
_HEADER = struct.Struct("!6H")
_ANSWER = 0x8400  # a response, with authority
_NO_SUCH_NAME = 3
_NOT_NOW = 2
_SECONDS = 5


def main() -> None:
    """Serve until killed."""
    address, kubeconfig = sys.argv[1:]
    look_up = _services(Path(kubeconfig))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        print("listening", flush=True)
        while True:
            query, sender = server.recvfrom(1232)
            try:
                answer = answered(query, look_up)
            except (ValueError, struct.error, IndexError) as error:  # not a query that can be answered
                print(f"{sender}: {error}", flush=True)
                continue
            server.sendto(answer, sender)


def answered(query: bytes, look_up: Callable[[str, str], str | None]) -> bytes:
    """The response to a query. ``look_up`` returns the address of a Service in a namespace.

    Raises:
        ValueError, struct.error, IndexError: ``query`` is not a query with one question.

    """
    number, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & 0x8000 or questions != 1:
        raise ValueError("no query of one question")
    labels, end = _name(query)
    kind, family = struct.unpack_from("!2H", query, end)
    question = query[_HEADER.size : end + 4]
    code, records = _NO_SUCH_NAME, b""
    service, namespace, *rest = [*labels, "", ""]
    if [word for word in rest if word] == ["svc", *DOMAIN.split(".")]:
        try:
            address = look_up(service, namespace)
        except OSError as error:
            print(f"{'.'.join(labels)}: {error}", flush=True)
            code, address = _NOT_NOW, None
        if address is not None:
            code = 0
            if (kind, family) == (_A, _IN):
                # The name is a pointer to the question's; the TTL is 0.
                records = struct.pack("!3HIH", 0xC000 | _HEADER.size, _A, _IN, 0, 4)
                records += ipaddress.IPv4Address(address).packed
    return _HEADER.pack(number, _ANSWER | flags & 0x0100 | code, 1, bool(records), 0, 0) + question + records


def _name(query: bytes) -> tuple[list[str], int]:
    """The labels of the first question in lower case, and the offset at which its name ends."""
    labels, at = [], _HEADER.size
    while length := query[at]:
        if length > 63:
            raise ValueError("a compressed name in a question")
        labels.append(query[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return labels, at + 1


def _services(kubeconfig: Path) -> Callable[[str, str], str | None]:
    document = yaml.safe_load(kubeconfig.read_text())
    server, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    trust = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())

    def look_up(service: str, namespace: str) -> str | None:
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/services/{quote(service, safe='')}"
        request = urllib.request.Request(server["server"] + path, headers={"Authorization": f"Bearer {user['token']}"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS, context=trust) as answer:
                address: str = json.load(answer)["spec"].get("clusterIP", "None")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None
        return None if address == "None" else address

    return look_up


if __name__ == "__main__":
    main()
