"""The place that a command works on (a store or a cluster), and its form of output."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Literal

import click

from agentrun.api.texts import quoted

STORE = ".agentrun"
STORE_VARIABLE = "AGENTRUN_STORE"
NAMESPACE = "default"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""The name of a run or namespace: a DNS label."""

KUBECTL = "kubectl agentrun"
"""The program's name as a kubectl plugin. Under this name it works on a cluster unless a store is given."""


@dataclass(frozen=True, slots=True)
class Place:
    """The store and namespace that a command works on, and its form of output (None: text for people)."""

    url: str
    given_namespace: str | None = None
    output: Literal["json", "yaml"] | None = None

    @property
    def namespace(self) -> str:
        """The given namespace, or the default one."""
        return self.given_namespace or NAMESPACE

    @property
    def on_cluster(self) -> bool:
        """False."""
        return False

    def command(self, *words: str) -> str:
        """A command line of agentrun that works on the same place, ready to be copied."""
        parts = ["agentrun", *words]
        if self.url != os.environ.get(STORE_VARIABLE, STORE):
            parts += ["--store", self.url]
        if self.namespace != NAMESPACE:
            parts += ["-n", self.namespace]
        return shlex.join(parts)


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """The cluster and namespace that a command works on, and its form of output (None: text for people)."""

    program: str
    """The name that the person called: ``agentrun`` or ``kubectl agentrun``."""
    context: str | None = None
    kubeconfig: str | None = None
    given_namespace: str | None = None
    output: Literal["json", "yaml"] | None = None

    @property
    def on_cluster(self) -> bool:
        """True."""
        return True

    def command(self, *words: str) -> str:
        """A command line of agentrun that works on the same place, ready to be copied."""
        parts = [*self.program.split(), *words]
        given = (("--kubeconfig", self.kubeconfig), ("--context", self.context), ("-n", self.given_namespace))
        for option, value in given:
            parts += [option, value] if value is not None else []
        return shlex.join(parts)


AnyPlace = Place | ClusterPlace


def run_name(name: str) -> str:
    """Return ``name``. Raises BadParameter if it cannot be the name of a run."""
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{quoted(name)} is not the name of a run: see agentrun list")
    return name
