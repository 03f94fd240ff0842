"""What every verb understands: where the runs are, and in which form it answers.

A verb is written once for a store, in ``agentrun.cli.MODULE``, and once for a cluster, in the module of the same name
of ``agentrun.cli.on_cluster``; which one is meant is decided here and nowhere else.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from agentrun.api.texts import quoted

if TYPE_CHECKING:
    from agentrun.cli.on_cluster.client import Client
    from agentrun.journal.layout import RunPath
    from agentrun.store.protocol import Store

F = TypeVar("F", bound=Callable[..., Any])

STORE = ".agentrun"
STORE_VARIABLE = "AGENTRUN_STORE"
NAMESPACE = "default"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What runs and namespaces are called: a DNS label."""

KUBECTL = "kubectl agentrun"
"""What the program is called as a plugin of kubectl; then a cluster is meant where no store is named."""

_STORE_ONLY = {
    "secrets": "there the pods of steps get their Secrets from the namespace",
    "groups": "there the API server knows who you are and which groups you are in (kubectl auth whoami)",
}
"""Parameters that mean nothing on a cluster, and why."""


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
        from agentrun.store.open import open_store  # noqa: PLC0415  (lazy: ``validate`` needs no store)

        return open_store(self.url)

    def find(self, store: Store, name: str) -> RunPath:
        """The run of that name in the namespace. Raises NoSuchRun."""
        from agentrun.journal.run import find_run  # noqa: PLC0415

        return find_run(store, self.namespace, run_name(name))

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
    """Which cluster and namespace a command works on, and its form of output: None for people."""

    program: str
    """What the person called: ``agentrun`` or ``kubectl agentrun``."""
    context: str | None = None
    kubeconfig: str | None = None
    given_namespace: str | None = None
    output: Literal["json", "yaml"] | None = None

    def open(self) -> Client:
        """A client of its API server, until the command ends."""
        from agentrun.cli.on_cluster.client import Client  # noqa: PLC0415  (lazy: a store needs none of it)

        client = Client(self.kubeconfig, self.context)
        click.get_current_context().call_on_close(client.close)
        return client

    def inside(self, namespace: str) -> ClusterPlace:
        """The same, whose command lines name this namespace."""
        return replace(self, given_namespace=namespace)

    def command(self, *words: str) -> str:
        """A command line of agentrun that works on the same place, ready to be copied."""
        parts = [*self.program.split(), *words]
        given = (("--kubeconfig", self.kubeconfig), ("--context", self.context), ("-n", self.given_namespace))
        for option, value in given:
            parts += [option, value] if value is not None else []
        return shlex.join(parts)


AnyPlace = Place | ClusterPlace


def run_name(name: str) -> str:
    """``name``. Raises BadParameter where no run can be called so."""
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{quoted(name)} is not the name of a run: see agentrun list")
    return name


def place_options(command: F) -> F:
    """Give ``command`` the options that say where: a store or a cluster, the namespace; and the form of the answer."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Answer in this form."),
        click.option(
            "-n", "--namespace", metavar="NAMESPACE", help=f"Namespace of the run ({NAMESPACE}; or the context's)."
        ),
        click.option("--kubeconfig", metavar="FILE", help="The cluster of this kubeconfig."),
        click.option("--context", metavar="NAME", help="The cluster of this context of the kubeconfig."),
        click.option("--store", metavar="DIR|s3://…", help=f"Where runs are kept (${STORE_VARIABLE}, or {STORE})."),
    ):
        command = option(command)
    return command


PLACE = ("store", "context", "kubeconfig", "namespace", "output")
"""The parameters that ``place_options`` gives."""


def remember_place(ctx: click.Context, **given: str | None) -> None:
    """Keep what was given before the verb, for the verb."""
    ctx.obj = given


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a verb: it is given its place first. What stands after the verb wins over what stands before.

    Where a cluster is meant, the function ``NAME_verb`` of the module's namesake in ``on_cluster`` is called instead,
    with those of the parameters that it has.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            context = click.get_current_context()
            place = _place(context, {field: kwargs.pop(field) for field in PLACE})
            if isinstance(place, Place):
                return function(place, *args, **kwargs)
            module = importlib.import_module(f"agentrun.cli.on_cluster.{function.__module__.rpartition('.')[2]}")
            there = getattr(module, f"{name}_verb", None)
            if there is None:
                raise click.UsageError(f"{name} is for a store: on a cluster its operator does that")
            return _on_cluster(context, there, place, kwargs)

        return click.command(name)(place_options(call))

    return decorate


def _place(context: click.Context, after: dict[str, str | None]) -> AnyPlace:
    before = context.find_object(dict) or {}
    given = {field: after[field] or before.get(field) for field in PLACE}
    where = given["namespace"]
    if where is not None and not NAME.fullmatch(where):
        raise click.BadParameter(f"{quoted(where)} is not a namespace: small letters, digits and hyphens")
    cluster = given["context"] or given["kubeconfig"]
    if cluster and given["store"]:
        raise click.UsageError("--store is a store, --context and --kubeconfig are a cluster: give one of them")
    form: Any = given["output"]
    program = context.find_root().info_name or ""
    if cluster or (program == KUBECTL and not given["store"]):
        return ClusterPlace(program, given["context"], given["kubeconfig"], where, form)
    return Place(given["store"] or os.environ.get(STORE_VARIABLE) or STORE, where, form)


def _on_cluster(
    context: click.Context, function: Callable[..., Any], place: ClusterPlace, kwargs: dict[str, Any]
) -> Any:
    """Call ``function`` with what it takes. Raises UsageError where more was given than means something there."""
    takes = inspect.signature(function).parameters
    for parameter in kwargs.keys() - takes.keys():
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            option = next(p for p in context.command.params if p.name == parameter).opts[-1]
            raise click.UsageError(f"{option} means nothing on a cluster: {_STORE_ONLY[parameter]}")
    return function(place, **{parameter: value for parameter, value in kwargs.items() if parameter in takes})
