"""What all HTTP clients of a process share: the certificate authorities and proxies that the environment names.

An error names the variable that cannot be used, with its value. It is raised only for a request that needs the
variable: a bad proxy that no request would use does no harm.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from agentrun.api.printable import printable

PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

_PORTS = {"http": 80, "https": 443}
_NO_CERTIFICATE = "contains no certificate in PEM form"


class BadEnvironment(ValueError):
    """An environment variable cannot be used. The message names it, its value, and what to do."""


@cache
def tls() -> ssl.SSLContext:
    """The TLS settings: the machine's certificate authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.

    Reading the authorities takes 0.1 s, so it is done once. The cache saves only that time.

    Raises:
        BadEnvironment: one of the two variables does not name certificate authorities.
    """
    import httpx2  # noqa: PLC0415  (lazy: only for processes that send something)

    check_certificates()
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        broken = isinstance(error, ssl.SSLError)
        what = _NO_CERTIFICATE if broken else f"cannot be read ({error.strerror or error})"
        raise BadEnvironment(_bad(variable, os.environ.get(variable, ""), what)) from error


def check_certificates() -> None:
    """Check quickly what SSL_CERT_FILE, or else SSL_CERT_DIR, names. The contents of certificates are not checked.

    Raises:
        BadEnvironment: it surely does not name certificate authorities.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        try:
            found = Path(file).read_bytes()
        except OSError as error:
            raise BadEnvironment(_bad("SSL_CERT_FILE", file, f"cannot be read ({error.strerror or error})")) from error
        if b"-----BEGIN " not in found:
            raise BadEnvironment(_bad("SSL_CERT_FILE", file, _NO_CERTIFICATE))
    elif folder and not any(_certificates(part) for part in folder.split(os.pathsep)):
        raise BadEnvironment(_bad("SSL_CERT_DIR", folder, "is not a folder with certificates named by their hash"))


def _certificates(folder: str) -> bool:
    try:
        return any(re.fullmatch(r"[0-9a-f]{8}\.\d+", found.name) for found in Path(folder).iterdir())
    except OSError:
        return False


def _bad(variable: str, value: str, what: str) -> str:
    return f"{variable} is {printable(value, 200)}, which {what}: correct it, or unset it to use the machine's own"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and the variable that names it."""

    variable: str
    url: str
    """The variable's value, with a scheme added if it has none. It may contain a password."""

    @property
    def shown(self) -> str:
        """The proxy for people, without user and password."""
        found = re.sub(r"(?<=://)[^/?#]*@", "", self.url)
        return f"the proxy {printable(found, 200)} of {self.variable}"

    @property
    def problem(self) -> str | None:
        """Why the proxy cannot be used; None if it can."""
        hint = "write it as http://HOST:PORT, or name the host in NO_PROXY"
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or not self.url.isprintable() or " " in self.url:
            return f"{self.variable} does not name a proxy: it has no valid host and port; {hint}"
        if parts.scheme.lower() not in PROXY_SCHEMES:
            return f"{self.shown} is of a kind that is not supported ({parts.scheme}); {hint}"
        if parts.scheme.lower().startswith("socks") and not _has_socks():
            return f"{self.shown} is a SOCKS proxy, which is not supported: use its HTTP port if it has one; {hint}"
        return None


def _has_socks() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415

    return find_spec("socksio") is not None


def proxy_for(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy that the environment names for ``url``, usable or not; None if requests go there directly.

    Variables are read as curl and urllib do: ``http_proxy``, ``https_proxy``, ``all_proxy``, ``no_proxy``, in lower or
    upper case; lower case wins. ``environment``: what ``getproxies`` read of it before.
    """
    found = getproxies() if environment is None else environment
    parts = urlsplit(url)
    scheme = next((name for name in (parts.scheme.lower(), "all") if found.get(name)), None)
    if scheme is None or not parts.hostname:
        return None
    if is_excluded(parts.hostname, parts.port or _PORTS.get(parts.scheme.lower(), 0), found.get("no", "")):
        return None
    name = f"{scheme}_proxy"
    variable = next((n for n in (name, name.upper()) if os.environ.get(n)), "the system's settings")
    value = found[scheme].strip()
    return Proxy(variable, value if "://" in value else f"http://{value}")


def is_excluded(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``no_proxy`` says that requests to ``host`` go directly.

    An entry is a name (and all its subdomains), ``.name`` or ``*.name`` (only the subdomains), an address, a network
    such as 10.0.0.0/8, or ``*``; each may end in a port. Invalid entries are ignored.
    """
    host = host.lower().rstrip(".").strip("[]")
    address = _address(host)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        pattern, at = _entry(entry.partition("://")[2] or entry)
        if not pattern or (at is not None and at != port):
            continue
        if pattern == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(pattern, strict=False):
                    return True
            except ValueError:
                pass
        elif pattern.startswith((".", "*.")):
            if host.endswith("." + pattern.lstrip("*.")):
                return True
        elif host == pattern.rstrip(".") or host.endswith("." + pattern.rstrip(".")):
            return True
    return False


def _entry(text: str) -> tuple[str, int | None]:
    """The host or network of an entry, and its port."""
    found = re.fullmatch(r"\[([0-9a-f:.%]+)\](/\d+)?(?::(\d+))?|([^:\[\]]*)(?::(\d+))?", text)
    if found is None:
        return text.strip("[]"), None  # an IPv6 address without brackets
    host = found[1] + (found[2] or "") if found[1] else found[4] or ""
    port = found[3] or found[5]
    return host, int(port) if port else None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def why(error: BaseException) -> str:
    """Why a connection failed, and what to do if that is known. The text may quote the other side.

    Libraries wrap the operating system's reason, often twice, and some only say that the connection failed.
    """
    if getattr(error, "is_explained", False):
        return str(error)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            said = getattr(cause, "verify_message", "") or cause
            return f"the certificate is not trusted: {said}; {_trust(getattr(cause, 'verify_code', 0))}"
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return "the server does not speak TLS: write http:// if that is meant, or correct the port"
        if isinstance(cause, socket.gaierror):
            return f"the host's name cannot be resolved ({cause.strerror or cause})"
        if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
            return "too many open files; raise the limit (ulimit -n), or lower maxParallel"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there (connection refused)"
    # h11 quotes what it refuses as a Python bytes literal.
    return re.sub(r"(?:bytearray\()?\bb(['\"])(.*?)\1\)?", r"\2", str(error)) or type(error).__name__


_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
"""OpenSSL's codes for an unknown authority or a self-signed certificate."""
_NOT_READ = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Variables in which other programs find authorities. An error message names those that are set."""


def _trust(code: int) -> str:
    """What to do about a certificate that is not trusted."""
    if code not in _UNKNOWN_AUTHORITY:
        return "correct the server's certificate, or the address"
    hint = "if the authority is your own, name its certificate in SSL_CERT_FILE"
    if os.environ.get("SSL_CERT_FILE"):
        hint = f"SSL_CERT_FILE is {printable(os.environ['SSL_CERT_FILE'], 200)}, which does not contain its authority"
    others = [name for name in _NOT_READ if os.environ.get(name)]
    return hint + (f" ({' and '.join(others)} {'is' if len(others) == 1 else 'are'} not read)" if others else "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and its causes, breadth first, each once."""
    found, seen = [error], set[int]()
    for cause in found:
        if id(cause) in seen or len(found) > 100:
            continue
        seen.add(id(cause))
        yield cause
        inner = list(cause.exceptions) if isinstance(cause, BaseExceptionGroup) else []
        found += [e for e in (cause.__cause__, cause.__context__, *inner) if e is not None]
