"""`make demo`: the refund example, killed twice on its way, with the other side's books as the witness.

Everything is real but the model, which answers from a script over HTTP: the command line, the processes of the
steps, the journal on disk, the shop's backend, and the signals that kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import yaml

from examples.refund.backend import Backend
from examples.scripted_model import ScriptedModel

T = TypeVar("T")

HERE = Path(__file__).parent
AGENTRUN = str(Path(sys.executable).with_name("agentrun"))
RUN = "refund-4711"
PATIENCE = 60.0
"""Seconds that the demo waits for anything before it says what did not come."""


class Demo:
    """The stage: a store, the shop's backend, a model, and the commands that a person would type."""

    def __init__(self, folder: Path, backend: Backend, model: ScriptedModel) -> None:
        self.folder, self.backend, self.model = folder, backend, model
        self.file = folder / "refund.yaml"
        self.file.write_text((HERE / "refund.yaml").read_text().replace("http://127.0.0.1:8471", backend.url))
        self.environment = os.environ | {
            "AGENTRUN_STORE": str(folder / "store"),
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "scripted",
        }

    def command(self, *words: str, expect: int = 0) -> None:
        """Type a command; its output goes to the terminal."""
        print(f"\n$ agentrun {' '.join(_quoted(word) for word in words)}", flush=True)
        code = subprocess.run([AGENTRUN, *words], env=self.environment, check=False).returncode  # noqa: S603
        if code != expect:
            raise SystemExit(f"demo: that ended with exit code {code}; {expect} was expected")

    @contextmanager
    def running(self, *words: str, expect: int) -> Iterator[subprocess.Popen[bytes]]:
        """Type a command and look at what goes on while it runs."""
        print(f"\n$ agentrun {' '.join(_quoted(word) for word in words)}", flush=True)
        with subprocess.Popen([AGENTRUN, *words], env=self.environment) as process:  # noqa: S603
            try:
                yield process
            except BaseException:
                process.terminate()
                raise
            code = process.wait(PATIENCE)
        if code != expect:
            raise SystemExit(f"demo: that ended with exit code {code}; {expect} was expected")

    def control(self, **trouble: float) -> None:
        """Make the backend slow at one place, so that there is time to kill."""
        httpx2.post(f"{self.backend.url}/control", json=trouble).raise_for_status()

    def records(self, step: str) -> list[dict[str, Any]]:
        """What the journal holds of a step, read from the files themselves."""
        files = sorted(self.folder.glob(f"store/default/{RUN}-*/steps/{step}/*.json"))
        return [json.loads(file.read_text()) for file in files]

    def kill(self, step: str) -> None:
        """SIGKILL the process that runs ``step`` now."""
        opened = [record for record in self.records(step) if record["kind"] == "opened"][-1]
        pid = opened["body"]["process"]["pid"]
        os.kill(pid, signal.SIGKILL)
        say(f"kill -9 {pid}: the process of step {step} is gone")


def main() -> int:
    """Play the demo; 0 when everything came as the contract says."""
    folder = Path.cwd() / ".agentrun" / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as secrets:
        token = "demo-token"  # noqa: S105  (of a backend that lives as long as this demo)
        (Path(secrets) / "payments").mkdir()
        (Path(secrets) / "payments" / "token").write_text(token)
        script = yaml.safe_load((HERE / "model.yaml").read_text())
        with ScriptedModel(script, folder / "model.jsonl") as model, Backend(folder / "shop", token) as backend:
            _play(Demo(folder, backend, model), secrets)
    return 0


def _play(demo: Demo, secrets: str) -> None:
    say("A customer wants 138.90 back. An agent looks into it; finance signs off; the money is paid once.")
    demo.control(pause_order_look_up=PATIENCE)
    with demo.running("run", str(demo.file), "--name", RUN, "--secrets", secrets, expect=3):
        until("the first turn", lambda: [r for r in demo.records("triage") if r["kind"] == "turn"])
        until("the look-up of the order", lambda: _taken(demo, "pause_order_look_up"))
        demo.kill("triage")
    say(f"It resumed by itself. The model was asked {len(demo.model.requests)} times, for 3 turns: nothing twice.")
    if len(demo.model.requests) != 3:
        raise SystemExit("demo: a model call was repeated")

    demo.command("approve", RUN, "sign-off", "--as-group", "finance", "--comment", "go ahead")
    demo.control(pause_payment_after_commit=PATIENCE)
    with demo.running("resume", RUN, "--secrets", secrets, expect=3):
        until("the payment", lambda: demo.backend.payments)
        demo.kill("refund")
    say("Was it paid? agentrun cannot know, and does not guess. The payment ledger knows:")
    [payment] = demo.backend.payments
    print(f"  {json.dumps(payment)}")

    happened = json.dumps({"id": payment["id"], "amount": payment["amount"]})
    demo.command("resolve", RUN, "refund", "--happened", happened)
    demo.command("resume", RUN, "--secrets", secrets)
    demo.command("show", RUN)
    say(f"The payment ledger has {len(demo.backend.payments)} payment.")
    if len(demo.backend.payments) != 1:
        raise SystemExit("demo: it was paid twice")
    store = demo.folder.relative_to(Path.cwd()) / "store"
    print(f"""
What to try next (the store of this demo is {store}):
  export AGENTRUN_STORE={store}
  {_short()} audit verify {RUN}       every record, its hash and the chain
  {_short()} show {RUN} -o yaml       the run as a Kubernetes object
  {_short()} audit export {RUN}       who approved what, as JSON lines
and README.md: a first workflow of your own in five minutes.""")


def _taken(demo: Demo, trouble: str) -> bool:
    """Whether a request has met ``trouble`` by now."""
    left = httpx2.get(f"{demo.backend.url}/control").raise_for_status().json()
    return trouble not in left


def until(what: str, test: Callable[[], T]) -> T:
    """Wait until ``test`` gives something; what it gave."""
    end = time.monotonic() + PATIENCE
    while not (found := test()):
        if time.monotonic() > end:
            raise SystemExit(f"demo: {what} did not come within {PATIENCE:.0f} s")
        time.sleep(0.02)
    return found


def say(text: str) -> None:
    """A line of the narrator."""
    print(f"\n▸ {text}", flush=True)


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set(' {}"') else word


def _short() -> str:
    return os.path.relpath(AGENTRUN)


if __name__ == "__main__":
    sys.exit(main())
