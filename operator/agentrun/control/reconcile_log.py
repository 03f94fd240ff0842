"""The log fields that all lines of one visit share."""

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
    """Give the current task, and the tasks that it starts, the number of a new visit."""
    _visit.set(next(_numbers))


def run_log(run: RunView) -> RunLog:
    """The log of the current visit, bound to ``run``."""
    return RunLog(
        log,
        namespace=run.ref.namespace,
        name=run.ref.name,
        uid=run.uid,
        generation=run.generation,
        reconcile_id=str(_visit.get()),
    )
