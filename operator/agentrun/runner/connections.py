"""What every HTTP client of a process shares."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def tls() -> ssl.SSLContext:
    """The TLS settings: the machine's certificate authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.

    Reading the authorities takes 0.1 s, so it is done once. Losing the cache costs that, and nothing else.
    """
    import httpx2  # noqa: PLC0415  (lazy: only for processes that send something)

    return httpx2.create_ssl_context()
