"""The keys of a run's objects: one folder for each run, and below it one for each step.

A log with many writers needs no run: ``LogOwner`` is all that it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from agentrun.api.keys import StepKey

SEQ_DIGITS = 8


class LogOwner(Protocol):
    """What has a log with many writers, and blobs beside it. ``str`` of it is what the log's records name."""

    @property
    def namespace(self) -> str:
        """The namespace that it belongs to."""

    @property
    def events(self) -> str:
        """Prefix of the log's records."""

    def blob(self, digest: str) -> str:
        """A blob, by its digest ``sha256:…``."""


@dataclass(frozen=True, slots=True)
class RunPath:
    """The folder of one run: ``<namespace>/<name>-<uid>``."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}-{self.uid}"

    @classmethod
    def parse(cls, text: str) -> RunPath:
        """The inverse of ``str``. The uid is a UUID without hyphens, so the last hyphen separates it from the name."""
        namespace, _, rest = text.partition("/")
        name, _, uid = rest.rpartition("-")
        return cls(namespace, name, uid)

    @property
    def name_key(self) -> str:
        """The object that makes the name unique in its namespace; it holds the uid."""
        return name_key(self.namespace, self.name)

    @property
    def manifest(self) -> str:
        """The run's manifest. Without it the run does not exist."""
        return f"{self}/run.json"

    @property
    def events(self) -> str:
        """Prefix of the run's own records."""
        return f"{self}/events/"

    @property
    def lease(self) -> str:
        """The lease: who drives the run."""
        return f"{self}/driver.json"

    def step(self, key: StepKey) -> str:
        """Prefix of a step's records."""
        return f"{self}/steps/{key.path}/"

    def blob(self, digest: str) -> str:
        """A blob, by its digest ``sha256:…``."""
        return f"{self}/blobs/{digest.removeprefix('sha256:')}"

    def logs(self, key: StepKey | None = None) -> str:
        """Prefix of the logs of the attempts of a step, or of all steps."""
        return f"{self}/logs/" + (f"{key.path}/" if key else "")

    def log(self, key: StepKey, attempt: int, part: int) -> str:
        """One part of an attempt's log. Parts are numbered in their order."""
        return f"{self.logs(key)}{attempt:04d}.{part:06d}.log"


def name_key(namespace: str, name: str) -> str:
    """See ``RunPath.name_key``. The folder of a run ends with its uid, so no run's folder is called ``names``."""
    return f"{namespace}/names/{name}"


def entry(prefix: str, seq: int) -> str:
    """The key of record ``seq`` below ``prefix``."""
    return f"{prefix}{seq:0{SEQ_DIGITS}d}.json"


_ENTRY = re.compile(rf".*/[0-9]{{{SEQ_DIGITS},}}\.json")


def entries(keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that are records. ``audit verify`` names other objects that somebody put there."""
    return [key for key in keys if _ENTRY.fullmatch(key)]


def seq_of(key: str) -> int:
    """The inverse of ``entry``."""
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))
