"""What the lines of one visit have in common in the operator's log."""

from __future__ import annotations

import itertools
import logging
from contextvars import ContextVar

from agentrun.control.views import RunView
from agentrun.observe.logs import RunLog

log = logging.getLogger("agentrun.control")

_numbers = itertools.count(1)
_visit: ContextVar[int] = ContextVar("visit", default=0)


def begin_visit() -> None:
    """The current task, and what it starts, are at a new visit from here on."""
    _visit.set(next(_numbers))


def run_log(run: RunView) -> RunLog:
    """The log of the current visit, which is about ``run``."""
    return RunLog(
        log,
        namespace=run.ref.namespace,
        name=run.ref.name,
        uid=run.uid,
        generation=run.generation,
        reconcile_id=str(_visit.get()),
    )
