"""The real parts that measurements run against: model, backend, stores, runs and the runner's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.attempt.spec import AttemptSpec
from agentrun.documents.document import parse
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.journal.runs import create_run
from agentrun.plan.planner import plan
from agentrun.plan.snapshot import Start
from agentrun.store.open import open_store
from agentrun.store.protocol import Store
from agentrun.workflow.pinning import pin
from tests.servers.versitygw import S3Server

ROOT = Path(__file__).parents[2]
MODEL = "gpt-5.5"


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A scripted model in a process of its own."""

    url: str
    ledger: Path

    def arrivals(self) -> list[float]:
        """When each request arrived, in seconds since the epoch, by the server's own clock, which is ours."""
        from agentrun.api.canonical import moment

        return [moment(json.loads(line)["at"]) for line in self.ledger.read_text().splitlines()]


@dataclass(slots=True)
class Parts:
    """What a measurement may use. ``folder`` is empty and goes when the bench ends."""

    folder: Path
    s3: S3Server
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    def new_folder(self) -> Path:
        """A fresh folder."""
        path = self.folder / f"part-{next(self._numbers)}"
        path.mkdir()
        return path

    def stores(self) -> dict[str, str]:
        """A fresh store of each kind, by what the table calls it."""
        return {"folder": str(self.new_folder()), "S3": f"s3://{self.s3.new_bucket()}/bench"}

    @contextmanager
    def model(self, rules: Sequence[Mapping[str, Any]], host: str = "127.0.0.1") -> Iterator[ModelServer]:
        """Run a scripted model at the address ``host``; the process's OPENAI_BASE_URL leads to it."""
        script = self.new_folder() / "script.yaml"
        script.write_text(json.dumps({"rules": rules}))
        ledger = script.with_name("ledger.jsonl")
        ledger.touch()
        with _serving("examples.scripted_model", str(script), "--ledger", str(ledger), "--host", host) as url:
            os.environ["OPENAI_BASE_URL"] = url
            yield ModelServer(url, ledger)

    @contextmanager
    def backend(self) -> Iterator[str]:
        """Run the refund example's backend; its URL."""
        with _serving("examples.refund.backend", "--dir", str(self.new_folder())) as url:
            yield url


@contextmanager
def _serving(module: str, *arguments: str) -> Iterator[str]:
    environment = os.environ | {"BACKEND_TOKEN": "bench"}
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{module} does not start; it ended with {server.wait()}")
            yield url
        finally:
            server.terminate()


def start_run(store: Store, steps: Sequence[Mapping[str, Any]], **spec: Any) -> RunPath:
    """Make a run of ``steps``. ``spec``: what else its workflow says."""
    workflow = {"models": [{"name": "main", "model": MODEL}], "steps": list(steps), **spec}
    document = {
        "apiVersion": "agentrun.dev/v1alpha1",
        "kind": "AgentRun",
        "metadata": {"generateName": "bench-"},
        "spec": {"workflow": workflow},
    }
    manifest = pin(
        parse(json.dumps(document).encode(), "bench.json"),
        {},
        name=None,
        namespace=None,
        now=time.time(),
        new_id=lambda: uuid.uuid4().hex,
        requested_by="ana",
    )
    return create_run(store, manifest)


def first_start(store: Store, run: RunPath) -> AttemptSpec:
    """What the first attempt is told that the planner starts in ``run``."""
    planned = plan(PinnedRun.read(store, run).snapshot(time.time(), {}, []))
    start = next(effect for effect in planned.effects if isinstance(effect, Start))
    return AttemptSpec(store.url, run, start, leash=False)


def runner(spec: AttemptSpec) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of the step's process."""
    return [sys.executable, "-m", "agentrun.runner"], os.environ | {STEP_VARIABLE: spec.to_json()}


def agent_run(url: str, prompt: str = "hello") -> AttemptSpec:
    """A fresh run of one agent step in the store ``url``, about to start."""
    store = open_store(url)
    return first_start(store, start_run(store, [{"name": "ask", "agent": {"prompt": prompt}}]))
