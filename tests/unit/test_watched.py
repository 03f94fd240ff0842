"""The table of watched kinds: whatever goes by kinds has each of them, and the operator may watch them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from kopf._cogs.structs.references import Resource

from agentrun.adapters.kopf_handlers import registry_for, settings_for
from agentrun.adapters.kopf_reading import SEEN
from agentrun.adapters.lister import ApiLists
from agentrun.adapters.watched import TO_VIEW, path_of, views_for
from agentrun.api.labels import RUN_LABEL
from agentrun.control.cache import Cache
from agentrun.control.controller import ON_GONE, ON_SEEN, Controller
from agentrun.control.lists import take_lists
from agentrun.control.views import APPROVALS, KEPT, PODS, RUNS, WATCHED, WORKFLOWS, Kind, WorkflowView
from agentrun.observe.health import Health
from agentrun.observe.metrics import Metrics

CHART = Path(__file__).parents[2] / "charts" / "agentrun"
NOTHING: Any = None

each = pytest.mark.parametrize("kind", WATCHED, ids=lambda kind: kind.plural)


def rules() -> list[dict[str, Any]]:
    """The operator's own, of each ClusterRole or Role: what the template defines is plain YAML."""
    text = (CHART / "templates" / "rbac" / "operator.yaml").read_text()
    found = re.search(r'{{- define "agentrun.rules" -}}\n(.*?){{- end -}}', text, re.DOTALL)
    assert found is not None and text.count('include "agentrun.rules"') == 2
    loaded: list[dict[str, Any]] = yaml.safe_load(found[1])
    return loaded


@each
def test_the_operators_role_lets_it_watch_the_kind(kind: Kind[Any]) -> None:
    verbs = {
        verb
        for rule in rules()
        if kind.group in rule["apiGroups"] and kind.plural in rule["resources"]
        for verb in rule["verbs"]
    }
    assert verbs >= {"get", "list", "watch"}


def test_the_operators_role_lists_and_watches_nothing_else() -> None:
    may = {
        (group, name)
        for rule in rules()
        for group in rule["apiGroups"]
        for name in rule["resources"]
        if "watch" in rule["verbs"]
    }
    assert may == {(kind.group, kind.plural) for kind in WATCHED}


def test_every_kind_has_its_view_and_runs_are_listed_last() -> None:
    assert set(TO_VIEW) == set(WATCHED) and views_for(float).keys() == {kind.kind for kind in WATCHED}
    assert {*ON_SEEN, *ON_GONE} <= set(WATCHED)
    # What is not kept has no place in the cache, so something else has to hear of it.
    assert {kind for kind in WATCHED if not kind.kept} <= set(ON_SEEN)
    assert KEPT[-1] is RUNS and all(len(Cache()[kind]) == 0 for kind in KEPT)


class Told:
    """A controller that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Kind[Any], Any]] = []

    def seen(self, kind: Kind[Any], view: Any) -> None:
        self.heard.append(("seen", kind, view))

    def gone(self, kind: Kind[Any], view: Any) -> None:
        self.heard.append(("gone", kind, view))


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def ask(self) -> None:
        self.times += 1


@each
async def test_kopf_watches_the_kind_and_hands_its_events_on(kind: Kind[Any]) -> None:
    told, asked, metrics = Told(), Asked(), Metrics()
    registry = registry_for(cast("Any", told), NOTHING, metrics, cast("Any", asked))
    resource = Resource(group=kind.group, version=kind.version, plural=kind.plural)
    (handler,) = [h for h in registry._watching.get_all_handlers() if h.selector and h.selector.check(resource)]
    view = object()
    for event in (None, "ADDED", "MODIFIED", "DELETED"):
        await cast("Any", handler.fn)(event={"type": event, "object": {SEEN: view}}, resource=resource)
    await cast("Any", handler.fn)(event={"type": "ADDED", "object": {SEEN: None}}, resource=resource)
    assert told.heard == [*[("seen", kind, view)] * 3, ("gone", kind, view)]
    assert asked.times == (1 if kind.kept else 0)
    assert f'agentrun_watch_age_seconds{{resource="{kind.plural}"}}' in metrics.render()[0].decode()
    labels = set(settings_for().watching.label_selectors.collect(resource))
    assert labels == ({kind.labels} if kind.labels else set())


class Paths:
    """Kube, of which is asked what nobody has."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def pages(self, path: str, labels: str = "", *, limit: int = 0) -> AsyncIterator[dict[str, Any]]:
        self.asked.append((path, labels))
        yield {"metadata": {"resourceVersion": "1"}, "items": []}


async def test_everything_that_is_kept_is_listed_before_the_operator_is_ready() -> None:
    kube, health = Paths(), Health(kind.plural for kind in KEPT)
    health.store(None)
    assert len((health.ready() or "").splitlines()) == len(KEPT)
    assert await take_lists(Cache(), ApiLists(cast("Any", kube), (), float, health)) == set()
    assert kube.asked == [(path_of(kind), kind.labels) for kind in KEPT]
    assert health.ready() is None


def test_where_the_api_server_has_them() -> None:
    assert path_of(PODS, "shop", "p") == "/api/v1/namespaces/shop/pods/p" and PODS.labels == RUN_LABEL
    assert path_of(RUNS) == "/apis/agentrun.dev/v1alpha1/agentruns"
    assert path_of(APPROVALS, "shop") == "/apis/agentrun.dev/v1alpha1/namespaces/shop/approvals"


def test_of_a_workflow_is_known_only_that_it_is_there() -> None:
    workflow = {"metadata": {"namespace": "shop", "name": "refund"}, "spec": {}}
    assert views_for(float)["AgentWorkflow"](workflow) == WorkflowView("shop", "refund")
    controller = object.__new__(Controller)  # neither a cache nor a queue is asked
    controller.gone(WORKFLOWS, WorkflowView("shop", "refund"))
