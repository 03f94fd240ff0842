"""Start the operator as ``python -m agentrun.adapters.operator`` does, with a clock that a bench can wait for.

    python -m tests.bench.operator.launch [--resync SECONDS] [--profile FILE]

``--profile``: leave in FILE what its event loop's CPU went to, as cProfile writes it. That makes it about half as fast.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import time

from agentrun.adapters import operator
from agentrun.control import controller


def main() -> int:
    """Run the operator until SIGTERM; its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--resync", type=float, default=controller.RESYNC)
    parser.add_argument("--profile")
    given = parser.parse_args()
    controller.RESYNC = given.resync
    if not given.profile:
        return operator.main()
    with cProfile.Profile(time.thread_time) as profile:  # of the loop's thread, on a machine that others use too
        code = operator.main()
    profile.dump_stats(given.profile)
    return code


if __name__ == "__main__":
    sys.exit(main())
