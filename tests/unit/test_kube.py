"""The room of the Kubernetes API: pages bounded by bytes, one table of errors and one policy of retries."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from agentrun.cli.on_cluster.refusals import refusal_of
from agentrun.kube import errors
from agentrun.kube.client import PAGE_BYTES, Call, Kube
from agentrun.kube.errors import (
    AlreadyExists,
    BadRequest,
    ClusterError,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    TooLong,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from agentrun.kube.retry import RetryPolicy, Tries
from agentrun.kube.status import error_of, kind_of, read_status


class Served(Kube):
    """Objects of these sizes, listed as the API server does."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(cast("Any", None))
        self.sizes = sizes
        self.asked: list[int] = []
        self.largest = 0

    async def _ask(self, call: Call) -> bytes:
        query = call.query
        assert query is not None
        limit, begins = int(query["limit"]), int(query.get("continue", 0))
        self.asked.append(limit)
        ends = min(begins + limit, len(self.sizes))
        items = [{"metadata": {"name": str(n)}, "spec": "x" * self.sizes[n]} for n in range(begins, ends)]
        more = {"continue": str(ends)} if ends < len(self.sizes) else {}
        data = json.dumps({"metadata": more, "items": items}).encode()
        if len(data) > call.at_most:
            raise TooLong(f"{len(data)} bytes")
        self.largest = max(self.largest, len(data))
        return data


@pytest.mark.parametrize(
    ("sizes", "requests"),
    [
        ([], 1),
        ([1000] * 1000, 5),
        ([1_300_000] * 12, 12 + 3),
        ([1000] * 300 + [1_300_000] * 5 + [1000] * 300, 30),
        ([3_000_000], 1 + 3),
        ([20_000] * 1000, 25),
    ],
    ids=["none", "small", "large", "some-large", "one-above-a-page", "in-between"],
)
async def test_a_page_has_so_many_bytes_and_no_object_is_left_out(sizes: list[int], requests: int) -> None:
    kube = Served(*sizes)
    found = [item async for page in kube.pages("/apis/x", limit=200) for item in page["items"]]
    assert [item["metadata"]["name"] for item in found] == [str(n) for n in range(len(sizes))]
    assert kube.largest <= max(PAGE_BYTES, max(sizes, default=0) + 1000)
    assert max(kube.asked) == kube.asked[0] == 200
    assert len(kube.asked) <= requests


# -- errors -----------------------------------------------------------------------------------------------------------


def answer(code: int, retry_after: str | None = None, **body: Any) -> errors.Status:
    return read_status(code, json.dumps({"kind": "Status", "message": "no", **body}).encode(), retry_after)


def test_every_error_of_the_family_has_an_answer() -> None:
    """A class that no answer makes is dead, but for the two that say something of ours."""
    made = {kind_of(answer(code)) for code in range(400, 600)} | {kind_of(answer(409, reason="AlreadyExists"))}
    family = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClusterError)}
    assert family - made == {ClusterError, Refused, TooLong}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (answer(400), BadRequest),
        (answer(403), Forbidden),
        (answer(403, details={"causes": [{"reason": "NamespaceTerminating"}]}), NotFound),
        (answer(409, reason="AlreadyExists"), AlreadyExists),
        (answer(415), BadRequest),
        (answer(500), Unavailable),
        (answer(500, message="trying to send message larger than max"), Invalid),
        (answer(504), TooSlow),
    ],
)
def test_an_answer_has_its_error(status: errors.Status, kind: type[ClusterError]) -> None:
    error = error_of(status, "get /x")
    assert type(error) is kind and error.status == status and status.message in str(error)


def test_the_command_line_has_the_classes_of_the_table() -> None:
    """It changes the words alone."""
    for code in range(400, 600):
        for status in (
            answer(code, details={"name": "x"}),
            answer(code, details={"name": "x"}, reason="AlreadyExists"),
        ):
            assert type(refusal_of(status)) is kind_of(status)


def test_an_error_in_other_words_keeps_the_rest() -> None:
    error = error_of(answer(429, "7"), "get /x").saying("later")
    assert isinstance(error, Unavailable) and (str(error), error.retry_after) == ("later", 7.0)
    assert error.status is not None and error.status.code == 429


# -- retries ----------------------------------------------------------------------------------------------------------


def tries(*, unanswered: bool = False) -> Tries:
    return Tries(RetryPolicy((1.0, 2.0), patience=5.0, unanswered=unanswered))


def test_what_the_api_server_has_not_done_is_asked_again_until_the_pauses_are_over() -> None:
    left, busy = tries(), error_of(answer(429), "get /x")
    first, second = left.pause(busy), left.pause(busy)
    assert first is not None and second is not None and 1.0 <= first <= 1.25 and 2.0 <= second <= 2.5
    assert left.pause(busy) is None


def test_a_pause_is_as_long_as_the_api_server_asks_within_the_callers_patience() -> None:
    asked = tries().pause(error_of(answer(429, "4"), "get /x"))
    assert asked is not None and 4.0 <= asked <= 5.0
    assert tries().pause(error_of(answer(429, "6"), "get /x")) is None


def test_what_may_have_been_done_is_asked_again_only_where_the_policy_says_so() -> None:
    lost = Unavailable("no connection")
    assert tries().pause(lost) is None
    assert tries(unanswered=True).pause(lost) is not None
    for error in (TooSlow("no answer in time"), error_of(answer(504), "x"), error_of(answer(503), "x"), Refused("no")):
        assert tries(unanswered=True).pause(error) is None


def test_credentials_are_read_again_once() -> None:
    left, unknown = tries(), error_of(answer(401), "get /x")
    assert isinstance(unknown, Unauthorized)
    assert [left.renew(unknown), left.renew(unknown)] == [True, False]
    assert left.pause(unknown) is None and not tries().renew(error_of(answer(403), "get /x"))
