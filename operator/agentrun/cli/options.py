"""The options of every verb: where the runs are, and the form of output.

Only this module decides between a store and a cluster. A verb gets the backend.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from agentrun.api.texts import quoted
from agentrun.cli.place import KUBECTL, NAME, NAMESPACE, STORE, STORE_VARIABLE, AnyPlace, ClusterPlace, Place

if TYPE_CHECKING:
    from agentrun.cli.backend import Backend

F = TypeVar("F", bound=Callable[..., Any])

_STORE_ONLY = {
    "secrets": "step pods read their Secrets from the run's namespace",
    "groups": "the API server knows who you are and which groups you are in (kubectl auth whoami)",
}
"""Parameters that have no meaning on a cluster, and why."""


def place_options(command: F) -> F:
    """Add the options for the place (a store or a cluster, the namespace) and for the form of output to ``command``."""
    for option in (
        click.option(
            "-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the result as an object in this format."
        ),
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
"""The parameters of ``place_options``."""


def remember_place(ctx: click.Context, **given: str | None) -> None:
    """Keep the options that stand before the verb, for the verb."""
    ctx.obj = given


def verb(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a verb. Its first argument is the backend.

    Options after the verb win over options before it.
    """

    def decorate(function: Callable[..., int]) -> click.Command:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> int:
            context = click.get_current_context()
            place = _place(context, {field: kwargs.pop(field) for field in PLACE})
            if isinstance(place, ClusterPlace):
                _check_meant(context, kwargs)
            return function(_backend(context, place), *args, **kwargs)

        return click.command(name)(place_options(call))

    return decorate


def _place(context: click.Context, after: dict[str, str | None]) -> AnyPlace:
    before = context.find_object(dict) or {}
    given = {field: after[field] or before.get(field) for field in PLACE}
    where = given["namespace"]
    if where is not None and not NAME.fullmatch(where):
        raise click.BadParameter(f"{quoted(where)} is not a namespace: use lower-case letters, digits and hyphens")
    cluster = given["context"] or given["kubeconfig"]
    if cluster and given["store"]:
        raise click.UsageError("--store names a store, --context and --kubeconfig name a cluster: give only one")
    form: Any = given["output"]
    program = context.find_root().info_name or ""
    if cluster or (program == KUBECTL and not given["store"]):
        return ClusterPlace(program, given["context"], given["kubeconfig"], where, form)
    return Place(given["store"] or os.environ.get(STORE_VARIABLE) or STORE, where, form)


def _check_meant(context: click.Context, given: Iterable[str]) -> None:
    """Raise UsageError if the command line has a parameter that has no meaning on a cluster."""
    for parameter in _STORE_ONLY.keys() & given:
        if context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE:
            option = next(p for p in context.command.params if p.name == parameter).opts[-1]
            raise click.UsageError(f"{option} has no effect on a cluster: {_STORE_ONLY[parameter]}")


def _backend(context: click.Context, place: AnyPlace) -> Backend[Any]:
    # lazy: neither backend needs the imports of the other
    if isinstance(place, ClusterPlace):
        from agentrun.cli.on_cluster.backend import ClusterBackend  # noqa: PLC0415

        cluster = ClusterBackend(place)
        context.call_on_close(cluster.client.close)
        return cluster
    from agentrun.cli.on_store.backend import StoreBackend  # noqa: PLC0415

    return StoreBackend(place)
