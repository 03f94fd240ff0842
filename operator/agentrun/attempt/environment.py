"""The environment of a step's process: the variables that its starter sets, and the time that it has to leave."""

from __future__ import annotations

STEP_VARIABLE = "AGENTRUN_STEP"
"""Variable: the attempt, as ``AttemptSpec.to_json`` writes it."""

SECRETS_VARIABLE = "AGENTRUN_SECRETS"
"""Variable: the folder of the step's secrets, with a folder for each Secret and in it a file for each key."""

TERMINATION_VARIABLE = "AGENTRUN_TERMINATION_LOG"
"""Variable: the file for the termination message. It is set only in a pod, and also decides the exit code."""

GRACE = 20.0
"""Seconds that a call under way may still take after SIGTERM. Less than the 30 until SIGKILL in a pod."""
