"""``python -m tests.soak [--minutes 10] [--seed N]``: the findings as lines, and as the exit code."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from examples.scripted_model import ScriptedModel

from tests.cluster import cluster as clusters
from tests.cluster import scenes
from tests.cluster.access import UNWATCHED
from tests.cluster.operator import Operator, installed, says
from tests.cluster.places import FailedError, MissingError, say
from tests.servers.ledger import Ledger
from tests.soak import verdict
from tests.soak.faults import Chaos
from tests.soak.load import ENDS, SCRIPT, Harm, People, Tenant, Timed, workflows

ALONE = 5
"""Small runs that are timed before anything else is there."""

PATIENCE = 300.0
"""Seconds in which every run ends once the chaos is over."""


def main() -> int:
    """Run it; 1 where something does not hold, 2 where this machine can't."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Chaos on a real Kubernetes.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="what decides the order of faults; printed")
    parser.add_argument("--no-faults", action="store_true", help="poison alone")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    say(f"{given.minutes:g} minutes, --seed {seed}")
    try:
        with tempfile.TemporaryDirectory(prefix="agentrun-soak-") as folder, clusters.running(Path(folder)) as cluster:
            if cluster.node is None:
                raise MissingError("this breaks nodes and processes: only on a cluster of ours")
            with installed(cluster) as operator:
                findings = soak(operator, given.minutes * 60, seed, faults=not given.no_faults)
    except (MissingError, FailedError) as error:
        say(str(error))
        return 2
    for finding in findings:
        print(f"{'holds ' if finding.holds else 'BROKEN'}  {finding.what}: {finding.measured}")
    broken = sum(not finding.holds for finding in findings)
    print(f"{len(findings) - broken} passed, {broken} failed")
    return 1 if broken else 0


def soak(operator: Operator, seconds: float, seed: int, *, faults: bool) -> list[verdict.Finding]:
    """Let all tenants and the chaos work for so long; what holds."""
    with ExitStack() as closing:
        host = operator.cluster.host
        ledger = closing.enter_context(Ledger(lambda: time.sleep(random.uniform(0, 1.0)), host))
        key = clusters.MODEL_KEY
        model = closing.enter_context(ScriptedModel(SCRIPT, host=host, key=key))
        spaces = [operator.namespace(), operator.namespace(), operator.namespace(UNWATCHED)]
        documents = workflows(ledger.url, model.url)
        operator.apply(spaces[0], *(scenes.workflow(name, **spec) for name, spec in documents.items()))
        operator.cluster.apply(_editor(spaces[2]))
        timed = Timed(operator, spaces[1])
        for _ in range(ALONE):
            timed.once()
        alone = [took.seconds for took in timed.took]
        timed.took.clear()

        tenant = Tenant(operator, spaces[0], documents, seed)
        people = People(operator, spaces[0], ledger)
        harm = Harm(operator, spaces[2], seed)
        chaos = Chaos(operator, spaces[0], seed)
        logs, samples = [operator.logs()], [verdict.memory(operator)]

        def note() -> None:
            logs.append(operator.logs("40s"))
            samples.append(verdict.memory(operator))

        stop, over = threading.Event(), threading.Event()
        works = [tenant.run, timed.run, harm.run, *([chaos.run] if faults else [])]
        with _Threads(stop, *works), _Threads(over, people.run):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(min(20.0, max(0.0, end - time.monotonic())))
                note()
                last = chaos.windows[-1][2] if chaos.windows else "none"
                say(
                    f"{end - time.monotonic():.0f} s left: {len(tenant.submitted)} runs, {len(chaos.windows)} faults "
                    f"(last: {last}), {harm.written} bad objects taken and {harm.refused} refused, "
                    f"{samples[-1] / 2**20:.0f} MiB"
                )
            stop.set()
            _settle(operator, tenant)
            note()
            over.set()
        say(f"faults: {', '.join(name for *_, name in chaos.windows) or 'none'}; missed: {chaos.missed or 'none'}")
        refused = sorted(set(people.said))[:5]
        say(f"people answered: {people.answered or 'nothing'}; were refused: {refused or 'nothing'}")
        return [
            *verdict.judge(operator, tenant, ledger, model.ledger),
            verdict.punctual(timed, alone, chaos),
            verdict.quiet_logs(logs),
            verdict.flat(samples),
        ]


def _settle(operator: Operator, tenant: Tenant) -> None:
    """Wait until every run has ended, for a while; say what the rest is in."""

    def still() -> list[str]:
        return [n for n in tenant.submitted if not ENDS & says(operator.runs.get(tenant.namespace, n) or {})]

    end = time.monotonic() + PATIENCE
    while (open_ := still()) and time.monotonic() < end:
        say(f"the chaos is over; open: {', '.join(open_)}")
        time.sleep(15)
    for name in open_[:1]:
        say(operator.explain(tenant.namespace, name))


def _editor(namespace: str) -> scenes.Document:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "eve-edit", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    }


class _Threads:
    """Work in threads until ``stop`` is set; what one of them raises is raised at the end."""

    def __init__(self, stop: threading.Event, *works: Callable[[threading.Event], None]) -> None:
        self._stop = stop
        self._raised: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(work,)) for work in works]

    def _work(self, work: Callable[[threading.Event], None]) -> None:
        try:
            work(self._stop)
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            self._raised.append(error)

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for error in self._raised:
            raise error


if __name__ == "__main__":
    sys.exit(main())
