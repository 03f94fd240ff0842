"""Bounds the outputs of a run's steps in memory (``plan.output_bounds``), while its journals are read side by side."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from agentrun.api.facts import StepFact
from agentrun.plan import output_bounds


@dataclass(slots=True)
class Outputs:
    """Counts the outputs of one run that are kept in memory. Many threads may use it."""

    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, fact: StepFact) -> StepFact:
        """``fact``; without its output if there is no room for that."""
        with self._lock:
            if self.bytes + fact.size > output_bounds.OUTPUTS_MAX and fact.output is not None:
                return replace(fact, output=None)
            self.bytes += fact.size
        return fact
