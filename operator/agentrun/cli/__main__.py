"""The command line as a process: ``agentrun``, ``kubectl agentrun``, and ``python -m agentrun.cli``."""

import os
import sys


def main() -> None:
    """Run the command line.

    Nothing is imported from the working directory: its files are the user's. Nothing is imported from PYTHONPATH
    either, except from agentrun's own folder: steps ignore that variable, and both must import the same modules.
    """
    ours = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))  # noqa: PTH118, PTH120  (before imports)
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except FileNotFoundError:
        here = ""  # the working directory was removed
    python = tuple(os.path.join(os.path.realpath(prefix), "") for prefix in (sys.prefix, sys.base_prefix))  # noqa: PTH118
    given = {os.path.realpath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    theirs = ({here} | {path for path in given if not path.startswith(python)}) - {ours}
    sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) not in theirs]
    try:
        from agentrun.cli.main import main as run  # noqa: PLC0415  (after sys.path is changed)

        run()
    except KeyboardInterrupt:  # while modules are imported: no verb has begun
        sys.exit(130)


if __name__ == "__main__":
    main()
