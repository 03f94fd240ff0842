"""The labels and annotations by which the cluster's objects know each other."""

from __future__ import annotations

RUN_LABEL = "agentrun.dev/run"
"""On pods and Approvals: the run's name."""

STEP_LABEL = "agentrun.dev/step"
"""On pods and Approvals: the step's name, without the item of a fan-out."""

RUN_UID = "agentrun.dev/run-uid"
"""On pods: the run's uid as the journal has it, without hyphens."""

KEY = "agentrun.dev/key"
"""On pods: what is run, as ``StepKey.path``."""

ATTEMPT = "agentrun.dev/attempt"
"""On pods: the number of the attempt."""

REQUESTED_BY = "agentrun.dev/requested-by"
"""On AgentRuns and AgentCommands: who made it, stamped by an admission policy from the request itself."""

SUSPEND_BY = "agentrun.dev/suspend-by"
"""On AgentRuns: who changed ``spec.suspend`` last, stamped by an admission policy from the request itself."""

CANCEL_BY = "agentrun.dev/cancel-by"
"""The same of ``spec.cancel``."""

TTL_BY = "agentrun.dev/ttl-by"
"""The same of ``spec.ttlSecondsAfterFinished``."""
