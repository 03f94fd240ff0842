"""The command line as a process: ``agentrun``, ``kubectl agentrun``, and ``python -m agentrun.cli``."""

import os
import sys


def main() -> None:
    """Run the command line. Nothing is imported from the working directory: what lies in it is the user's."""
    ours = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))  # noqa: PTH118, PTH120  (before imports)
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except FileNotFoundError:
        here = ""  # it was removed under our feet
    sys.path[:] = [path for path in sys.path if path and (os.path.realpath(path) != here or here == ours)]
    from agentrun.cli.main import main as run  # noqa: PLC0415  (after the line above, or it would be of no use)

    run()


if __name__ == "__main__":
    main()
