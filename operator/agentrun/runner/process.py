"""The entry point of a step's process: signals, the leash to its driver, the termination message, the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from agentrun.api.errors import AgentrunError
from agentrun.api.facts import AttemptEnd, StepFact
from agentrun.api.run import StepState
from agentrun.attempt.environment import GRACE, TERMINATION_VARIABLE
from agentrun.attempt.exit_codes import Exit
from agentrun.attempt.spec import AttemptSpec, BadAttemptSpec
from agentrun.journal.log import Fenced
from agentrun.runner.attempt import run_attempt
from agentrun.runner.dispatch import work
from agentrun.runner.mailbox import Mailbox
from agentrun.runner.ports import Ports
from agentrun.store.protocol import StoreError

MESSAGE_MAX = 4000
"""Bytes of a pod's termination message; the kubelet cuts at 4,096."""


def main(ports: Ports | None = None) -> int:
    """Run the step that the environment names. Return the exit code (``agentrun.attempt.exit_codes.Exit``)."""
    ports = ports or Ports()
    try:
        spec = AttemptSpec.from_environment(os.environ)
    except BadAttemptSpec as error:
        print(f"agentrun: {error}", file=sys.stderr)
        return Exit.USAGE
    ports.set_clock(spec.start.at)
    try:
        code, fact = asyncio.run(_run(spec, ports))
    except Fenced as error:
        ports.progress("fenced", message=str(error))
        return Exit.FENCED
    except (StoreError, AgentrunError) as error:
        ports.progress("error", message=str(error))
        return Exit.STORE
    except asyncio.CancelledError:
        ports.progress("abandoned", message="asked to stop before the step was opened")
        return Exit.WAITING
    except Exception:
        # A bug in agentrun. Its trace goes to the step's log, where `agentrun logs` shows it.
        ports.progress("crashed", trace=traceback.format_exc())
        raise
    finally:
        ports.progress.close()
    _say(fact)
    return code if os.environ.get(TERMINATION_VARIABLE) is None else _pod_exit(fact)


async def _run(spec: AttemptSpec, ports: Ports) -> tuple[Exit, StepFact]:
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(run_attempt(spec, ports, work, mailbox))

    def stop() -> None:
        if not mailbox.asked_to_leave:
            mailbox.asked_to_leave = True
            loop.call_later(GRACE, running.cancel)

    loop.add_signal_handler(signal.SIGTERM, stop)
    # Ctrl-C sends SIGINT to the whole process group. The driver receives it too, and sends SIGTERM.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    if spec.leash:
        loop.add_reader(sys.stdin.fileno(), _on_leash, loop, stop)
    try:
        return await running
    finally:
        # Ignore SIGTERM from here: the attempt is over, but the log and the termination message are still to be
        # written. ``loop.close()`` would restore the default handler, which kills the process.
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _on_leash(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """At the end of standard input, stop: the driver has died. The call in hand is finished and committed first."""
    if not os.read(sys.stdin.fileno(), 1):
        loop.remove_reader(sys.stdin.fileno())
        stop()


def _say(fact: StepFact) -> None:
    """Write the termination message: the whole fact, or, where a pod's 4,096 bytes cannot hold it, ``truncated``."""
    text = json.dumps(fact.to_json(), separators=(",", ":"))  # ASCII: a character is a byte
    target = os.environ.get(TERMINATION_VARIABLE)
    if target is None:
        print(text, flush=True)
        return
    if len(text) > MESSAGE_MAX:
        # A part of the fact would be mistaken for the whole. On ``truncated``, the operator reads the journal; the
        # other fields are for people.
        text = json.dumps({"truncated": True, "attempt": fact.attempt, "seq": fact.seq, "end": fact.end})
    Path(target).write_text(text)


def _pod_exit(fact: StepFact) -> Exit:
    """The exit code of a pod that wrote its message. It shows people only failures: to wait or to make room is none."""
    failed = fact.end is AttemptEnd.FAILED or fact.outcome is StepState.FAILED
    return Exit.FAILED if failed else Exit.CLOSED
