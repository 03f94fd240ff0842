"""Bodies of records against their types, which mypy checks only where a body is written in one piece."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, get_origin, get_type_hints

from agentrun.journal.records import Record
from agentrun.records.run_events import EVENT_BODIES, EventKind
from agentrun.records.step_records import STEP_BODIES, Kind

FORMS: dict[str, type] = {str(kind): form for kind, form in (*STEP_BODIES.items(), *EVENT_BODIES.items())}


def fields(form: type) -> dict[str, bool]:
    """The names of a TypedDict's fields, and whether each has to be there."""
    hints = get_type_hints(form, include_extras=True)
    return {name: get_origin(hint) is not NotRequired for name, hint in hints.items()}


def check(kind: Kind | EventKind | str, body: Mapping[str, Any]) -> None:
    """Fail where a body has a field that its kind has not, or lacks one that its kind always has."""
    known = fields(FORMS[kind])
    assert body.keys() <= known.keys(), f"{kind} has no {body.keys() - known.keys()}"
    missing = {name for name, required in known.items() if required} - body.keys()
    assert not missing, f"{kind} lacks {missing}"


def check_all(records: Iterable[Record]) -> None:
    for record in records:
        check(record.kind, record.body)
