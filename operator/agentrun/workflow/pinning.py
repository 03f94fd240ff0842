"""Makes a run's manifest from documents: checks everything before anything is written, and pins the workflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentrun.api.canonical import digest_of, timestamp
from agentrun.api.errors import InvalidDocument, Path, Problem
from agentrun.api.run import AgentRun, AgentWorkflow, RunSpec
from agentrun.api.texts import quoted
from agentrun.api.workflow import WorkflowSpec
from agentrun.documents.document import Document
from agentrun.records.manifest import RunManifest
from agentrun.workflow.json_schema import compile_schema
from agentrun.workflow.lint import absent_inputs, checked_program, other_forms
from agentrun.workflow.program import Program
from agentrun.workflow.step_kinds import model_of

NAME_MAX = 50

HINT = "; give it with -i KEY=VALUE or --inputs FILE"
"""What to do about wrong inputs, except on a cluster, where the inputs are in the object."""

Compiler = Callable[[WorkflowSpec, Path], Program]
"""Checks and compiles a workflow, given its path in the document. Raises InvalidDocument."""


Tell = Callable[[str], None]
"""Receives a warning: a line that names the file, the place and the likely mistake."""

WARNINGS_MAX = 20


def check(documents: Sequence[Document], warn: Tell | None = None) -> list[str]:
    """Check ``documents`` as far as that is possible without a run. Return notes on what could not be checked.

    Raises:
        InvalidDocument: for the first document with problems, with all its problems.
    """
    notes = []
    workflows = _compile_all(documents, checked_program, warn)
    for document in documents:
        if isinstance(document.model, AgentRun):
            workflow = _find_workflow(documents, document.model.spec)
            if workflow is None:
                name = document.model.spec.workflow_ref.name if document.model.spec.workflow_ref else ""
                notes.append(f"{document.source}: AgentWorkflow {name} is not in this file: inputs were not checked")
                continue
            _check_run(document, document.model.spec, workflow)
            _check_inputs(document, workflow, document.model.spec.inputs)
            _warn_of_absent(workflows, workflow, document.model.spec.inputs, HINT, warn)
    return notes


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A workflow of a document, its path there, and its program."""

    document: Document
    spec: WorkflowSpec
    path: Path
    program: Program


def _compile_all(documents: Sequence[Document], compiled: Compiler, warn: Tell | None) -> list[_Compiled]:
    found = []
    for document in documents:
        if warn is not None:
            _warn(document, document.node.doubts, warn)
        path: Path = ("spec",)
        if isinstance(document.model, AgentWorkflow):
            spec = document.model.spec
        elif document.model.spec.workflow is not None:
            spec, path = document.model.spec.workflow, ("spec", "workflow")
        else:
            continue
        try:
            found.append(_Compiled(document, spec, path, compiled(spec, path)))
        except InvalidDocument as error:
            raise _invalid(document, error.problems) from error
        if warn is not None:
            _warn(document, list(other_forms(spec, path)), warn)
    return found


def _warn(document: Document, found: Sequence[Problem], warn: Tell) -> None:
    if not found:
        return
    lines = _invalid(document, found[:WARNINGS_MAX]).describe()
    more = (
        [f"{document.source}: {len(found) - WARNINGS_MAX} more warnings like this"] if len(found) > WARNINGS_MAX else []
    )
    for line in (*lines, *more):
        warn(f"warning: {line}")


def pin(
    documents: Sequence[Document],
    inputs: dict[str, Any],
    *,
    name: str | None,
    namespace: str | None,
    now: float,
    new_id: Callable[[], str],
    requested_by: str | None,
    cluster: bool = False,
    compiled: Compiler = checked_program,
    warn: Tell | None = None,
) -> RunManifest:
    """The manifest (``run.json``) of the one run that ``documents`` describe; ``inputs`` override the run's own.

    The run is the only AgentRun among ``documents``; or, if ``documents`` is a single AgentWorkflow, a run of that.

    ``cluster``: an operator will drive the run, and only what comes through its API server counts. ``compiled`` checks
    and compiles a workflow; a version with a cache saves time. ``warn`` receives likely mistakes.

    Raises:
        InvalidDocument: the documents describe no run or several, or something in them is wrong.
    """
    workflows = _compile_all(documents, compiled, warn)
    document, run = _the_run(documents)
    workflow = workflow_of(documents, document)
    _check_run(document, run, workflow)
    pinned = workflow.model_dump(mode="json", by_alias=True, exclude_unset=True)
    merged = {**run.inputs, **inputs}
    _check_inputs(document, workflow, merged, "" if cluster else HINT)
    _warn_of_absent(workflows, workflow, merged, "" if cluster else HINT, warn)
    meta = document.model.metadata
    uid = new_id()
    base = name or meta.name or meta.generate_name or "run"
    if name is None and (meta.name is None or isinstance(document.model, AgentWorkflow)):
        base = f"{base.rstrip('-')[: NAME_MAX - 6]}-{uid[:5]}"
    manifest: RunManifest = {
        "v": 1,
        "name": _name(document, base),
        "namespace": namespace or meta.namespace or "default",
        "uid": uid,
        "createdAt": timestamp(now),
        "requestedBy": requested_by,
        "workflow": pinned,
        "workflowDigest": digest_of(pinned),
        "inputs": merged,
        "budget": run.budget.model_dump(mode="json", by_alias=True, exclude_none=True),
        "timeout": run.timeout,
        "suspend": run.suspend,
        "cancel": run.cancel,
        "source": run.source.model_dump(mode="json", exclude_none=True) if run.source else None,
        "labels": meta.labels,
    }
    if run.identity is not None:
        manifest["identity"] = run.identity.model_dump(by_alias=True)
    if cluster:
        manifest["cluster"] = True
    return manifest


def workflow_of(documents: Sequence[Document], document: Document) -> WorkflowSpec:
    """The workflow that ``document`` runs: its own, or another document's of the same file.

    Raises:
        InvalidDocument: it refers to a workflow that is not in the file.
    """
    if isinstance(document.model, AgentWorkflow):
        return document.model.spec
    found = _find_workflow(documents, document.model.spec)
    if found is not None:
        return found
    assert document.model.spec.workflow_ref is not None
    there = [d.model for d in documents if isinstance(d.model, AgentWorkflow)]
    names = ", ".join(str(other.metadata.name) for other in there) or "none"
    message = (
        f"there is no AgentWorkflow {quoted(document.model.spec.workflow_ref.name)} in this file (it has: {names}); "
        "on one machine, put it into the same file, after a line ---"
    )
    raise _invalid(document, [Problem(("spec", "workflowRef", "name"), message)])


def _find_workflow(documents: Sequence[Document], run: RunSpec) -> WorkflowSpec | None:
    if run.workflow is not None:
        return run.workflow
    assert run.workflow_ref is not None
    there = (d.model for d in documents if isinstance(d.model, AgentWorkflow))
    return next((w.spec for w in there if w.metadata.name == run.workflow_ref.name), None)


def _the_run(documents: Sequence[Document]) -> tuple[Document, RunSpec]:
    runs = [d for d in documents if isinstance(d.model, AgentRun)]
    if len(runs) == 1:
        assert isinstance(runs[0].model, AgentRun)
        return runs[0], runs[0].model.spec
    if not runs and len(documents) == 1:
        model = documents[0].model
        assert isinstance(model, AgentWorkflow)
        return documents[0], RunSpec(workflow=model.spec)
    what = f"{len(runs)} AgentRuns" if runs else f"{len(documents)} AgentWorkflows and no AgentRun"
    raise InvalidDocument([Problem((), f"the file has {what}; keep one to run")], documents[0].source)


def _check_run(document: Document, run: RunSpec, workflow: WorkflowSpec) -> None:
    problems = []
    if run.budget.cost_usd is not None:
        used = [model_of(workflow, step.body) for step in [*workflow.steps, *workflow.finally_]]
        for model in {m.name: m for m in used if m is not None and m.price is None}.values():
            message = f"a budget in money needs the price of model {model.name}: give spec.models[].price"
            problems.append(Problem(("spec", "budget", "costUSD"), message))
    if problems:
        raise _invalid(document, problems)


def _check_inputs(document: Document, workflow: WorkflowSpec, inputs: dict[str, Any], hint: str = HINT) -> None:
    errors = compile_schema(workflow.inputs).errors(inputs)
    if errors:
        raise _invalid(document, [Problem(("spec", "inputs"), f"{error}{hint}") for error in errors])


def _warn_of_absent(
    workflows: Sequence[_Compiled], workflow: WorkflowSpec, inputs: dict[str, Any], hint: str, warn: Tell | None
) -> None:
    """Warn of inputs that the workflow names and the run does not have."""
    if warn is not None:
        of = next(found for found in workflows if found.spec is workflow)
        absent = absent_inputs(of.program, inputs, of.path)
        _warn(of.document, [Problem(problem.path, f"{problem.message}{hint}") for problem in absent], warn)


def _invalid(document: Document, problems: Sequence[Problem]) -> InvalidDocument:
    return InvalidDocument(problems, document.source, dict(document.lines))


def _name(document: Document, name: str) -> str:
    if len(name) > NAME_MAX or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        message = f"{quoted(name)} is not a name: lower-case letters, digits and '-', at most {NAME_MAX} characters"
        raise _invalid(document, [Problem(("metadata", "name"), message)])
    return name
