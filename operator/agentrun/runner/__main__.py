"""The process of one step: ``python -m agentrun.runner`` with its ``AttemptSpec`` in the environment.

On standard error, a JSON line for each thing that happens. The end goes as a termination message to the file that
``AGENTRUN_TERMINATION_LOG`` names (a pod's /dev/termination-log), else to standard output.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Else pydantic searches every installed package for plugins, which takes 30 ms; nothing of ours is one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from agentrun.runner.process import main  # (after the line above, or it would be of no use)

    sys.exit(main())
