"""The schemas of ``status``, which the operator writes, for the CRDs. docs/reference/ explains each field."""

from __future__ import annotations

from typing import Any, get_args

from agentrun.api.approval import COMMENT_MAX, MAX_DECISIONS, USER_MAX, Verdict
from agentrun.api.run import StepState
from agentrun.api.values import DIGEST_PATTERN, MONEY_PATTERN
from agentrun.api.workflow import FailureClass

Schema = dict[str, Any]

_FREE: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def _text(maximum: int, **more: Any) -> Schema:
    return {"type": "string", "maxLength": maximum, **more}


def _object(properties: dict[str, Schema], *required: str, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {}), **more}


def _named(items: Schema, key: str, maximum: int) -> Schema:
    keys = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"type": "array", "maxItems": maximum, "items": items, **keys}


_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "format": "int64", "minimum": 0}
_MONEY: Schema = {"type": "string", "pattern": MONEY_PATTERN, "maxLength": 64}

_CONDITION = _object(
    {
        "type": _text(316),
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": _text(1024, minLength=1, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
        "message": _text(32768),
        "observedGeneration": _COUNT,
        "lastTransitionTime": _TIME,
    },
    *("type", "status", "reason", "message", "lastTransitionTime"),
)

_STEP = _object(
    {
        "name": _text(80, description="STEP, or STEP[INDEX] for one item of a fan-out."),
        "state": {"type": "string", "enum": [state.value for state in StepState]},
        "attempt": _COUNT,
        "startedAt": _TIME,
        "finishedAt": _TIME,
        "waitingFor": _object(
            {
                "approval": _text(253),
                "subjects": {"type": "array", "items": _text(32768), "maxItems": 100},
                "signal": _text(253),
                "until": _TIME,
                "retry": _TIME,
                "because": _text(32768),
                "resolve": _text(32768),
                "resume": _text(32768),
                "tool": _text(64),
                "callId": _text(253),
                "budget": _text(253),
                "pod": _text(32768, description="What is wrong with the step's pod."),
                "place": _text(32768, description="Why there is no place for the step's pod."),
                "work": _text(32768, description="The expression that takes more work than the run has left."),
            },
            description="What ends the wait (people, a signal, a time or a verb), and what it is about.",
        ),
        "failure": _object(
            {
                "class": {"type": "string", "enum": [value.value for value in FailureClass]},
                "message": _text(32768),
                "retryAfter": {"type": "number"},
                "retryable": {"type": "boolean"},
                "happened": {"type": "boolean", "description": "The call was carried out although the step failed."},
            },
            "class",
        ),
        "items": _object(
            {state.value: _COUNT for state in StepState}, description="For a fan-out: how many items are in each state."
        ),
        "output": _FREE,
    },
    *("name", "state"),
)

RUN_STATUS = _object(
    {
        "observedGeneration": _COUNT,
        "phase": _text(
            64, description="A summary of the conditions, for columns. Programs should read the conditions."
        ),
        "workflowDigest": _text(100, description="The digest of the workflow that the run pinned when it started."),
        "startTime": _TIME,
        "completionTime": _TIME,
        "conditions": _named(_CONDITION, "type", 16),
        "usage": _object(
            {
                **dict.fromkeys(
                    ("modelCalls", "inputTokens", "cachedInputTokens", "outputTokens", "toolCalls"), _COUNT
                ),
                "costUSD": _MONEY,
            }
        ),
        "steps": _named(_STEP, "name", 100_000),
        "output": _FREE,
        "journal": _text(2048, description="Where the run's journal is."),
        "message": _text(32768, description="For people: what the run does, or what it needs to continue."),
    },
    description="The state that the operator observed last. Contents are in the journal.",
    # One writer owns the whole status, so the API server need not keep and compare managers field by field.
    **{"x-kubernetes-map-type": "atomic"},
)

_DECISION = _object(
    {
        "by": _text(
            USER_MAX,
            minLength=1,
            description="The person who decides: the name by which the API server knows the user.",
        ),
        "decision": {"type": "string", "enum": list(get_args(Verdict))},
        "digest": _text(71, pattern=DIGEST_PATTERN, description="The spec.digest of the question that is decided."),
        "comment": _text(COMMENT_MAX),
        "at": _TIME,
    },
    *("by", "decision", "digest"),
)

APPROVAL_STATUS = _object(
    {"decisions": _named(_DECISION, "by", MAX_DECISIONS), "conditions": _named(_CONDITION, "type", 16)},
    description="The decisions of people, each in their own name, and the outcome.",
)

COMMAND_STATUS = _object(
    {"conditions": _named(_CONDITION, "type", 16)},
    description="Whether the operator has recorded the command for its run, or why it has rejected it.",
)
