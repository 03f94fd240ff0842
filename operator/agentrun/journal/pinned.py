"""A pinned run: its ``run.json``, compiled, and the snapshots that a driver makes of it for the planner."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from agentrun.api.canonical import moment
from agentrun.api.errors import InvalidDocument
from agentrun.api.facts import Allowance, StepFact
from agentrun.api.keys import StepKey
from agentrun.api.run import Budget
from agentrun.api.values import money, seconds
from agentrun.api.workflow import WorkflowSpec
from agentrun.journal.paths import RunPath
from agentrun.journal.records import Damaged, Record
from agentrun.journal.runs import as_events, read_manifest
from agentrun.plan.attempt_tracker import AttemptTracker
from agentrun.plan.snapshot import Execution, Snapshot
from agentrun.records.manifest import RunManifest
from agentrun.store.protocol import Store
from agentrun.workflow.program import Program, compile_program


@dataclass(frozen=True, slots=True)
class PinnedRun:
    """A run with its manifest (``run.json``) and the program that was compiled from it."""

    run: RunPath
    manifest: RunManifest
    program: Program

    @property
    def on_cluster(self) -> bool:
        """Whether an operator drives the run. If so, people use the API server, which vouches for them."""
        return bool(self.manifest.get("cluster"))

    @classmethod
    def read(cls, store: Store, run: RunPath) -> PinnedRun:
        """Read and compile. Raises Damaged."""
        return cls.of(run, read_manifest(store, run))

    @classmethod
    def of(cls, run: RunPath, manifest: RunManifest) -> PinnedRun:
        """Compile ``manifest``. Raises Damaged."""
        return cls(run, manifest, program_of(manifest["workflow"], run.manifest))

    @property
    def started(self) -> float:
        """When the run was made, in seconds since the epoch. Raises Damaged."""
        try:
            return moment(self.manifest["createdAt"])
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{self.run.manifest}: createdAt is not an instant; the object was damaged") from error

    def snapshot(
        self,
        now: float,
        facts: dict[StepKey, StepFact],
        events: list[Record],
        executions: dict[StepKey, Execution] | None = None,
    ) -> Snapshot:
        """The planner's snapshot of the run, as far as the journal tells."""
        m = self.manifest
        budget = Budget.model_validate(m.get("budget", {}))
        return Snapshot(
            program=self.program,
            run=_named(m),
            inputs=m["inputs"],
            started=self.started,
            now=now,
            budget=Allowance(
                budget.model_calls,
                budget.tokens,
                budget.tool_calls,
                None if budget.cost_usd is None else money(budget.cost_usd),
            ),
            timeout=seconds(timeout) if (timeout := m.get("timeout")) else None,
            facts=facts,
            executions=executions or {},
            events=as_events(events),
            verified=self.on_cluster,
        )

    def driven(
        self,
        now: float,
        attempts: AttemptTracker,
        events: list[Record],
        executions: dict[StepKey, Execution],
        unheard: Set[str] = frozenset(),
    ) -> Snapshot:
        """A driver's snapshot of the run: it adds what the driver knows of attempts and no journal tells."""
        return replace(
            self.snapshot(now, attempts.facts, events, executions),
            unopened=attempts.unopened,
            lost_at=attempts.lost_at,
            troubles=attempts.troubles,
            adrift=attempts.adrift(),
            unheard=unheard,
        )


def _named(manifest: RunManifest) -> dict[str, str]:
    """The variable ``run`` of expressions, without the fields that are None."""
    found = {name: manifest.get(name) for name in ("name", "namespace", "requestedBy", "uid")}
    return {name: str(value) for name, value in found.items() if value is not None}


def program_of(workflow: Any, key: str) -> Program:
    """The program of the ``workflow`` in a ``run.json``. Raises Damaged, with ``key`` as the object's name."""
    try:
        return compile_program(WorkflowSpec.model_validate(workflow), pinned=True)
    except (ValidationError, InvalidDocument) as error:
        what = str(error).splitlines()[0]
        raise Damaged(f"{key}: its workflow cannot be read ({what}); the object was damaged") from error
