"""The spec that a step's process gets: which attempt of which step it runs, and where it finds everything else.

The spec holds no secrets: it is passed in the environment of a process, and so in the manifest of a pod.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrun.api.errors import AgentrunError
from agentrun.api.facts import Allowance
from agentrun.api.keys import StepKey
from agentrun.attempt.environment import STEP_VARIABLE
from agentrun.journal.paths import RunPath
from agentrun.plan.snapshot import Ref, Start


class BadAttemptSpec(AgentrunError):
    """The environment does not tell which attempt to run."""


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One attempt of a step, for the process that makes it."""

    store: str
    """The store's address."""
    run: RunPath
    start: Start
    leash: bool = False
    """Standard input is a pipe that the starter holds open. When it ends, the starter has died: leave."""

    def to_json(self) -> str:
        """The value of the environment variable ``AGENTRUN_STEP``."""
        start = self.start
        found = {
            "store": self.store,
            "run": str(self.run),
            "step": start.key.path,
            "attempt": start.attempt,
            "refs": {name: ref.to_json() for name, ref in start.refs.items()},
            "events": list(start.events),
            "allowance": start.allowance.to_json(),
            "timeout": start.timeout,
            "at": start.at,
            "outcome": start.outcome,
            "drain": start.drain,
            "leash": self.leash,
        }
        found |= {"refused": list(start.refused)} if start.refused else {}
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> AttemptSpec:
        """Read the spec from the environment variable ``AGENTRUN_STEP``.

        Raises:
            BadAttemptSpec: the variable is missing, or is not what ``to_json`` writes.
        """
        text = environment.get(STEP_VARIABLE)
        if text is None:
            raise BadAttemptSpec(f"{STEP_VARIABLE} is not set: this program is started by agentrun, not by hand")
        try:
            value: dict[str, Any] = json.loads(text)
            start = Start(
                StepKey.parse(value["step"]),
                value["attempt"],
                {name: Ref(**ref) for name, ref in value["refs"].items()},
                tuple(value["events"]),
                Allowance.from_json(value["allowance"]),
                value["timeout"],
                value["at"],
                value["outcome"],
                value["drain"],
                tuple(value.get("refused", ())),
            )
            return cls(value["store"], RunPath.parse(value["run"]), start, value["leash"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadAttemptSpec(f"{STEP_VARIABLE} cannot be read ({type(error).__name__}: {error})") from error
