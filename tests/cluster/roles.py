"""The processes that a test without nodes forks: the real operator, and the real runner in place of a pod.

python -m tests.cluster.roles SOCKET     is the zygote (tests/crash/zygote.py)
"""

from __future__ import annotations

import importlib
import os
import sys
import time

from agentrun.adapters import operator
from agentrun.runner import process
from tests.crash import roles
from tests.crash.zygote import serve

AHEAD = "TEST_CLOCK_AHEAD"
"""The variable with the seconds by which an operator's clock is ahead."""


def run_operator() -> int:
    """Run the operator as its container does, with a clock that may be ahead."""
    ahead, clock = float(os.environ[AHEAD]), time.time
    time.time = lambda: clock() + ahead
    return operator.main()


def run_runner() -> int:
    """Run the runner as a pod does."""
    return process.main()


if __name__ == "__main__":
    roles.warm()
    # kopf imports them when it first runs
    for name in ("kopf._core.reactor.running", "agentrun.store.s3_direct", "kubernetes.client", "kubernetes.config"):
        importlib.import_module(name)
    serve(sys.argv[1], {"operator": run_operator, "runner": run_runner})
