"""Instants: what makes one of a text and a text of one, from the first year to the last, in every zone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentrun.api.canonical import FIRST, LAST, NEVER, moment, timestamp
from agentrun.query.texts import clock, lasting, spell, until
from tests.harness.cli_store import PEOPLE, Scene, Type

NEW_YEAR = datetime(2017, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2017-01-01T00:00:00Z", NEW_YEAR),
        ("2017-01-01t00:00:00z", NEW_YEAR),
        ("2017-01-01 00:00Z", NEW_YEAR),
        ("2016-12-31T23:59:60Z", NEW_YEAR),
        ("2016-12-31t23:59:60.999z", NEW_YEAR),
        ("2017-01-01T08:59:60+09:00", NEW_YEAR),
        ("2017-01-01T00:00:00.000000999Z", NEW_YEAR),
        ("2016-12-31T19:00:00-05:00", NEW_YEAR),
        ("1970-01-01T00:00:00Z", 0.0),
        ("0001-01-01T00:00:00Z", FIRST),
        ("0001-01-01T00:00:00+14:00", FIRST - 14 * 3600),
        ("9999-12-31T23:59:59Z", LAST),
        ("9999-12-31T23:59:60Z", LAST + 1),
        ("9999-12-31T23:59:59-05:00", LAST + 5 * 3600),
    ],
)
def test_what_names_an_instant(text: str, at: float) -> None:
    assert moment(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "null",
        "1738313940",
        "2027-02-30T00:00:00Z",
        "2027-01-31T24:00:00Z",
        "2027-01-31T09:00:61Z",
        "10000-01-01T00:00:00Z",
        "2027-01-31T09:00:00 Europe/Berlin",
        "Sun, 31 Jan 2027 09:00:00 GMT",
        "2027-01-31T09:00:00Z\n",
    ],
)
def test_what_names_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="is not an instant: write RFC 3339, for example 2027-01-31T09:00:00Z"):
        moment(text)


@pytest.mark.parametrize("text", ["2027-01-31T09:00:00", "9999-12-31", "0001-01-01T00:00:00"])
def test_an_instant_without_a_zone_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="has no time zone: end it with Z or an offset"):
        moment(text)


@given(st.datetimes(timezones=st.timezones() | st.builds(lambda m: UTC, st.none())))
def test_every_instant_of_every_zone_can_be_read_and_written(at: datetime) -> None:
    try:
        offset = at.utcoffset() or timedelta()
    except OverflowError:
        return  # such a zone has no offset there
    if offset % timedelta(minutes=1):
        return  # RFC 3339 has no seconds in an offset
    found = moment(at.isoformat())
    assert abs(moment(timestamp(found)) - min(max(found, FIRST), LAST + 0.999999)) < 1e-4
    assert clock(found) and until(found)


@given(st.floats(allow_nan=True, allow_infinity=True))
@example(FIRST)
@example(LAST)
@example(LAST + 0.9999999)
def test_every_number_can_be_written_as_an_instant(at: float) -> None:
    text = timestamp(at)
    assert len(text) == 27 and text.endswith("Z")
    moment(text)
    if abs(at) < 1e18:
        clock(at), until(at), spell(at)


@pytest.fixture(params=["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


NEVERS = ("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59.9999999Z", "9999-12-31T00:00:00+14:00")
EXTREMES = (*(moment(text) for text in NEVERS), FIRST, FIRST - 14 * 3600, LAST + 1, 1e30, -1e30)


def test_never_is_said_in_words(zone: str) -> None:
    for text in NEVERS:
        at = moment(text)
        assert at >= NEVER
        assert (clock(at), until(at), lasting(timestamp(at))) == ("never", "for ever", "for ever"), zone
    assert lasting("2027-01-31T09:00:00Z") == "until 2027-01-31T09:00:00Z"
    assert clock(FIRST).startswith("0001-01-0")


@pytest.mark.parametrize("at", EXTREMES)
def test_a_journal_that_holds_such_an_instant_is_readable_by_every_verb(
    scene: Scene, agentrun: Type, zone: str, at: float
) -> None:
    """One run with a far instant ended `list` for its whole namespace, and every verb for itself."""
    scene.run("fine", PEOPLE)
    workflow = {"steps": [{"name": "a", "wait": {"until": "${inputs.at}"}}, {"name": "b", "wait": {"signal": "s"}}]}
    run = scene.run("far", workflow)
    scene.event(run, "waitStarted", step="a", until=at)
    scene.event(run, "waitStarted", step="b", signal="s", until=at)
    reading = [["list"], ["show", "far"], ["show", "far", "-o", "json"], ["diff", "far", "fine"], ["logs", "far"]]
    for words in [*reading, ["audit", "export", "far"], ["audit", "verify", "far"]]:
        said = agentrun(*words)
        assert said.code in (0, 1) and "Traceback" not in said.err, (words, said.err)
    assert {"far", "fine"} <= {line.split()[0] for line in agentrun("list").out.splitlines()}
    for verb in ("signal far s", "suspend far", "cancel far"):
        assert agentrun(*verb.split()).code == 0, verb
    if at > NEVER:
        assert "for ever" in agentrun("show", "far").out


ASKED: dict[str, Any] = {"subject": "Go?", "details": None, "digest": "sha256:aa", "required": 1}


@pytest.mark.parametrize("at", EXTREMES)
def test_a_question_that_ends_at_such_an_instant_can_be_asked_answered_and_gone_on_from(
    scene: Scene, agentrun: Type, zone: str, at: float
) -> None:
    """Its run was made at such an instant too, and waits for a signal until one."""
    made = {"createdAt": timestamp(at)}
    workflow = {"steps": [PEOPLE["steps"][0] | {"approval": {"subject": "Go?", "approvers": {"groups": ["ops"]}}}]}
    workflow["steps"] += [{"name": "b", "wait": {"signal": "s"}}]
    runs = [scene.run(name, workflow, **made) for name in ("asks", "goes")]
    for run in runs:
        asks = ASKED | {"approvers": {"groups": ["ops"], "users": []}, "expiresAt": at}
        scene.event(run, "approvalRequested", step="ask", request=asks)
        scene.event(run, "waitStarted", step="b", signal="s", until=at)
    open_ = at > scene.now
    for words in ("list", "show asks", "show asks -o json", "logs asks", "audit export asks"):
        said = agentrun(*words.split())
        assert said.code == 0 and "Traceback" not in said.err, (words, said.err)
    said = agentrun("approve", "asks", "--as-group", "ops")
    assert said.code == (0 if open_ else 2) and "Traceback" not in said.err, said.err
    # What waits for people alone is left to them; what ran out fails the run.
    said = agentrun("resume", "goes")
    assert said.code == (3 if open_ else 1), said.err
    assert agentrun("fork", "goes", "--from", "b", "--name", "again").code == 3
    assert agentrun("audit", "verify", "goes").code == 0
