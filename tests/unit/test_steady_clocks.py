"""Clocks of processes that live as long as an attempt: right at the start, and deaf to jumps of the wall clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrun.runner import steady_clocks
from agentrun.runner.steady_clocks import elapsed, steady_clock

INSTANTS = st.floats(0, 4e9)
STEPS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(-4e9, 4e9)), max_size=10)


@given(began=INSTANTS, uptime=st.floats(0, 1e8), steps=STEPS)
def test_a_steady_clock_starts_at_the_wall_clocks_instant_and_follows_no_jump_of_it(
    began: float, uptime: float, steps: list[tuple[float, float]]
) -> None:
    """``steps``: the seconds that pass, and by how much somebody sets the wall clock meanwhile."""
    wall, ran = began, uptime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: wall)
        patch.setattr(steady_clocks, "elapsed", lambda: ran)
        clock = steady_clock()
        assert clock() == pytest.approx(began, abs=1e-5)
        for seconds, jump in steps:
            before = clock()
            wall, ran = wall + seconds + jump, ran + seconds
            assert clock() >= before
            assert clock() == pytest.approx(began + (ran - uptime), abs=1e-4)


def test_elapsed_never_goes_back_and_counts_the_time_in_which_the_machine_sleeps() -> None:
    looks = [elapsed() for _ in range(1000)]
    assert looks == sorted(looks)
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert looks[-1] <= time.clock_gettime(time.CLOCK_BOOTTIME) <= elapsed()
