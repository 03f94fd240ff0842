"""Impersonation by the ``as`` of a kubeconfig's user, which kubectl follows and the official Python client ignores.

Without it, requests would be made in another name than the person's kubeconfig says.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from agentrun.kube.credentials import NoAccess


def acting_as(kubeconfig: str | None, context: str | None, environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers that impersonate the user named by ``as`` of the context's user; none if there is no ``as``.

    Raises:
        NoAccess: a file cannot be read.
    """
    paths = kubeconfig or environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    files = [_read(Path(path)) for path in paths.split(os.pathsep) if path]
    chosen = context or next((name for file in files if (name := file.get("current-context"))), None)
    name = _named(files, "contexts", chosen).get("context", {}).get("user")
    user = _named(files, "users", name).get("user") or {}
    if not user.get("as"):
        return []
    headers = [("Impersonate-User", str(user["as"]))]
    headers += [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
    headers += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(str(key), safe='')}", str(value)) for value in values]
    return headers


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}  # kubectl skips a missing file of KUBECONFIG too
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise NoAccess(f"the kubeconfig {path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _named(files: list[dict[str, Any]], part: str, name: Any) -> dict[str, Any]:
    """The first entry of that name in ``files``: kubectl merges files in the same way."""
    entries = (entry for file in files for entry in file.get(part) or ())
    return next((entry for entry in entries if isinstance(entry, dict) and entry.get("name") == name), {})
