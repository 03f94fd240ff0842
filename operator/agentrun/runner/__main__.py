"""The process of one step: ``python -m agentrun.runner`` with its ``AttemptSpec`` in the environment.

The process writes one JSON line to standard error for each thing that happens. It writes its termination message to
the file that ``AGENTRUN_TERMINATION_LOG`` names (a pod's /dev/termination-log), or to standard output.
"""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # Without it, pydantic searches every installed package for plugins, which takes 30 ms. agentrun has no plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Imports make many objects that stay. With the default threshold of 700, the collector looks through them hundreds
    # of times.
    gc.set_threshold(50_000, 20, 50)
    from agentrun.runner.process import main  # (after the line above, which has no effect later)

    sys.exit(main())
