"""The environment of a step's process: the variables that whoever starts it sets, and the time that it has to leave."""

from __future__ import annotations

STEP_VARIABLE = "AGENTRUN_STEP"
"""The attempt, as ``AttemptSpec.to_json`` writes it."""

SECRETS_VARIABLE = "AGENTRUN_SECRETS"
"""The folder of the step's secrets: a folder for each Secret, a file for each key."""

TERMINATION_VARIABLE = "AGENTRUN_TERMINATION_LOG"
"""The file for the termination message. Set in a pod alone, where it also decides the exit code."""

GRACE = 20.0
"""Seconds that a call in hand may still take after SIGTERM; less than a pod's 30 until SIGKILL."""
