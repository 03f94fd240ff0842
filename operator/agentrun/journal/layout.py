"""Where the objects of a run stand (DESIGN: one folder per run, one per step below it)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from agentrun.api.facts import StepKey

SEQ_DIGITS = 8


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
        """The inverse of ``str``; the uid is a UUID without hyphens, so the last hyphen parts it."""
        namespace, _, rest = text.partition("/")
        name, _, uid = rest.rpartition("-")
        return cls(namespace, name, uid)

    @property
    def name_key(self) -> str:
        """The object that makes the name unique in its namespace and leads to the uid."""
        return name_key(self.namespace, self.name)

    @property
    def manifest(self) -> str:
        """The pinned run; an object there is what makes the run exist."""
        return f"{self}/run.json"

    @property
    def events(self) -> str:
        """Prefix of the run's own records."""
        return f"{self}/events/"

    @property
    def lease(self) -> str:
        """Who drives the run."""
        return f"{self}/driver.json"

    def step(self, key: StepKey) -> str:
        """Prefix of a step's records."""
        return f"{self}/steps/{key.path}/"

    def blob(self, digest: str) -> str:
        """A body by its ``sha256:…``."""
        return f"{self}/blobs/{digest.removeprefix('sha256:')}"

    def logs(self, key: StepKey | None = None) -> str:
        """Prefix of what the attempts of a step, or of all steps, logged."""
        return f"{self}/logs/" + (f"{key.path}/" if key else "")

    def log(self, key: StepKey, attempt: int, part: int) -> str:
        """A part of what an attempt logged; the parts follow each other."""
        return f"{self.logs(key)}{attempt:04d}.{part:06d}.log"


def name_key(namespace: str, name: str) -> str:
    """See ``RunPath.name_key``; the folder of a run ends with its uid, so none is called ``names``."""
    return f"{namespace}/names/{name}"


def entry(prefix: str, seq: int) -> str:
    """The key of record ``seq`` below ``prefix``."""
    return f"{prefix}{seq:0{SEQ_DIGITS}d}.json"


_ENTRY = re.compile(rf".*/[0-9]{{{SEQ_DIGITS},}}\.json")


def entries(keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that are records: what else somebody put there is for ``audit verify`` to name."""
    return [key for key in keys if _ENTRY.fullmatch(key)]


def seq_of(key: str) -> int:
    """The inverse of ``entry``."""
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))
