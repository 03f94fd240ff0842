"""``python -m agentrun.cli``: how a detached driver is started, whatever is on PATH."""

from agentrun.cli.main import main

if __name__ == "__main__":
    main()
