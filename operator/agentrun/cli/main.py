"""``agentrun``: finds the verbs, runs one, and turns its result into an exit code.

Exit codes: 0 done and succeeded; 1 the run failed, was cancelled or rejected (also: ``diff`` found differences,
``audit verify`` found damage, a journal is damaged); 2 wrong usage, an invalid file, or a command that is not possible
in the present state; 3 the run waits for a person; 4 the store or the cluster is out of reach; 74 standard output
cannot be written; 130 or 143 interrupted by SIGINT or SIGTERM; 141 the reader of standard output closed it.
"""

# Each verb is imported when it is called, so that --help and a mistyped verb do not wait for all of them.
# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import PurePath
from typing import NoReturn

import click

from agentrun import GC_THRESHOLD, __version__
from agentrun.cli.options import place_options, remember_place
from agentrun.cli.place import KUBECTL

VERBS = {
    "validate": "Check files without running anything.",
    "run": "Run a file and follow it.",
    "list": "List the runs of a namespace, newest first.",
    "show": "Show the status and the timeline of a run.",
    "logs": "Print the logs of a run's steps.",
    "approve": "Approve what a run waits for.",
    "reject": "Reject what a run waits for.",
    "signal": "Send a signal to a run.",
    "resume": "Continue a run that is parked, suspended or without a driver.",
    "suspend": "Suspend a run: it starts nothing new until it is resumed.",
    "cancel": "Cancel a run: its compensations and finally steps still run.",
    "resolve": "Record the outcome of a call whose outcome is unknown.",
    "fork": "Start a new run from a point of another run.",
    "diff": "Show where two runs differ.",
    "audit": "Verify or export the journal of a run.",
    "drive": "",
}
"""The help line of each verb. A verb without one is not listed: agentrun itself calls it."""


def load(name: str) -> click.Command | None:
    """Import the verb of that name; None if there is no such verb."""
    match name:
        case "validate":
            from agentrun.cli.verbs.validate import validate_command as found
        case "run":
            from agentrun.cli.verbs.run import run_command as found
        case "resume":
            from agentrun.cli.verbs.run import resume_command as found
        case "drive":
            from agentrun.cli.verbs.run import drive_command as found
        case "list":
            from agentrun.cli.verbs.list import list_command as found
        case "show":
            from agentrun.cli.verbs.show import show_command as found
        case "logs":
            from agentrun.cli.verbs.logs import logs_command as found
        case "approve":
            from agentrun.cli.verbs.decide import approve_command as found
        case "reject":
            from agentrun.cli.verbs.decide import reject_command as found
        case "signal":
            from agentrun.cli.verbs.signal import signal_command as found
        case "suspend":
            from agentrun.cli.verbs.control import suspend_command as found
        case "cancel":
            from agentrun.cli.verbs.control import cancel_command as found
        case "resolve":
            from agentrun.cli.verbs.resolve import resolve_command as found
        case "fork":
            from agentrun.cli.verbs.fork import fork_command as found
        case "diff":
            from agentrun.cli.verbs.diff import diff_command as found
        case "audit":
            from agentrun.cli.verbs.audit import audit_command as found
        case _:
            return None
    return found


class _ReaderGone(Exception):
    """The reader of standard output closed it."""


class _NotWritten(Exception):
    """Standard output could not be written, for example because the disk is full."""


class _Verbs(click.Group):
    """A group that imports a verb when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, help_line in VERBS.items() if help_line]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return load(name)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error  # click would exit with 1, which means a failed run here

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name]) for name in self.list_commands(ctx)])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="agentrun %(version)s")
@place_options
@click.pass_context
def app(ctx: click.Context, /, **place: str | None) -> None:
    """Durable runs of AI agents.

    Everything about a run is kept in a store: a folder (.agentrun by default, or $AGENTRUN_STORE) or s3://BUCKET/PREFIX.

    With --context or --kubeconfig, and as kubectl agentrun, the same verbs work on the AgentRuns of a cluster.
    """
    remember_place(ctx, **place)


def main() -> NoReturn:
    """Entry point of ``agentrun`` and ``kubectl-agentrun``; exits the process."""
    # Otherwise pydantic searches every installed package for plugins, which takes 30 ms. We use none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(*GC_THRESHOLD)
    name = PurePath(sys.argv[0]).name
    # A caller may have closed a stream (`>&-`). Then its output is discarded.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    # If a stream is not UTF-8, a name with other characters must not cause a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(KUBECTL if name.startswith("kubectl") else "agentrun")
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _NotWritten(error.strerror) from error
    except (BrokenPipeError, _ReaderGone):
        # The reader has seen enough (head, less). Redirect, because the flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + 13
    except _NotWritten as error:
        print(f"agentrun: standard output could not be written: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 74  # EX_IOERR of sysexits.h, not 1, which means a failed run
    sys.exit(code)


def _run(name: str) -> int:
    for number, word in enumerate(sys.argv):
        if not word.isprintable() and any("\ud800" <= c <= "\udfff" for c in word):
            print(f"agentrun: argument {number} is not UTF-8; nothing was written", file=sys.stderr)
            return 2
    try:
        result = app.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        raise _NotWritten(error.strerror) from error  # stores raise errors of their own, so this was standard output
    except Exception as error:
        from agentrun.cli.failures import explain  # lazy: --help does not need it

        code = explain(error)
        if code is None:
            raise
        return code
    return result if isinstance(result, int) else 0
