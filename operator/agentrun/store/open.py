"""Opens the store at an address that a person gives."""

from __future__ import annotations

import re

from agentrun.store.folder import FolderStore
from agentrun.store.protocol import Store, StoreUnfit
from agentrun.store.s3 import S3Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def open_store(url: str) -> Store:
    """The store at ``s3://bucket/prefix`` or in the folder ``url``. Reads and writes nothing yet.

    Raises StoreUnfit if ``url`` is neither, or the working folder is gone.
    """
    if url.startswith("s3://"):
        return S3Store(url)
    scheme = _SCHEME.match(url)
    if scheme is not None:
        # Only the scheme is quoted: addresses of databases and web servers tend to hold passwords.
        raise StoreUnfit(
            f"{scheme[1]}: is not a kind of store; write s3://BUCKET/PREFIX or the path of a folder "
            f"(./{scheme[1]}:… where its name has a colon)"
        )
    if not url.strip() or "\0" in url:
        raise StoreUnfit("the store's address is empty; write s3://BUCKET/PREFIX or the path of a folder")
    try:
        return FolderStore(url)
    except FileNotFoundError:
        raise StoreUnfit(
            "the working folder is gone: change into one that exists, or give --store a whole path"
        ) from None
