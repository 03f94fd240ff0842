"""The operator's log: one JSON object per line to standard error, in printable ASCII.

INFO is for transitions (``transition``) and other things that happen to a run, so an operator with nothing to do is
silent. Only the fields of ``FIELDS`` are taken from ``extra``. Of containers among a message's arguments only the size
is shown, because an object of the cluster may hold what nobody should read in a log.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from agentrun.api.errors import AgentrunError
from agentrun.api.texts import quoted, shown

FIELDS = ("controller", "namespace", "name", "uid", "generation", "reconcileID", "step", "from", "to")
"""The fields that a line may have beside time, level, logger, message and traceback."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

MESSAGE_MAX = 4096
TRACEBACK_LINES = 100
_ATTRIBUTE = "agentrun_fields"  # of a LogRecord, whose own ``name`` is the logger's


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """A logger bound to a run. ``extra={"step": ...}`` at a call adds fields to the bound ones; see FIELDS."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        namespace: str,
        name: str,
        uid: str | None = None,
        generation: int | None = None,
        reconcile_id: str | None = None,
        controller: str = "agentrun",
    ) -> None:
        fields = {
            "controller": controller,
            "namespace": namespace,
            "name": name,
            "uid": uid,
            "generation": generation,
            "reconcileID": reconcile_id,
        }
        super().__init__(log, {key: value for key, value in fields.items() if value is not None})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put all fields under one attribute of the record."""
        kwargs["extra"] = {_ATTRIBUTE: {**(self.extra or {}), **(kwargs.get("extra") or {})}}
        return msg, kwargs


def transition(log: RunLog, before: str | None, after: str, message: str = "", *, step: str | None = None) -> None:
    """Log one INFO line if the state of the run, or of one ``step``, has changed."""
    if before == after or not log.isEnabledFor(logging.INFO):
        return
    fields = {"from": before, "to": after, "step": step}
    what = f"step {step}" if step is not None else "run"
    came = f"{before} -> {after}" if before is not None else after
    text = f"{what}: {came}" + (f": {message}" if message else "")
    log.info("%s", text, extra={key: value for key, value in fields.items() if value is not None})


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record. It has at most some 120 KB, because messages and tracebacks are cut."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": shown(_message(record), MESSAGE_MAX),
        }
        fields = getattr(record, _ATTRIBUTE, None) or getattr(record, "k8s_ref", None)  # the latter is kopf's
        if isinstance(fields, Mapping):
            for field in FIELDS:
                value = fields.get(field)
                if value is not None:
                    line[field] = value if isinstance(value, int) else shown(str(value), 300)
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = _traceback(record.exc_info[1])
        return json.dumps(line)


def _message(record: logging.LogRecord) -> str:
    """The message with its arguments. Containers among them show only their type and size."""
    text, args = str(record.msg), record.args
    if not args:
        return text
    try:
        if isinstance(args, Mapping):  # for %(name)s in the message
            return text % {key: _argument(value) for key, value in args.items()}
        return text % tuple(_argument(value) for value in args)
    except (TypeError, ValueError, KeyError):  # else logging would print the raw arguments, and drop the line
        return f"{text} (its arguments do not match)"


def _argument(value: object) -> object:
    if isinstance(value, (Mapping, list, tuple, set, frozenset, bytes, bytearray)):
        return f"<{type(value).__name__} of {len(value)}>"
    return value


def _traceback(error: BaseException | None) -> str:
    """The end of the traceback, which says what went wrong. Only the breaks between its own lines are left in it."""
    lines = [line for part in traceback.format_exception(error) for line in part.rstrip("\n").split("\n")]
    cut = len(lines) - TRACEBACK_LINES
    kept = lines if cut <= 0 else [f"({cut} lines left out)", *lines[cut:]]
    return "\n".join(shown(line, 1000) for line in kept)


def log_level(text: str) -> int:
    """The level for a name in ``LEVELS``.

    Raises:
        AgentrunError: there is no such level.
    """
    level = LEVELS.get(text.strip().lower())
    if level is None:
        raise AgentrunError(f"AGENTRUN_LOG_LEVEL is {quoted(text)}; write one of {', '.join(LEVELS)}")
    return level


def configure(level: str = "info") -> None:
    """Send the records of all loggers to this log, and the exceptions that end a thread or the process.

    ``level`` is for agentrun's own loggers. Libraries log from WARNING on. At ``debug``, kopf and aiohttp log
    everything except whole objects. The S3 and Kubernetes clients stay at WARNING: at DEBUG they would log requests
    with bodies and signatures.

    Raises:
        AgentrunError: there is no such level.
    """
    ours = log_level(level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("agentrun").setLevel(ours)
    for library in ("kopf", "aiohttp"):
        logging.getLogger(library).setLevel(logging.DEBUG if ours == logging.DEBUG else logging.WARNING)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # at DEBUG it prints objects whole
    logging.captureWarnings(True)
    sys.excepthook = _process_ends
    threading.excepthook = _thread_ends


def _process_ends(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("agentrun").critical("the process ends with an error", exc_info=(kind, error, trace))


def _thread_ends(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else "?"
        trace = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger("agentrun").critical("thread %s ended with an error", name, exc_info=trace)
