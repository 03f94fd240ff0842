"""What `make fuzz` tries for as long as one likes (tests/fuzz), with a few inputs each: the targets themselves work."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import TARGETS
from tests.fuzz.target import Target


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_whatever_is_read_is_dealt_with_within_bounds(target: Target) -> None:
    target.attempt(1, 15)
