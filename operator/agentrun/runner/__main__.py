"""The process of one step: ``python -m agentrun.runner`` with its ``AttemptSpec`` in the environment.

The process writes one JSON line to standard error for each thing that happens. It writes its termination message to
the file that ``AGENTRUN_TERMINATION_LOG`` names (a pod's /dev/termination-log), or to standard output.
"""

from __future__ import annotations

import gc
import os
import sys

from agentrun import GC_THRESHOLD

if __name__ == "__main__":
    # Without it, pydantic searches every installed package for plugins, which takes 30 ms. agentrun has no plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(*GC_THRESHOLD)
    from agentrun.runner.process import main  # (after the line above, which has no effect later)

    sys.exit(main())
