"""The process of one step: ``python -m agentrun.runner`` with its coordinates in the environment.

On standard error, a JSON line for each thing that happens. The end goes as a termination message to the file that
``AGENTRUN_TERMINATION_LOG`` names (a pod's /dev/termination-log), else to standard output.
"""

from __future__ import annotations

import sys

from agentrun.runner.process import main

if __name__ == "__main__":
    sys.exit(main())
