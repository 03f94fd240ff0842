"""Everything outside that a step's process uses, in one place, so that a test can replace each part."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agentrun.api.tools import SecretKey, Tool
from agentrun.api.workflow import Model
from agentrun.attempt.environment import SECRETS_VARIABLE
from agentrun.runner.models import ModelClient, open_model
from agentrun.runner.open_tool import open_tool
from agentrun.runner.progress import Progress
from agentrun.runner.steady_clocks import steady_clock
from agentrun.runner.tool_client import ToolClient
from agentrun.store.open import open_store
from agentrun.store.protocol import Store

SEND_WITHIN = 10.0
"""Seconds, from the moment before the intent is written, within which its call may be sent. A process that was stopped
for longer does not send it: a person may already have settled the call. The next attempt waits this long before it asks
a person."""


@dataclass(slots=True)
class Ports:
    """The clock, ids, store, models, tools, secrets and progress log of a step's process."""

    clock: Callable[[], float] = field(default_factory=steady_clock)
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    open_store: Callable[[str], Store] = open_store
    open_model: Callable[[Model, Callable[[SecretKey], str]], ModelClient] = open_model
    open_tool: Callable[[Tool, Callable[[SecretKey], str]], ToolClient] = open_tool
    secret: Callable[[SecretKey], str] = lambda key: read_secret_file(os.environ.get(SECRETS_VARIABLE, ""), key)
    send_within: float = SEND_WITHIN
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.clock)

    def set_clock(self, planned: float) -> None:
        """If this machine's clock is behind ``planned``, set the clock forward to it.

        What the planner knew then (an expired approval, a person's answer) must not be in this attempt's future.
        """
        clock = self.clock
        behind = planned - clock()
        if behind > 0:
            self.clock = lambda: clock() + behind

    def preload(self) -> None:
        """Import the modules of a model call in a thread. That takes a second; the journal is read meanwhile."""
        threading.Thread(target=_import_openai, daemon=True).start()


def _import_openai() -> None:
    import openai  # noqa: F401, PLC0415  (lazy: only agent steps pay for it)


def read_secret_file(folder: str, key: SecretKey) -> str:
    """Read a key of a Secret from where Kubernetes mounts it: ``<folder>/<name>/<key>``.

    Raises:
        LookupError: ``folder`` is empty, or the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    if not folder:
        raise LookupError(f"no Secrets are available: give --secrets DIR with DIR/{key.name}/{key.key}")
    path = Path(folder) / key.name / key.key
    try:
        return path.read_text("utf-8-sig")  # in every locale; a byte order mark is not part of the key
    except OSError as error:
        raise LookupError(f"{path}: {error.strerror}") from error
