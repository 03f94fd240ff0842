"""Access to a cluster: kubeconfigs of real users, kubectl and helm."""

from __future__ import annotations

import base64
import csv
import json
import os
import secrets
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.places import FailedError

Done = subprocess.CompletedProcess[str]

UNWATCHED = "hostile"
"""A namespace whose objects no test waits for: a watch takes seconds to read the worst of them."""


@dataclass(frozen=True)
class User:
    """A user for the API server: a person, or a component of the cluster."""

    name: str
    groups: tuple[str, ...] = ()


PEOPLE = {
    "admin": User("admin", ("system:masters",)),
    "ana": User("ana"),
    "ben": User("ben", ("finance",)),
    "carl": User("carl", ("finance",)),
    "eve": User("eve"),
}
"""The users of tests. ana makes runs; ben and carl decide for the group finance; eve has no rights."""


class Access:
    """Access to one cluster: ``kubeconfig(user)`` and the programs that use it.

    ``url`` and ``ca`` (the file of its certificate authority) are the API server's.
    """

    def __init__(self, folder: Path, url: str, ca: Path, *, kubectl: Path, helm: Path) -> None:
        self.folder = folder
        self.url = url
        self.ca = ca
        self._kubectl = kubectl
        self._helm = helm

    def token(self, user: str = "admin") -> str:
        """The bearer token of a user. Raises FailedError if the cluster has no tokens."""
        raise FailedError(f"{self.url}: no token of {user}")

    def kubeconfig(self, user: str = "admin") -> Path:
        """A kubeconfig for acting as ``user``."""
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        if not path.exists():
            path.touch(0o600)
            path.write_text(yaml.safe_dump(self.document(user)))
        return path

    def document(self, user: str) -> dict[str, Any]:
        """The content of ``kubeconfig(user)``."""
        authority = base64.b64encode(self.ca.read_bytes()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": user, "context": {"cluster": "test", "user": user}}],
            "current-context": user,
        }

    def kubectl(
        self,
        *words: str | Path,
        user: str = "admin",
        input: str | None = None,  # noqa: A002 (subprocess.run's name)
        check: bool = True,
    ) -> Done:
        """Run kubectl as ``user`` to its end. Raises FailedError if ``check`` and it fails."""
        return self._run([self._kubectl, *words], user, input, check)

    def helm(self, *words: str | Path, check: bool = True) -> Done:
        """Run helm as admin to its end. Raises FailedError if ``check`` and it fails."""
        return self._run([self._helm, *words], "admin", None, check)

    def get(self, *words: str, user: str = "admin") -> Any:
        """The output of ``kubectl get WORDS -o json``. Raises FailedError."""
        return json.loads(self.kubectl("get", *words, "-o", "json", user=user).stdout)

    def apply(
        self, *documents: dict[str, Any], user: str = "admin", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """``kubectl apply`` of documents, in order."""
        return self.kubectl("apply", "-f", "-", user=user, input=yaml.safe_dump_all(documents), check=check)

    def environment(self, user: str = "admin") -> dict[str, str]:
        """The environment of a program that acts as ``user``."""
        return {
            "PATH": f"{self._kubectl.parent}:{os.environ.get('PATH', os.defpath)}",
            # A separate home, so that the person's own settings for kubectl and helm have no effect.
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig(user)),
        }

    def watching(self, kind: str) -> subprocess.Popen[str]:
        """Start a kubectl that writes the watch events of ``kind`` as JSON documents; not those of UNWATCHED."""
        return subprocess.Popen(
            [
                *(self._kubectl, "get", kind, "-A", f"--field-selector=metadata.namespace!={UNWATCHED}"),
                # With more objects than a chunk holds, kubectl's first events would be the chunks: Lists without names.
                *("-o", "json", "--watch", "--output-watch-events", "--chunk-size=0"),
            ],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(
        self,
        *command: str | Path,
        user: str = "admin",
        env: dict[str, str] | None = None,
        check: bool = True,
    ) -> Done:
        """Run another program as ``user`` to its end, with ``env`` added. Raises FailedError like ``kubectl``."""
        return self._run(list(command), user, None, check, env)

    def _run(
        self,
        command: list[str | Path],
        user: str,
        given: str | None,
        check: bool,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment(user) | (env or {}),
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            words = " ".join(str(word) for word in command[1:])
            what = f"{Path(command[0]).name} {words} (as {user})"
            raise FailedError(f"{what} ended with exit code {done.returncode}:\n{done.stderr}{done.stdout}")
        return done


class TokenAccess(Access):
    """Access to a cluster of the tests, whose users have tokens that the API server reads from a file."""

    def __init__(
        self, folder: Path, url: str, ca: Path, *, kubectl: Path, helm: Path, parts: Iterable[User] = ()
    ) -> None:
        super().__init__(folder, url, ca, kubectl=kubectl, helm=helm)
        self._users = PEOPLE | {part.name: part for part in parts}
        self._tokens = {name: secrets.token_urlsafe(24) for name in self._users}

    def write_tokens(self, path: Path) -> None:
        """Write the API server's token file: token, user, uid, groups."""
        path.touch(0o600)
        rows = (
            [self._tokens[u.name], u.name, u.name, *([",".join(u.groups)] if u.groups else [])]
            for u in self._users.values()
        )
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def token(self, user: str = "admin") -> str:
        """The bearer token of a user. Raises FailedError if there is no such user."""
        if user not in self._tokens:
            raise FailedError(f"there is no user {user}; there are {', '.join(self._tokens)}")
        return self._tokens[user]


class ImpersonatingAccess(Access):
    """Access to a person's own cluster. The kubeconfig's user impersonates the tests' users, and must be allowed to."""

    def __init__(self, folder: Path, given: Path, *, kubectl: Path, helm: Path) -> None:
        flat = subprocess.run(
            [kubectl, "--kubeconfig", given, "config", "view", "--minify", "--flatten", "--raw", "-o", "json"],
            check=True,
            capture_output=True,
        ).stdout
        self._flat: dict[str, Any] = json.loads(flat)
        server = self._flat["clusters"][0]["cluster"]
        ca = folder / "ca.crt"
        ca.write_bytes(base64.b64decode(server.get("certificate-authority-data", "")))
        super().__init__(folder, server["server"], ca, kubectl=kubectl, helm=helm)

    def document(self, user: str) -> dict[str, Any]:
        """The person's own kubeconfig: unchanged for admin, otherwise impersonating ``user``."""
        if user == "admin":
            return self._flat
        who = PEOPLE[user]
        own = self._flat["users"][0]
        acting = own["user"] | {"as": who.name, "as-groups": [*who.groups, "system:authenticated"]}
        return self._flat | {"users": [own | {"user": acting}]}
