"""The client of the API server: a page of a list is bounded by bytes."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from agentrun.kube.answers import TooLong
from agentrun.kube.client import PAGE_BYTES, Call, Kube


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
