"""What the struck processes do: the real driver and the real runner, with points at each of their doors.

python -m tests.crash.roles SOCKET       is the zygote
python -m tests.crash.roles driver       is a driver that starts its runners as a user's does
python -m tests.crash.roles runner       is such a runner
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

from agentrun.api.tools import SecretKey, Tool
from agentrun.api.workflow import Model
from agentrun.attempt.spec import AttemptSpec
from agentrun.journal.paths import RunPath
from agentrun.journal.pinned import PinnedRun
from agentrun.local import driver, lease
from agentrun.local.driver import Driver, Watcher
from agentrun.local.lease import HeldByOther, Lease
from agentrun.local.processes import ChildProcesses, Processes
from agentrun.runner import process, progress
from agentrun.runner.models import ModelClient, open_model
from agentrun.runner.ports import Ports
from agentrun.store.open import open_store
from agentrun.store.protocol import Store, StoreError
from tests.crash.points import Calls, Strike, Trace, TracedModel, TracedStore, TracedTool
from tests.crash.zygote import SOCKET_VARIABLE, ZygoteProcesses, serve

STORE, RUN, TRACE, STRIKE = "CRASH_STORE", "CRASH_RUN", "CRASH_TRACE", "CRASH_STRIKE"
SETTINGS = "CRASH_SETTINGS"
"""Times that a test shortens: names and seconds, as JSON."""

HELD, TROUBLE = 20, 21
"""A driver's exit codes where another one has the run, and where the store gave it trouble."""

NEVER = 3600.0


def calls(role: str) -> Calls:
    """The calls of this process, as the environment says."""
    strike = Strike.from_json(os.environ[STRIKE]) if os.environ.get(STRIKE) else None
    return Calls(role, Trace(Path(os.environ[TRACE])), strike)


def setting(name: str, otherwise: float) -> float:
    return float(json.loads(os.environ.get(SETTINGS, "{}")).get(name, otherwise))


def run_driver() -> int:
    """One driver, to the end of what it can do; the end's name on standard output."""
    # What goes by time would make numbers of calls differ from run to run.
    driver.POLL = driver.IDLE_POLL = setting("poll", NEVER)
    driver.ORPHAN_PATIENCE = setting("orphan", driver.ORPHAN_PATIENCE)
    lease.LENGTH = setting("lease", NEVER)
    store = TracedStore(open_store(os.environ[STORE]), calls("driver"))
    run = RunPath.parse(os.environ[RUN])
    processes: Processes = ZygoteProcesses()
    if SOCKET_VARIABLE not in os.environ:
        processes = ChildProcesses(command=(sys.executable, "-m", "tests.crash.roles", "runner"))
    watcher = Watcher(
        line=lambda key, line: print(f"{key.label} {json.dumps(line)}", file=sys.stderr, flush=True),
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )

    async def drive() -> str:
        pinned = PinnedRun.read(store, run)
        ends = await Driver(store, pinned, processes, Lease(store, run, uuid.uuid4().hex), watcher).drive()
        return ends.name

    try:
        print(asyncio.run(drive()), flush=True)
    except HeldByOther as error:
        print(error, flush=True)
        return HELD
    except StoreError as error:
        print(error, flush=True)
        return TROUBLE
    return 0


def run_runner() -> int:
    """One attempt, with the points at the doors that its ports are."""
    progress.FLUSH_EVERY = NEVER
    here = calls(f"runner {AttemptSpec.from_environment(os.environ).start.key.path}")

    def store(url: str) -> Store:
        return TracedStore(open_store(url), here)

    def model(spec: Model, secret: object) -> ModelClient:
        return TracedModel(open_model(spec, secret), here)  # type: ignore[arg-type]

    def tool(spec: Tool, secret: object) -> TracedTool:
        found = TracedTool(spec, secret)  # type: ignore[arg-type]
        found.calls = here
        return found

    def read_secret(key: SecretKey) -> str:
        return f"{key.name}-{key.key}"

    ports = Ports(open_store=store, open_model=model, open_tool=tool, secret=read_secret)
    ports.send_within = setting("send_within", ports.send_within)
    return process.main(ports)


ROLES = {"driver": run_driver, "runner": run_runner}


def warm() -> None:
    """Import and build what every process would import and build on its own."""
    import importlib

    for name in (
        "openai.resources.responses",
        "anyio._backends._asyncio",
        "cel_expr_python.ext.ext_math",
        "cel_expr_python.ext.ext_optional",
        "cel_expr_python.ext.ext_strings",
        "httpx2",
        "jsonschema_rs",
        "botocore.session",
        "boto3",
        "agentrun.runner.agent",
        "agentrun.runner.tool_calls",
        "agentrun.runner.responses",
        "agentrun.store.s3",
    ):
        importlib.import_module(name)
    from agentrun.runner.connections import tls

    tls()


if __name__ == "__main__":
    if sys.argv[1] in ROLES:
        sys.exit(ROLES[sys.argv[1]]())
    warm()
    serve(sys.argv[1], ROLES)
