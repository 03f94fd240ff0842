"""The labels and annotations that connect the objects of a run on a cluster."""

from __future__ import annotations

RUN_LABEL = "agentrun.dev/run"
"""On pods and Approvals: the run's name."""

STEP_LABEL = "agentrun.dev/step"
"""On pods and Approvals: the step's name, without the item of a fan-out."""

RUN_UID = "agentrun.dev/run-uid"
"""On pods: the run's uid without hyphens, as in the journal."""

KEY = "agentrun.dev/key"
"""On pods: the key of what the pod runs, as ``StepKey.path``."""

ATTEMPT = "agentrun.dev/attempt"
"""On pods: the number of the attempt."""

REQUESTED_BY = "agentrun.dev/requested-by"
"""On AgentRuns and AgentCommands: the user who created it. An admission policy sets it from the request itself."""

SUSPEND_BY = "agentrun.dev/suspend-by"
"""On AgentRuns: the user who last changed ``spec.suspend``. An admission policy sets it from the request itself."""

CANCEL_BY = "agentrun.dev/cancel-by"
"""The same for ``spec.cancel``."""

TTL_BY = "agentrun.dev/ttl-by"
"""The same for ``spec.ttlSecondsAfterFinished``."""
