"""What every verb understands: where the runs are, and in which form it answers."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from agentrun.journal.layout import RunPath
    from agentrun.journal.store import Store

F = TypeVar("F", bound=Callable[..., Any])

STORE = ".agentrun"
STORE_VARIABLE = "AGENTRUN_STORE"
NAMESPACE = "default"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What runs and namespaces are called: a DNS label."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which store and namespace a command works on, and its form of output: None for people."""

    url: str
    given_namespace: str | None = None
    output: Literal["json", "yaml"] | None = None

    @property
    def namespace(self) -> str:
        """The namespace that was given, or the default one."""
        return self.given_namespace or NAMESPACE

    def open(self) -> Store:
        """The store. Raises StoreUnfit where the address is none."""
        from agentrun.journal.open_store import open_store  # noqa: PLC0415  (lazy: ``validate`` needs no store)

        return open_store(self.url)

    def find(self, store: Store, name: str) -> RunPath:
        """The run of that name in the namespace. Raises NoSuchRun."""
        from agentrun.journal.run import find_run  # noqa: PLC0415

        if not NAME.fullmatch(name):
            raise click.BadParameter(f"{name!r} is not the name of a run: see agentrun list")
        return find_run(store, self.namespace, name)

    def command(self, *words: str) -> str:
        """A command line of agentrun that works on the same place, ready to be copied."""
        parts = ["agentrun", *words]
        if self.url != os.environ.get(STORE_VARIABLE, STORE):
            parts += ["--store", self.url]
        if self.namespace != NAMESPACE:
            parts += ["-n", self.namespace]
        return shlex.join(parts)


def place_options(command: F) -> F:
    """Give ``command`` the options ``--store``, ``-n`` and ``-o``."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Answer in this form."),
        click.option("-n", "--namespace", metavar="NAMESPACE", help=f"Namespace of the run ({NAMESPACE})."),
        click.option("--store", metavar="DIR|s3://…", help=f"Where runs are kept (${STORE_VARIABLE}, or {STORE})."),
    ):
        command = option(command)
    return command


def remember_place(ctx: click.Context, store: str | None, namespace: str | None, output: str | None) -> None:
    """Keep what was given before the verb, for the verb."""
    ctx.obj = {"store": store, "namespace": namespace, "output": output}


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a verb: it is given its place first. What stands after the verb wins over what stands before."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(*args: Any, store: str | None, namespace: str | None, output: str | None, **kwargs: Any) -> Any:
            before = click.get_current_context().find_object(dict) or {}
            url = store or before.get("store") or os.environ.get(STORE_VARIABLE) or STORE
            where = namespace or before.get("namespace")
            if where is not None and not NAME.fullmatch(where):
                raise click.BadParameter(f"{where!r} is not a namespace: small letters, digits and hyphens")
            form: Any = output or before.get("output")
            return function(Place(url, where, form), *args, **kwargs)

        return click.command(name)(place_options(call))

    return decorate
