"""The stage of an end-to-end test: a model, a host of tools, the shop's backend, and the command line as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from examples.refund.backend import Backend
from examples.scripted_model import ScriptedModel

from tests.e2e.toolhost import ToolHost

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which a test stops waiting for what should have come at once."""
TOKEN = "shop-token-4711"
KEY = "model-key-4711"


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit {self.code}\n--- standard output\n{self.out}\n--- standard error\n{self.err}"


def until(what: str, test: Callable[[], T], patience: float = PATIENCE) -> T:
    """Wait until ``test`` gives something; what it gave."""
    end = time.monotonic() + patience
    while not (found := test()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come within {patience:g} s")
        time.sleep(0.02)
    return found


@dataclass
class Shop:
    """One stage. ``folder`` is the working directory of every command; the store is ``folder/store`` unless said."""

    folder: Path
    model: ScriptedModel
    backend: Backend
    tools: ToolHost
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, key, value in (("payments", "token", TOKEN), ("model", "key", KEY)):
            (self.secrets / name).mkdir(parents=True)
            (self.secrets / name / key).write_text(value)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME")}
        self.environment = kept | {
            "PYTHONPATH": f"{ROOT / 'operator'}",
            "AGENTRUN_STORE": str(self.store),
            "OPENAI_BASE_URL": self.model.url,
            "OPENAI_API_KEY": KEY,
            "COLUMNS": "200",
        }

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def file(self, content: str | bytes | dict[str, Any], name: str = "flow.yaml") -> str:
        """Write a file; its name, as commands run beside it are given it."""
        if isinstance(content, dict):
            content = yaml.safe_dump(content, sort_keys=False)
        data = content if isinstance(content, bytes) else content.encode()
        (self.folder / name).write_bytes(data)
        return name

    def refund(self, **inputs: str) -> str:
        """The refund example as a file that calls this stage's backend."""
        text = (ROOT / "examples/refund/refund.yaml").read_text().replace("http://127.0.0.1:8471", self.backend.url)
        return self.file(text, "refund.yaml")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agentrun.cli", *words]

    def agentrun(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Said:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment | (env or {}),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """Start a command; it is killed where it outlives the block."""
        number = len(list(self.folder.glob("*.out")))
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            yield Running(process, out, err)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def records(self, run: str, step: str) -> list[dict[str, Any]]:
        """The journal of a step in the folder store, read from the files themselves."""
        return [json.loads(file.read_text()) for file in sorted(self.store.glob(f"*/{run}-*/steps/{step}/*.json"))]

    def events(self, run: str) -> list[dict[str, Any]]:
        """The run's own records, read from the files themselves."""
        return [json.loads(file.read_text()) for file in sorted(self.store.glob(f"*/{run}-*/events/*.json"))]

    def pid_of(self, run: str, step: str) -> int:
        """The process of the last attempt of a step."""
        opened = [record for record in self.records(run, step) if record["kind"] == "opened"][-1]
        return int(opened["body"]["process"]["pid"])


@dataclass
class Running:
    """A command that runs; what it says is written to files, so that it can be read meanwhile."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.out.read_text() + self.err.read_text()

    def end(self, patience: float = PATIENCE) -> Said:
        """Wait for its end."""
        code = self.process.wait(patience)
        return Said(code, self.out.read_text(), self.err.read_text())


@contextmanager
def open_shop(folder: Path, script: Any = None) -> Iterator[Shop]:
    """A stage in ``folder``; the model answers from ``script``, at first as in the refund example."""
    if script is None:
        script = yaml.safe_load((ROOT / "examples/refund/model.yaml").read_text())
        for rule in script["rules"]:
            rule.pop("latency", None)
    with ScriptedModel(script) as model, Backend(folder / "shop", TOKEN) as backend, ToolHost() as tools:
        yield Shop(folder, model, backend, tools)
