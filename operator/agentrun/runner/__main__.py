"""The process of one step: ``python -m agentrun.runner`` with its coordinates in the environment.

On standard error, a JSON line for each thing that happens. The end goes as a termination message to the file that
``AGENTRUN_TERMINATION_LOG`` names (a pod's /dev/termination-log), else to standard output.
"""

from __future__ import annotations

import gc
import os
import sys

COLLECT_AFTER = (50_000, 20, 100)
"""For ``gc.set_threshold``. Imports make objects that stay; at Python's own threshold of 700 they are searched for
garbage so often that it takes a tenth of the time until the first request."""

if __name__ == "__main__":
    gc.set_threshold(*COLLECT_AFTER)
    # Else pydantic searches every installed package for plugins, which takes 30 ms; nothing of ours is one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from agentrun.runner.process import main  # (after both, or they would be of no use)

    sys.exit(main())
